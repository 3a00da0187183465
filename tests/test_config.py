import json
from pathlib import Path

import pytest

from textmm.config import DecoderConfig, ImageConfig, ModelConfig, TextConfig, from_mapping, named_model
from textmm.recipe import Stage

SMALL = {"embed_dim": 8, "vision_cfg": {"width": 16}, "text_cfg": {"width": 16}}


def test_an_unknown_architecture_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match=r"no model 'huge'; there are: mini, tiny, JSON files of yours"):
        named_model("huge")


@pytest.mark.parametrize("name", ["mini", "tiny"])
def test_every_architecture_is_what_its_file_says(name: str) -> None:
    config = named_model(name)
    stored = json.loads((Path("textmm/models") / f"{name}.json").read_text())

    assert config.embed_dim == stored["embed_dim"]
    assert config.vision_cfg.kind == stored["vision_cfg"]["kind"]
    assert config.multimodal_cfg is not None
    assert list(config.multimodal_cfg.styles) == stored["multimodal_cfg"]["styles"]


def test_what_a_file_leaves_out_has_its_default_and_no_decoder_is_none() -> None:
    config = ModelConfig.parse(SMALL)

    assert config == ModelConfig(
        embed_dim=8, vision_cfg=ImageConfig(width=16), text_cfg=TextConfig(width=16), multimodal_cfg=None
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"embed_dimm": 8}, "unknown key embed_dimm; known here: embed_dim, init_logit_bias, multimodal_cfg"),
        ({"vision_cfg": {"widht": 16}}, "unknown key widht; known here: .*width"),
        ({"text_cfg": {"vocab": 5}}, "unknown key vocab; known here: .*vocab_size"),
        ({"multimodal_cfg": {"style": ["photo"]}}, "unknown key style; known here: .*styles"),
    ],
)
def test_an_unknown_key_names_itself_and_the_known_ones(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig.parse({**SMALL, **wrong})


def test_where_a_key_stands_is_said_before_it() -> None:
    with pytest.raises(ValueError, match=r"unknown key stages\.depth; known here: beams, choice_weight"):
        from_mapping(DecoderConfig, {"depth": 3}, where="stages.")


def test_lists_become_tuples() -> None:
    assert from_mapping(DecoderConfig, {"styles": ["a", "b"]}).styles == ("a", "b")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"embed_dim": 0}, r"model\.embed_dim must be at least 1, got 0"),
        (
            {"vision_cfg": {"kind": "resnet"}},
            "vision_cfg.kind must be one of vit, cnn, open_clip, got 'resnet'",
        ),
        ({"vision_cfg": {"resize_mode": "pad"}}, "resize_mode must be one of squash, shortest, got 'pad'"),
        ({"vision_cfg": {"pool_grid": -1}}, r"vision_cfg\.pool_grid must be 0 or more cells a side, got -1"),
        ({"vision_cfg": {"layers": 0}}, r"vision_cfg\.layers must be at least 1, got 0"),
        (
            {"text_cfg": {"kind": "gpt"}},
            "text_cfg.kind must be one of causal, bert, sentence, pair, open_clip, got 'gpt'",
        ),
        ({"text_cfg": {"heads": -2}}, r"text_cfg\.heads must be at least 1, got -2"),
        ({"multimodal_cfg": {"width": 0}}, r"multimodal_cfg\.width must be at least 1, got 0"),
    ],
)
def test_a_bad_value_is_refused_with_its_name_and_value(part: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig.parse({**SMALL, **part})


def test_a_file_reads_as_its_content_parses(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    path.write_text(json.dumps(SMALL))

    assert ModelConfig.read(path) == ModelConfig.parse(SMALL)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"styles": "photo"}, "stages.styles must be a list, got 'photo'"),
        ({"layers": "3"}, "stages.layers must be of type int, got '3'"),
        ({"layers": True}, "stages.layers must be of type int, got True"),
    ],
)
def test_a_value_of_another_type_is_named(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_mapping(DecoderConfig, given, where="stages.")


def test_a_key_that_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match=r"missing key stages\.steps"):
        from_mapping(Stage, {"name": "few", "batch_size": 4, "learning_rate": 1}, where="stages.")
