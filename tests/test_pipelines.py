"""Generators of the diffusers package, on a tiny pipeline of random weights that the test saves."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import Run
from tests.drawn import draw
from textmm.text_to_image.named import find_generator
from textmm.text_to_image.pipelines import PipelineGenerator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion of 16 x 16 pixels, as its authors save one."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("pipeline")
    letters = [*"abcdefghijklmnopqrstuvwxyz", *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz")]
    words = {w: i for i, w in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16)
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=words["<|startoftext|>"],
        eos_token_id=words["<|endoftext|>"],
    )
    autoencoder: Any = AutoencoderKL
    noise: Any = UNet2DConditionModel
    scheduler: Any = DDIMScheduler
    whole: Any = StableDiffusionPipeline
    blocks: dict[str, Any] = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
    unet = noise(
        sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        **blocks,
    )
    vae = autoencoder(
        latent_channels=4,
        sample_size=16,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        **blocks,
    )
    made = whole(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.save_pretrained(folder / "tiny-diffusion")
    return folder / "tiny-diffusion"


def test_a_pipeline_draws_what_its_seed_says_varies_and_mixes(pipeline: Path) -> None:
    generator = PipelineGenerator.load(str(pipeline))
    start, other = draw("circle", "red"), draw("cross", "blue")

    first, second = generator.draw("red", [1, 2])
    (again,) = generator.draw("red", [2])
    (near,) = generator.draw("red", [1], start=start, strength=0.1)
    (between,) = generator.between(start, other, "red", [1])

    assert generator.size == first.size == near.size == between.size == (16, 16)
    assert generator.generator_id.startswith("tiny-diffusion-")
    assert np.array_equal(np.asarray(second), np.asarray(again))
    assert not np.array_equal(np.asarray(first), np.asarray(second))
    assert not np.array_equal(np.asarray(near), np.asarray(between))


def test_a_folder_of_a_pipeline_is_a_generator_by_name(pipeline: Path, run: Run, tmp_path: Path) -> None:
    named = find_generator(str(pipeline))

    drawn = run("draw", "red", "-n", "1", "--seed", "4", "--generator", pipeline, "--out", tmp_path, "--json")

    assert (named.name, named.words) == ("tiny-diffusion", "")
    assert find_generator("diffusers:org/name").name == "name"
    assert drawn.code == 0 and json.loads(drawn.out)["file"] == str(tmp_path / "red-1.png")


def test_a_hub_id_without_a_network_is_an_error_that_says_so(run: Run, tmp_path: Path) -> None:
    done = run("draw", "red", "-n", "1", "--generator", "diffusers:nobody/nothing", "--out", tmp_path)

    assert done.code == 2 and "nobody/nothing" in done.err
