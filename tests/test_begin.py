"""Runs of training that begin with published CLIP and CoCa weights, or with open_clip's architectures."""

import csv
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import NO_TRUNKS, Run
from tests.drawn import draw
from tests.test_open_clip_models import CLIP, COCA, TEXTS, loaded, theirs, write
from textmm import open_clip_config
from textmm.pairs import PairSource
from textmm.recipe import Stage, TrainConfig
from textmm.train import train

pytestmark = pytest.mark.slow


TRAINED = """
start = "START"
half = HALF
save_every = 2
[[sources]]
source = "captions.csv"
share = 1.0
caption_share = 1.0
[[stages]]
name = "few"
steps = 3
batch_size = 4
learning_rate = 1e-2
loss = "LOSS"
trains = ["image.projection", "image.blocks.1", "logit_scale"]
[[stages]]
name = "all"
steps = 2
batch_size = 4
learning_rate = 1e-3
loss = "LOSS"
"""


@pytest.mark.parametrize(("loss", "half"), [("infonce", "false"), ("sigmoid", "true")])
def test_a_published_model_is_trained_on_and_open_clip_loads_what_came_of_it(
    run: Run, tmp_path: Path, pictures: Path, loss: str, half: str
) -> None:
    start = write(tmp_path / "start", CLIP, theirs(CLIP))
    recipe, out = tmp_path / "own.toml", tmp_path / "out"
    said = TRAINED.replace("START", str(start)).replace("HALF", half).replace("LOSS", loss)
    few = said[: said.rindex("[[stages]]")]

    recipe.write_text(few)
    first = run("train", recipe, "--sources", pictures, "--out", out)
    partly = load_file(out / "open_clip_model.safetensors")
    recipe.write_text(said)
    second = run("train", recipe, "--sources", pictures, "--out", out)

    before, after = (load_file(folder / "open_clip_model.safetensors") for folder in (start, out))
    assert (first.code, second.code) == (0, 0), first.err + second.err
    learnt = {key for key in before if not torch.allclose(before[key], partly[key].float(), atol=1e-3)}
    assert "visual.proj" in learnt
    assert all(key.startswith(("visual.proj", "visual.transformer.resblocks.1.", "logit_")) for key in learnt)
    assert after.keys() - before.keys() == ({"logit_bias"} if loss == "sigmoid" else set())
    assert (after["token_embedding.weight"].dtype == torch.float16) == (half == "true")
    encoder, picture = loaded(out), draw("circle", "red")
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{out}")
    with torch.inference_mode():
        expected = model.eval().encode_image(transform(picture)[None], normalize=True).numpy()
        words = model.encode_text(open_clip.get_tokenizer("ViT-B-32")(TEXTS), normalize=True).numpy()
    np.testing.assert_allclose(encoder.encode_images([picture]), expected, atol=1e-4)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), words, atol=1e-4)


def test_cocas_decoder_learns_captions_and_what_a_model_has_no_part_for_is_refused(
    run: Run, tmp_path: Path, pictures: Path
) -> None:
    coca = write(tmp_path / "coca", COCA, theirs(COCA))
    recipe, out = tmp_path / "own.toml", tmp_path / "out"
    said = TRAINED.replace("START", str(coca)).replace("HALF", "false").replace("LOSS", "infonce")
    taught = (
        said[: said.rindex("[[stages]]")]
        .replace("steps = 3", "steps = 40")
        .replace('loss = "infonce"', "caption_loss_weight = 1.0\ncontrastive_loss_weight = 0.0")
        .replace(
            'trains = ["image.projection", "image.blocks.1", "logit_scale"]', 'trains = ["decoder", "text"]'
        )
    )
    recipe.write_text(taught)
    done = run("train", recipe, "--sources", pictures, "--out", out)
    recipe.write_text(taught.replace(str(coca), str(write(tmp_path / "clip", CLIP, theirs(CLIP)))))
    without = run("train", recipe, "--sources", pictures, "--out", tmp_path / "none")

    losses = [float(row["value"]) for row in csv.DictReader((out / "training.csv").read_text().splitlines())]
    assert done.code == 0, done.err
    assert losses[-1] < 0.7 * losses[0]
    assert (
        open_clip.create_model(f"local-dir:{out}").state_dict().keys()
        == load_file(coca / "open_clip_model.safetensors").keys()
    )
    assert loaded(out).caption_images([draw("circle", "red")])[0].text.startswith("a ")
    assert (without.code, "has no decoder" in without.err) == (2, True)


def test_an_architecture_of_open_clips_is_trained_from_random_weights(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_clip_config, "architecture", lambda name: CLIP if name == "ViT-S" else None)
    stage = Stage(name="all", steps=2, batch_size=4, learning_rate=1e-3)
    config = TrainConfig(
        model="ViT-S", sources=(PairSource(source="captions.csv", share=1.0),), stages=(stage,), threads=1
    )

    list(train(config, data=pictures, trunks=NO_TRUNKS, out=tmp_path / "out"))

    model = open_clip.create_model(f"local-dir:{tmp_path / 'out'}")
    assert model.visual.proj.shape == (128, 48)
