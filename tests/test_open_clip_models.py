"""Models of open_clip's, by name: the features, logits, pictures and ids that open_clip gives from the same files."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tests.conftest import NO_TRUNKS, Run
from tests.drawn import draw
from tests.test_architecture import fresh
from tests.test_hub_tokenizer import write_tokenizer
from textmm import calibration, open_clip_config, open_clip_models
from textmm.calibration import Calibration
from textmm.clip_tokenizer import ClipTokenizer
from textmm.coca import CoCaDecoder
from textmm.encoder import CaptionDecoding, Encoder
from textmm.generate import Decoding, decode
from textmm.hub_tokenizer import HubTokenizer
from textmm.model import TextMultiModalModel
from textmm.open_clip_keys import from_open_clip, to_open_clip
from textmm.open_clip_module import OpenClipModule
from textmm.pretrained import WeightsMissing
from textmm.transforms import fit, to_tensor

pytestmark = pytest.mark.slow

TEXTS = ["a red circle", "!~x 'two' blue squares, !? 100%", "", "word " * 200, "红色连衣裙 🦜"]
SMALL_VISION = {"image_size": 64, "layers": 2, "width": 128, "patch_size": 32}
SMALL_TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
CLIP = {"embed_dim": 48, "vision_cfg": SMALL_VISION, "text_cfg": SMALL_TEXT}
COCA = {
    "embed_dim": 64,
    "vision_cfg": {
        **SMALL_VISION,
        "attentional_pool": True,
        "attn_pooler_heads": 4,
        "attn_pooler_queries": 9,
        "output_tokens": True,
    },
    "text_cfg": {**SMALL_TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True},
    "multimodal_cfg": {"context_length": 76, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 3},
    "custom_text": True,
}
NARROW = {
    "ViT-B-32": CLIP,
    "ViT-B-16 of quick_gelu": {**CLIP, "vision_cfg": {**SMALL_VISION, "patch_size": 16}, "quick_gelu": True},
    "ViT-L-14": {
        **CLIP,
        "vision_cfg": {**SMALL_VISION, "image_size": 56, "patch_size": 14, "width": 256, "layers": 3},
    },
    "ViT-g-14": {
        **CLIP,
        "vision_cfg": {**SMALL_VISION, "width": 176, "head_width": 88, "mlp_ratio": 4.3637},
        "text_cfg": {**SMALL_TEXT, "mlp_ratio": 3.0},
    },
    "coca_ViT-B-32": COCA,
    "coca as wide as its ViT": {**COCA, "vision_cfg": {**COCA["vision_cfg"], "width": 64}},  # type: ignore[dict-item]
}
SIGLIP = {
    "embed_dim": 192,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "timm_model_name": "vit_tiny_patch16_224",
        "timm_pool": "map",
        "timm_proj": "none",
        "image_size": 32,
        "timm_model_pretrained": False,
    },
    "text_cfg": {
        "context_length": 16,
        "vocab_size": 300,
        "width": 192,
        "heads": 3,
        "layers": 2,
        "hf_tokenizer_name": "org/words",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6},
    },
}
CONVNEXT = {
    "embed_dim": 32,
    "vision_cfg": {
        "timm_model_name": "convnext_atto",
        "timm_pool": "",
        "timm_proj": "linear",
        "image_size": 64,
        "timm_model_pretrained": False,
    },
    "text_cfg": SMALL_TEXT,
}


def theirs(config: dict[str, Any], *, seed: int = 0) -> nn.Module:
    """open_clip's own model with random weights, none of which is zero or one by design."""
    torch.manual_seed(seed)
    fields = json.loads(json.dumps(config))
    custom = fields.pop("custom_text", False)
    made = (
        open_clip.CoCa
        if "multimodal_cfg" in fields
        else open_clip.CustomTextCLIP
        if custom
        else open_clip.CLIP
    )
    model: nn.Module = made(**fields).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1 or "text_decoder.text_projection" in name:
                weight.copy_(0.3 * torch.randn_like(weight) + float("ln" in name and name.endswith("weight")))
    return model


def write(
    folder: Path, config: dict[str, Any], model: nn.Module, preprocess: dict[str, Any] | None = None
) -> Path:
    """The folder of a hub repository."""
    folder.mkdir(parents=True)
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    described = {"model_cfg": config, "preprocess_cfg": preprocess or {}}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    return folder


def ours(model: nn.Module, config: dict[str, Any]) -> TextMultiModalModel:
    parsed = open_clip_config.model_config(config, {})
    assert parsed is not None
    made = TextMultiModalModel(parsed).eval()
    made.load_state_dict(from_open_clip(model.state_dict(), made.state_dict()))
    return made


def tokens_of(config: dict[str, Any], *, whole: bool) -> Tensor:
    path = open_clip_config.package_folder() / "bpe_simple_vocab_16e6.txt.gz"
    (ids,) = ClipTokenizer(path, context_length=config["text_cfg"]["context_length"], whole=whole)(TEXTS[:3])
    return ids


@torch.inference_mode()
def assert_same_features(config: dict[str, Any]) -> None:
    model = theirs(config)
    made = ours(model, config)
    side = config["vision_cfg"]["image_size"]
    pictures = torch.randn(2, 3, side, side)
    padded, short = tokens_of(config, whole=True), tokens_of(config, whole=False)

    image, text = made.encode_image(pictures), made.encode_text((short,))

    assert short.shape[1] < padded.shape[1]
    expected = model.encode_image(pictures, normalize=True)  # type: ignore[operator]
    torch.testing.assert_close(image.features, expected, atol=1e-4, rtol=0)
    expected = model.encode_text(padded, normalize=True)  # type: ignore[operator]
    torch.testing.assert_close(text.features, expected, atol=1e-4, rtol=0)
    if "multimodal_cfg" in config:
        assert made.decoder is not None
        said = model(pictures, padded[1:3], output_labels=False)
        torch.testing.assert_close(image.tokens, model(pictures)["image_embs"], atol=1e-4, rtol=0)
        logits = made.decoder(padded[1:3], image.tokens)
        torch.testing.assert_close(logits, said["logits"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NARROW)
def test_narrow_models_give_the_features_and_logits_of_open_clip(name: str) -> None:
    assert_same_features(NARROW[name])


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16", "ViT-B-16-quickgelu", "coca_ViT-B-32"])
def test_full_models_give_the_features_and_logits_of_open_clip(name: str) -> None:
    config = open_clip_config.architecture(name)
    assert config is not None

    assert_same_features(config)


@pytest.mark.parametrize("name", NARROW)
def test_keys_there_and_back_are_the_same_weights(name: str) -> None:
    model = theirs(NARROW[name])

    back = to_open_clip(ours(model, NARROW[name]).state_dict())

    given = model.state_dict()
    assert back.keys() == given.keys()
    assert all(torch.equal(back[key], given[key]) for key in given)


@torch.inference_mode()
def test_coca_decoding_step_by_step_is_decoding_at_once() -> None:
    made = ours(theirs(COCA), COCA)
    decoder = made.decoder
    assert isinstance(decoder, CoCaDecoder)
    image_tokens = torch.randn(2, 8, 64)
    words = torch.randint(1, 49408, (2, 12), generator=torch.Generator().manual_seed(3))

    cache = decoder.start(image_tokens)
    states = [decoder.step(words[:, :3], cache, positions=torch.arange(3))]
    states += [decoder.step(words[:, i : i + 1], cache, positions=torch.tensor([i])) for i in range(3, 12)]

    logits = decoder.logits(torch.cat(states, dim=1))
    torch.testing.assert_close(logits, decoder(words, image_tokens), atol=1e-4, rtol=1e-4)
    assert decoder.context_length == 76


@pytest.mark.parametrize("beams", [1, 3])
@torch.inference_mode()
def test_coca_s_captions_with_a_cache_are_those_of_open_clip_s_logits_without_one(beams: int) -> None:
    """Greedily and by beams of a fixed length, against a search that runs everything anew for each word."""
    model = theirs(COCA)
    made = ours(model, COCA)
    assert made.decoder is not None
    pictures, length, banned = torch.randn(3, 3, 64, 64), 6, [0, 49406, 49407]
    how = Decoding(
        start_token_id=49406,
        end_token_id=49407,
        pad_token_id=0,
        beams=beams,
        max_length=length,
        min_length=length - 1,
    )

    found = decode(made.decoder, made.encode_image(pictures).tokens, how)

    for picture, ids in zip(pictures, found, strict=True):
        open_beams = [(0.0, [49406])]
        for _ in range(length - 1):
            rows = torch.tensor([words for _, words in open_beams])
            logits = model(picture.expand(len(rows), -1, -1, -1), rows, output_labels=False)["logits"][:, -1]
            log_p = logits.log_softmax(1)
            log_p[:, banned] = float("-inf")
            grown = [
                (score + float(p), [*words, int(word)])
                for (score, words), row in zip(open_beams, log_p, strict=True)
                for p, word in zip(*row.topk(beams), strict=True)
            ]
            open_beams = sorted(grown, reverse=True)[:beams]
        assert ids == open_beams[0][1][1:]


def test_what_does_not_fit_is_named() -> None:
    state = theirs(CLIP).state_dict()
    like = ours(theirs(CLIP), CLIP).state_dict()
    wide = {**CLIP, "vision_cfg": {**SMALL_VISION, "width": 192}}

    with pytest.raises(ValueError, match=r"the weights lack text\.ln_final\.bias"):
        from_open_clip({k: v for k, v in state.items() if k != "ln_final.bias"}, like)
    with pytest.raises(
        ValueError, match=r"the weights hold visual\.head\.bias, which this architecture has not"
    ):
        from_open_clip({**state, "visual.head.bias": torch.zeros(3)}, like)
    with pytest.raises(
        ValueError, match=r"visual\.class_embedding is \[192\] where this architecture has \[128\]"
    ):
        from_open_clip(theirs(wide).state_dict(), like)


def test_a_text_tower_of_its_own_and_a_parallel_run_load_the_same() -> None:
    state = theirs(CLIP).state_dict()
    like = ours(theirs(CLIP), CLIP).state_dict()
    custom = {k if k.startswith(("visual.", "logit")) else f"text.{k}": v for k, v in state.items()}
    parallel = {f"module.{k}": v for k, v in state.items()} | {"module.attn_mask": torch.zeros(77, 77)}

    for variant in (custom, parallel):
        back = from_open_clip({**variant, next(iter(variant)): next(iter(variant.values()))}, like)
        assert all(torch.equal(back[key], value) for key, value in like.items())


# Pictures


@pytest.mark.parametrize("size", [(64, 64), (300, 200), (97, 301), (1000, 131), (40, 30)])
@pytest.mark.parametrize("how", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_pictures_are_prepared_as_open_clip_prepares_them(
    size: tuple[int, int], how: str, interpolation: str
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    said = {"resize_mode": how, "interpolation": interpolation, "mean": [0.5, 0.4, 0.3], "std": 0.25}
    config = open_clip_config.image_config({"vision_cfg": {"image_size": 64}}, said)

    made = to_tensor([fit(picture, config)], config)

    transform = image_transform_v2(PreprocessCfg(**{**said, "size": 64}), is_train=False)
    torch.testing.assert_close(made[0], transform(picture), atol=1e-5, rtol=0)


def test_a_strip_of_pixels_does_not_become_a_picture_of_billions() -> None:
    config = open_clip_config.image_config({"vision_cfg": {"image_size": 64}}, {})

    assert fit(Image.new("RGB", (60_000, 3), "red"), config).size == (64, 64)


# By name


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "data" / "models"


@pytest.fixture
def coca(tmp_path: Path) -> Path:
    return write(tmp_path / "repository", COCA, theirs(COCA))


def loaded(name: str | Path, models: Path | None = None) -> Encoder:
    return Encoder.load(str(name), NO_TRUNKS, models=models, threads=1)


def test_a_folder_gives_vectors_of_its_pictures_and_texts_and_captions(coca: Path) -> None:
    encoder = loaded(coca)
    pictures = [draw("circle", "red"), Image.new("RGB", (90, 50), "blue")]

    vectors, words = encoder.encode_images(pictures), encoder.encode_texts(TEXTS)
    captions = encoder.caption_images(pictures, how=CaptionDecoding(beams=2))

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{coca}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{coca}")
    with torch.inference_mode():
        expected = model.eval().encode_image(torch.stack([transform(p) for p in pictures])).numpy()
        expected_words = model.encode_text(tokenize(TEXTS)).numpy()
    np.testing.assert_allclose(vectors, expected, atol=1e-4)
    np.testing.assert_allclose(words, expected_words, atol=1e-4)
    assert encoder.styles == ("photo",)
    assert len(captions) == 2
    assert encoder.model_id.startswith("repository-")


def test_other_architectures_run_in_open_clip_s_own_module(tmp_path: Path) -> None:
    said = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "resize_mode": "squash"}
    model = theirs(CONVNEXT)
    folder = write(tmp_path / "convnext", CONVNEXT, model, said)
    pictures = [draw("circle", "red"), Image.new("RGB", (90, 50), "blue")]

    encoder = loaded(folder)
    vectors, words = encoder.encode_images(pictures), encoder.encode_texts(TEXTS)

    transform = image_transform_v2(PreprocessCfg(**{**said, "size": 64}), is_train=False)
    with torch.inference_mode():
        expected = model.encode_image(torch.stack([transform(p) for p in pictures]), normalize=True)  # type: ignore
        tokens = open_clip.get_tokenizer("ViT-B-32")(TEXTS)
        expected_words = model.encode_text(tokens, normalize=True)  # type: ignore[operator]
    np.testing.assert_allclose(vectors, expected.numpy(), atol=1e-4)
    np.testing.assert_allclose(words, expected_words.numpy(), atol=1e-4)
    assert encoder.styles == ()
    assert encoder.logit_scale == pytest.approx(1 / 0.07)
    assert encoder.count_tokens(["a red circle"]) == [5]


def test_siglip_s_towers_run_with_the_tokenizer_of_their_repository(tmp_path: Path) -> None:
    model = theirs(SIGLIP)
    folder = write(tmp_path / "siglip", SIGLIP, model)
    with pytest.raises(
        FileNotFoundError, match=r"put its tokenizer\.json and tokenizer_config\.json in .*org/words"
    ):
        loaded(folder, tmp_path)
    write_tokenizer(folder)

    words = loaded(folder).encode_texts(["A red-circle!", "blue " * 40])

    tokens = HubTokenizer(folder, context_length=16, settings={"clean": "canonicalize"})(
        ["a redcircle", "blue " * 40]
    )
    with torch.inference_mode():
        expected = model.encode_text(*tokens, normalize=True).numpy()  # type: ignore[operator]
    np.testing.assert_allclose(words, expected, atol=1e-4)


def test_a_text_tower_of_transformers_asks_for_its_description(tmp_path: Path) -> None:
    text = {
        "hf_model_name": "xlm-roberta-base",
        "hf_tokenizer_name": "xlm-roberta-base",
        "hf_proj_type": "mlp",
    }
    folder = write(tmp_path / "xlm", {**CLIP, "text_cfg": text}, theirs(CLIP))

    with pytest.raises(
        WeightsMissing, match=r"put its config\.json .* at .*data/hub/xlm-roberta-base/config\.json"
    ):
        loaded(folder, tmp_path / "data")


def test_a_text_tower_of_transformers_gives_its_features(tmp_path: Path) -> None:
    hub = tmp_path / "data" / "hub"
    described = hub / "org" / "xlm-small"
    write_tokenizer(described)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    limits = {"vocab_size": 12, "max_position_embeddings": 40, "pad_token_id": 0}
    (described / "config.json").write_text(json.dumps({"model_type": "xlm-roberta", **sizes, **limits}))
    said = {"hf_proj_type": "mlp", "hf_pooler_type": "mean_pooler", "context_length": 16}
    text = {"hf_model_name": "org/xlm-small", "hf_tokenizer_name": "org/xlm-small", **said}
    here = {**text, "hf_model_name": str(described), "hf_model_pretrained": False}
    model = theirs({**CLIP, "custom_text": True, "text_cfg": here})
    folder = write(tmp_path / "xlm", {**CLIP, "text_cfg": text}, model)

    encoder = loaded(folder, tmp_path / "data")
    words = encoder.encode_texts(["a red circle", "blue"])

    tokens = HubTokenizer(described, context_length=16, settings={})(["a red circle", "blue"])
    with torch.inference_mode():
        expected = model.encode_text(*tokens, normalize=True).numpy()  # type: ignore[operator]
    np.testing.assert_allclose(words, expected, atol=1e-4)
    assert encoder.encode_images([draw("circle", "red")]).shape == (1, 48)


def test_eva_s_towers_run_in_open_clip_s_own_module(tmp_path: Path) -> None:
    vision = {"timm_model_name": "eva02_tiny_patch14_224", "timm_pool": "token", "timm_proj": None}
    sizes = {"image_size": 224, "timm_model_pretrained": False}
    config = {
        "embed_dim": 192,
        "vision_cfg": {**vision, **sizes},
        "text_cfg": SMALL_TEXT,
        "custom_text": True,
    }
    model = theirs(config)
    picture = draw("circle", "red")

    vectors = loaded(write(tmp_path / "eva", config, model)).encode_images([picture])

    transform = image_transform_v2(PreprocessCfg(size=224), is_train=False)
    with torch.inference_mode():
        expected = model.encode_image(transform(picture)[None], normalize=True)  # type: ignore[operator]
    np.testing.assert_allclose(vectors, expected.numpy(), atol=1e-4)


def test_weights_of_another_model_do_not_go_into_open_clip_s_module(tmp_path: Path) -> None:
    folder = write(tmp_path / "convnext", CONVNEXT, theirs(CLIP))

    with pytest.raises(ValueError, match="does not hold the weights of this model"):
        loaded(folder)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "ViT-B-32/laion2b_s34b_b79k",
            r"put the weights, published as laion/CLIP-ViT-B-32-laion2B-s34B-b79K/, at .*"
            r"models/ViT-B-32/laion2b_s34b_b79k/open_clip_model\.safetensors .*"
            r"run `textmm models add ViT-B-32/laion2b_s34b_b79k FILE`",
        ),
        (
            "coca_ViT-B-32/mine",
            r"put the weights at .*models/coca_ViT-B-32/mine/open_clip_model\.safetensors",
        ),
        (
            "hf-hub:org/name",
            r"put open_clip_config\.json and open_clip_model\.safetensors .* in .*models/hub/org/name",
        ),
    ],
)
def test_weights_that_are_not_here_are_asked_for_with_their_place(name: str, said: str, models: Path) -> None:
    with pytest.raises(WeightsMissing, match=said):
        loaded(name, models)


def test_an_architecture_without_weights_and_weights_of_the_other_gelu_are_refused(models: Path) -> None:
    with pytest.raises(
        ValueError, match=r"say with which weights, ViT-B-32/TAG, where TAG is one of .*laion2b"
    ):
        loaded("ViT-B-32", models)
    with pytest.raises(ValueError, match="trained with quick_gelu: ask for ViT-B-32-quickgelu/openai"):
        loaded("ViT-B-32/openai", models)
    with pytest.raises(
        ValueError, match=r"there is no model 'ViT-B-33/mine'.* or a published model as ARCHITECTURE/TAG"
    ):
        loaded("ViT-B-33/mine", models)
    assert open_clip_models.find("../ViT-B-32/x", models) is None
    assert open_clip_models.find("ViT-B-32/..", models) is None


def test_models_add_puts_a_repository_in_place_and_it_loads_by_name(
    run: Run, coca: Path, models: Path
) -> None:
    added = run("models", "add", "hf-hub:org/small", coca)
    again = run("models", "add", "hf-hub:org/small", coca / "open_clip_model.safetensors")
    listed = run("models", "list")

    encoder = loaded("hf-hub:org/small", models)
    assert (added.code, added.err) == (0, "")
    assert added.out == again.out == f"{encoder.model_id}\n"
    assert encoder.model_id.startswith("org-small-")
    assert f"{encoder.model_id}  64 dimensions  hf-hub:org/small" in listed.out.splitlines()
    assert [path.name for path in (models / "hub" / "org").iterdir()] == ["small"]
    np.testing.assert_array_equal(encoder.encode_texts(TEXTS), loaded(coca).encode_texts(TEXTS))


def test_a_published_model_s_calibration_stands_beside_its_weights(coca: Path) -> None:
    before = loaded(coca)
    made = Calibration(0.05, ("{}", "a {}"))
    (coca / calibration.FILE).write_text(calibration.to_json(made))

    assert before.calibration == Calibration(1 / before.logit_scale)
    assert loaded(coca).calibration == made
    assert loaded(coca).model_id == before.model_id


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_models_add_takes_torch_files_and_refuses_what_does_not_fit(
    run: Run, tmp_path: Path, models: Path
) -> None:
    state = theirs(CLIP).state_dict()
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "epoch_3.pt")
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "code.pt")  # type: ignore[no-untyped-call]
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP}))
    (tmp_path / "broken.safetensors").write_bytes(b"no weights at all")

    fits = run("models", "add", "hf-hub:org/clip", tmp_path / "epoch_3.pt")
    other = run("models", "add", "ViT-B-32/mine", tmp_path / "epoch_3.pt")
    code = run("models", "add", "hf-hub:org/code", tmp_path / "code.pt")
    broken = run("models", "add", "hf-hub:org/clip", tmp_path / "broken.safetensors")
    nowhere = run("models", "add", "mini", tmp_path / "epoch_3.pt")
    (tmp_path / "open_clip_config.json").unlink()
    alone = run("models", "add", "hf-hub:org/alone", tmp_path / "epoch_3.pt")

    assert fits.code == 0
    assert [done.code for done in (other, code, broken, nowhere, alone)] == [2] * 5
    assert "must lie its open_clip_config.json; give the folder of the repository" in alone.err
    assert "where this architecture has" in other.err
    assert "holds code, which is not run: take the .safetensors" in code.err
    assert f"{tmp_path / 'broken.safetensors'}: not weights that can be read as data" in broken.err
    assert "'mini' names no published model" in nowhere.err
    assert open_clip_models.installed(models) == ["hf-hub:org/clip"]
    assert f"{loaded('hf-hub:org/clip', models).model_id}\n" == fits.out


def test_what_we_export_open_clip_loads(run: Run, coca: Path, tmp_path: Path, tiny: Path) -> None:
    exported = run("models", "export", coca, tmp_path / "exported")
    refused = run("models", "export", tiny, tmp_path / "refused")

    model = open_clip.create_model(f"local-dir:{tmp_path / 'exported'}")
    given = load_file(coca / "open_clip_model.safetensors")
    assert exported.code == 0
    assert model.state_dict().keys() == given.keys()
    assert all(torch.equal(model.state_dict()[key], given[key]) for key in given)
    assert loaded(tmp_path / "exported").encode_texts(TEXTS) == pytest.approx(
        loaded(coca).encode_texts(TEXTS)
    )
    assert refused.code == 2
    assert "no CLIP ViT or CoCa with CLIP's vocabulary" in refused.err


def test_a_tagged_file_loads_with_the_preprocessing_of_its_tag(models: Path, tmp_path: Path) -> None:
    config = open_clip_config.architecture("ViT-B-32")
    assert config is not None
    file = tmp_path / "weights.safetensors"
    save_file({k: v.contiguous() for k, v in theirs(config).state_dict().items()}, file)
    by_hand = models / "ViT-B-32" / "commonpool_s_s13m_b4k"
    by_hand.mkdir(parents=True)
    (by_hand / "open_clip_model.safetensors").symlink_to(file)

    identity = loaded("ViT-B-32/commonpool_s_s13m_b4k", models).model_id

    assert open_clip_models.add("ViT-B-32/commonpool_s_s13m_b4k", file, models) == identity
    assert loaded("ViT-B-32/commonpool_s_s13m_b4k", models).preprocessing == "shortest-224"


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        *(("ViT-B-32", True), ("ViT-B-16-quickgelu", True), ("ViT-L-14", True), ("ViT-L-14-336", True)),
        *(("ViT-H-14", True), ("ViT-g-14", True), ("ViT-bigG-14", True), ("coca_ViT-L-14", True)),
        *(("ViT-B-16-SigLIP", False), ("convnext_base", False), ("EVA02-B-16", False), ("RN50", False)),
        *(("xlm-roberta-base-ViT-B-32", False), ("coca_roberta-ViT-B-32", False), ("ViT-H-14-CLIPA", False)),
    ],
)
def test_which_architectures_are_ours(name: str, ours: bool) -> None:
    described = open_clip_config.architecture(name)

    assert described is not None
    assert (open_clip_config.model_config(described, {}) is not None) == ours


def test_every_architecture_that_is_ours_comes_back_as_it_was() -> None:
    found = 0
    for path in sorted((open_clip_config.package_folder() / "model_configs").glob("*.json")):
        config = open_clip_config.model_config(json.loads(path.read_text()), {})
        if config is not None:
            found += 1
            back = open_clip_config.open_clip_config(config)
            assert open_clip_config.model_config(back["model_cfg"], back["preprocess_cfg"]) == config

    assert found > 20


@pytest.fixture(scope="module")
def imported() -> Iterator[str]:
    yield fresh(
        "import sys\nimport search.app, search.cli.serve, textmm.encoder, textmm.train\n"
        "from textmm import open_clip_models\nfrom pathlib import Path\n"
        "assert open_clip_models.find('mini', Path('models')) is None\n"
        "print(sorted({'open_clip', 'timm', 'transformers'} & set(sys.modules)))"
    )


def test_serving_a_bundled_model_imports_neither_open_clip_nor_timm_nor_transformers(imported: str) -> None:
    assert imported == "[]\n"


def test_open_clip_s_own_module_is_what_the_encoder_holds(tmp_path: Path) -> None:
    folder = write(tmp_path / "convnext", CONVNEXT, theirs(CONVNEXT))
    published = open_clip_models.find(str(folder), None)
    assert published is not None

    assert isinstance(open_clip_models.load(published).model, OpenClipModule)
    assert "timm" in sys.modules
