import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from textmm import checkpoint
from textmm.config import named_model
from textmm.model import TextMultiModalModel
from textmm.tokenizers import BytePair

TINY = named_model("tiny")
NO_TRUNKS = Path("no-trunks")


@pytest.fixture(scope="module")
def model() -> TextMultiModalModel:
    torch.manual_seed(1)
    return TextMultiModalModel(TINY)


@pytest.fixture(scope="module")
def vocabulary() -> BytePair:
    return BytePair.train(["a red circle", "a blue square"], 320, context_length=24, styles=("photo",))


@pytest.fixture
def saved(tmp_path: Path, model: TextMultiModalModel, vocabulary: BytePair) -> Path:
    checkpoint.save(tmp_path / "model", model, vocabulary, name="tiny")
    return tmp_path / "model"


def test_what_is_saved_loads_bit_for_bit(
    saved: Path, model: TextMultiModalModel, vocabulary: BytePair
) -> None:
    loaded = checkpoint.load(str(saved), NO_TRUNKS)

    state = model.state_dict()
    assert loaded.model.config == TINY
    assert loaded.model.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.model.state_dict().items())
    assert isinstance(loaded.captioner, BytePair)
    assert loaded.captioner.vocabulary == vocabulary.vocabulary
    assert loaded.captioner.context_length == 24
    assert not loaded.model.training


def test_a_loaded_tokenizer_gives_the_ids_of_the_one_that_was_saved(
    saved: Path, vocabulary: BytePair
) -> None:
    loaded = checkpoint.load(str(saved), NO_TRUNKS)

    (ids,) = loaded.tokenizer(["a red square"])

    assert torch.equal(ids, vocabulary(["a red square"])[0])


def test_half_a_model_is_every_number_rounded_to_16_bits(
    tmp_path: Path, model: TextMultiModalModel, vocabulary: BytePair, saved: Path
) -> None:
    checkpoint.save(tmp_path / "half", model, vocabulary, name="tiny", half=True)

    loaded = checkpoint.load(str(tmp_path / "half"), NO_TRUNKS)

    stored = load_file(tmp_path / "half" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name].half().float())
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (tmp_path / "half", saved)]
    assert sizes[0] < 0.6 * sizes[1]


def test_files_appear_whole_and_nothing_else_is_left(saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} == {"config.json", "model.safetensors", "vocabulary.json"}


def test_saving_again_replaces_and_leaves_one_model(
    saved: Path, model: TextMultiModalModel, vocabulary: BytePair
) -> None:
    before = checkpoint.model_id(saved)

    checkpoint.save(saved, model, vocabulary, name="tiny")

    assert checkpoint.model_id(saved) == before
    assert not list(saved.glob("*.partial"))


def test_a_model_id_is_the_name_and_a_hash_that_stays(
    tmp_path: Path, saved: Path, model: TextMultiModalModel, vocabulary: BytePair
) -> None:
    shutil.copytree(saved, tmp_path / "copy")
    checkpoint.save(tmp_path / "again", model, vocabulary, name="tiny")

    identity = checkpoint.load(str(saved), NO_TRUNKS).model_id

    name, _, digest = identity.rpartition("-")
    assert name == "tiny"
    assert len(digest) == 8
    assert checkpoint.model_id(tmp_path / "copy") == checkpoint.model_id(tmp_path / "again") == identity


def test_a_model_id_changes_with_one_weight(
    tmp_path: Path, saved: Path, model: TextMultiModalModel, vocabulary: BytePair
) -> None:
    other = TextMultiModalModel(TINY)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        other.logit_scale.add_(1e-4)
    checkpoint.save(tmp_path / "other", other, vocabulary, name="tiny")

    assert checkpoint.model_id(tmp_path / "other") != checkpoint.model_id(saved)


def test_a_model_id_changes_with_the_vocabulary_and_with_the_preprocessing(
    tmp_path: Path, saved: Path, model: TextMultiModalModel
) -> None:
    words = BytePair.train(["other words entirely"], 320, context_length=24, styles=("photo",))
    checkpoint.save(tmp_path / "words", model, words, name="tiny")
    shutil.copytree(saved, tmp_path / "fit")
    stored = json.loads((tmp_path / "fit" / "config.json").read_text())
    stored["model"]["vision_cfg"]["resize_mode"] = "shortest"
    (tmp_path / "fit" / "config.json").write_text(json.dumps(stored))

    identities = {checkpoint.model_id(folder) for folder in (saved, tmp_path / "words", tmp_path / "fit")}

    assert len(identities) == 3


def test_a_model_without_a_decoder_has_no_captioner(tmp_path: Path, vocabulary: BytePair) -> None:
    clip = TextMultiModalModel(replace(TINY, multimodal_cfg=None))
    checkpoint.save(tmp_path, clip, vocabulary, name="clip")

    loaded = checkpoint.load(str(tmp_path), NO_TRUNKS)

    assert loaded.captioner is None
    assert loaded.model.config.multimodal_cfg is None


def test_an_unknown_model_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"there is no model 'gone': give a folder with config\.json or one of"
    ):
        checkpoint.load("gone", NO_TRUNKS)
    with pytest.raises(ValueError, match=r"give a folder with config\.json"):
        checkpoint.load(str(tmp_path), NO_TRUNKS)


def test_weights_of_another_architecture_are_refused(saved: Path) -> None:
    stored = json.loads((saved / "config.json").read_text())
    stored["model"]["text_cfg"]["layers"] = 3
    (saved / "config.json").write_text(json.dumps(stored))

    with pytest.raises(ValueError, match=r"model does not fit its own config\.json: text\.blocks\.2"):
        checkpoint.load(str(saved), NO_TRUNKS)


def test_a_text_tower_of_its_own_needs_its_vocabulary(saved: Path) -> None:
    (saved / "vocabulary.json").unlink()

    with pytest.raises(ValueError, match=r"needs a vocabulary\.json beside it"):
        checkpoint.load(str(saved), NO_TRUNKS)


def test_the_state_of_a_run_comes_back_as_it_was(tmp_path: Path) -> None:
    state: dict[str, object] = {"stage": 1, "step": 30, "model": {"w": torch.arange(4.0)}}

    checkpoint.save_training(tmp_path / "training.pt", state)

    back = checkpoint.load_training(tmp_path / "training.pt")
    assert (back["stage"], back["step"]) == (1, 30)
    torch.testing.assert_close(back["model"], state["model"])
    assert [path.name for path in tmp_path.iterdir()] == ["training.pt"]


@pytest.mark.slow
def test_a_checkpoint_does_not_repeat_pretrained_weights_and_is_whole_with_them(
    tmp_path: Path, trunks: Path, vocabulary: BytePair
) -> None:
    torch.manual_seed(2)
    model = checkpoint.build(named_model("mini"), trunks).eval()
    checkpoint.save(tmp_path, model, vocabulary, name="mini")

    loaded = checkpoint.load(str(tmp_path), trunks).model

    stored = load_file(tmp_path / "model.safetensors")
    assert not [name for name in stored if name.startswith(("image.features.", "text.trunks."))]
    state = loaded.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
