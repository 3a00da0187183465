"""The generator: it draws what it learnt, the same picture by the same seed; training goes on where it stopped."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.conftest import NO_TRUNKS, small_generator
from tests.drawn import COLOURS, draw
from textmm import training_log
from textmm.efficientnet import EfficientNetLite
from textmm.encoder import Encoder
from textmm.pretrained import load_efficientnet
from textmm.sources import SourceError
from textmm.text_to_image import checkpoint
from textmm.text_to_image.autoencoder import Autoencoder
from textmm.text_to_image.catalogue import Catalogue, fitted
from textmm.text_to_image.choosing import CANDIDATES, CannotDraw, ranked
from textmm.text_to_image.config import AutoencoderConfig, FlowConfig
from textmm.text_to_image.discriminator import Discriminator
from textmm.text_to_image.flow import Flow
from textmm.text_to_image.generator import FlowGenerator
from textmm.text_to_image.recipe import GeneratorRecipe, PictureSource
from textmm.text_to_image.sampler import Sampling, noise, sample
from textmm.text_to_image.training import STATE, maps_differ, train
from textmm.train import LOG, TrainingFailed, TrainingStopped

PAIRS = [(colour, shape) for colour in COLOURS for shape in ("circle", "square", "cross")]


@pytest.fixture(scope="module")
def generator(drawer: Path, encoder: Encoder) -> FlowGenerator:
    return FlowGenerator.load(str(drawer), encoder, threads=1)


def colour_of(picture: Image.Image) -> str:
    """The nearest of the four, in the middle of the picture."""
    middle = np.asarray(picture)[12:20, 12:20].reshape(-1, 3).mean(0)
    return min(COLOURS, key=lambda name: float(np.abs(np.array(COLOURS[name]) - middle).sum()))


def pixels(pictures: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(picture) for picture in pictures]).astype(int)


# -- drawing ---------------------------------------------------------------------------------------------


def test_it_draws_the_colour_that_the_words_say(generator: FlowGenerator) -> None:
    drawn = [generator.draw(f"a {colour} {shape}", [5])[0] for colour, shape in PAIRS]

    right = [colour_of(picture) == colour for picture, (colour, _) in zip(drawn, PAIRS, strict=True)]
    assert generator.size == drawn[0].size == (32, 32)
    assert np.mean(right) >= 0.9


def test_a_seed_draws_the_same_picture_alone_and_in_a_batch_and_another_seed_another(
    generator: FlowGenerator,
) -> None:
    many = pixels(generator.draw("a red cross", list(range(11))))  # more than one batch
    alone = pixels([generator.draw("a red cross", [seed])[0] for seed in (0, 7, 10)])

    assert np.array_equal(pixels(generator.draw("a red cross", list(range(11)))), many)
    assert np.abs(many[[0, 7, 10]] - alone).mean() < 1.0  # bfloat16 sums in another order
    assert not np.array_equal(many[0], many[1])


def test_a_variation_keeps_more_of_its_picture_the_weaker_it_is(generator: FlowGenerator) -> None:
    start = draw("square", "blue", side=48)

    def drawn(strength: float) -> Image.Image:
        return generator.draw("a red circle", [3], start=start, strength=strength)[0]

    def far(strength: float) -> float:
        return float(np.abs(pixels([drawn(strength)]) - np.asarray(start.resize((32, 32)))).mean())

    assert far(0.02) < 0.5 * far(1.0)
    assert (colour_of(drawn(0.02)), colour_of(drawn(1.0))) == ("blue", "red")


def test_between_two_pictures_something_of_both_is_drawn(generator: FlowGenerator) -> None:
    one, other = draw("circle", "red", side=32), draw("circle", "blue", side=32)

    (between,) = generator.between(one, other, "a circle", [1])

    assert between.size == (32, 32)
    for whole in (one, other):
        assert np.abs(pixels([between]) - np.asarray(whole)).mean() < np.abs(np.asarray(whole) - 128.0).mean()


def test_sampling_begins_with_the_noise_and_ends_where_the_flow_leads(encoder: Encoder) -> None:
    """A flow whose velocity is one number everywhere moves every latent by that number."""
    flow = Flow(
        FlowConfig(channels=2, places=(1, 2), words_widths=(3,), width=8, layers=1, heads=2, hidden=8)
    )
    torch.nn.init.constant_(flow.leave.bias, 0.5)
    start = noise(flow.config, [1, 2])
    words, present = torch.zeros(2, 3), torch.ones(2, 1, dtype=torch.bool)

    whole = sample(flow.eval(), words, present, start, Sampling(steps=4, guidance=3.0))
    part = sample(
        flow.eval(), words, present, start, Sampling(steps=4), latents=torch.ones_like(start), strength=0.25
    )

    torch.testing.assert_close(whole, start + 0.5)
    torch.testing.assert_close(part, 0.75 + 0.25 * start + 0.25 * 0.5)


def test_guidance_follows_the_words_further_than_the_flow_does(encoder: Encoder) -> None:
    config = FlowConfig(channels=2, places=(2, 2), words_widths=(3,), width=8, layers=1, heads=2, hidden=8)
    torch.manual_seed(0)
    flow = Flow(config).eval()
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    start, words = noise(config, [1]), torch.randn(1, 3)

    def sampled(guidance: float, present: bool = True) -> torch.Tensor:
        there = torch.full((1, 1), present)
        return sample(flow, words, there, start, Sampling(steps=1, guidance=guidance, guided=(0.0, 1.0)))

    with_words, without = sampled(1.0), sampled(1.0, present=False)
    torch.testing.assert_close(sampled(0.0), without)
    torch.testing.assert_close(sampled(3.0), without + 3.0 * (with_words - without))
    assert (with_words - without).abs().max() > 1e-3


def test_outside_of_its_time_guidance_leaves_the_words_alone() -> None:
    config = FlowConfig(channels=2, places=(2, 2), words_widths=(3,), width=8, layers=1, heads=2, hidden=8)
    torch.manual_seed(0)
    flow = Flow(config).eval()
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    start, words, there = noise(config, [1, 2]), torch.randn(2, 3), torch.ones(2, 1, dtype=torch.bool)

    def sampled(guidance: float, *, guided: tuple[float, float] = (0.0, 1.0)) -> torch.Tensor:
        return sample(flow, words, there, start, Sampling(4, guidance, guided))

    torch.testing.assert_close(sampled(3.0, guided=(0.5, 0.5)), sampled(1.0))
    within = sampled(3.0, guided=(0.25, 0.75))
    assert (within - sampled(1.0)).abs().max() > 1e-3
    assert (within - sampled(3.0)).abs().max() > 1e-3


# -- choosing --------------------------------------------------------------------------------------------


def test_the_best_of_more_come_first_with_their_scores_and_seeds(
    generator: FlowGenerator, encoder: Encoder
) -> None:
    found = ranked(generator, encoder, "a yellow square", 2, seed=9)

    scores = [one.score for one in found]
    words = encoder.encode_texts(["a yellow square"])[0]
    again = encoder.encode_images([encoder.fit(found[0].picture)])[0]
    count = 2 * CANDIDATES
    assert len(found) == count and len({one.seed for one in found}) == count
    assert 9 in [one.seed for one in found]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(float(words @ again), abs=2e-3)
    assert [one.seed for one in ranked(generator, encoder, "a yellow square", 2, seed=9)] == [
        one.seed for one in found
    ]


def test_what_even_the_best_does_not_show_cannot_be_drawn(generator: FlowGenerator, encoder: Encoder) -> None:
    with pytest.raises(CannotDraw, match=r"'a red circle' cannot be drawn: .* 0\.99 is needed"):
        ranked(generator, encoder, "a red circle", 1, seed=1, at_least=0.99)


# -- what it is made of ----------------------------------------------------------------------------------


def test_latents_are_a_sixteenth_of_the_sides_and_white(drawer: Path, pictures: Path) -> None:
    autoencoder = checkpoint.load(str(drawer)).autoencoder
    all_of_them = torch.stack(
        [
            torch.from_numpy(fitted(Image.open(path).convert("RGB"), 32, 32).copy()).permute(2, 0, 1) / 127.5
            - 1
            for path in sorted(pictures.glob("*.png"))
        ]
    )

    with torch.no_grad():
        latents = autoencoder.encode(all_of_them)
        back = autoencoder.decode(latents)

    assert latents.shape == (16, 8, 2, 2)
    assert latents.mean().abs() < 0.2 and 0.7 < latents.std() < 1.3
    assert (back - all_of_them).abs().mean() < 0.12


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"height": 40}, "multiples of 16, got 40 x 96"),
        ({"channels": 0}, "autoencoder.channels must be at least 1"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changes: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        AutoencoderConfig(**changes)  # type: ignore[arg-type]


def test_words_that_no_trunk_reads_are_no_words() -> None:
    flow = Flow(
        FlowConfig(channels=2, places=(1, 1), words_widths=(3, 2), width=8, layers=1, heads=2, hidden=8)
    )
    torch.nn.init.normal_(flow.no_words)
    words = torch.randn(2, 5)

    none = flow.condition(words, torch.tensor([[False, False], [True, False]]))
    first_alone = flow.condition(
        torch.cat([words[1:, :3], torch.randn(1, 2)], 1), torch.tensor([[True, False]])
    )

    torch.testing.assert_close(none[0], flow.no_words)
    torch.testing.assert_close(none[1:], first_alone)  # what the other trunk would say does not count


# -- checkpoints -----------------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_and_names_itself_by_its_weights(
    drawer: Path, tmp_path: Path, encoder: Encoder
) -> None:
    loaded = checkpoint.load(str(drawer))
    checkpoint.save(tmp_path, loaded.autoencoder, loaded.flow, name="drawer", words=loaded.words)
    same = checkpoint.load(str(tmp_path))
    loaded.flow.leave.bias.data += 1
    checkpoint.save(tmp_path, loaded.autoencoder, loaded.flow, name="drawer", words=loaded.words)

    assert same.generator_id == loaded.generator_id == checkpoint.generator_id(drawer)
    assert same.generator_id.startswith("drawer-") and checkpoint.generator_id(tmp_path) != same.generator_id
    assert same.flow.leave.bias.tolist() == [b - 1 for b in loaded.flow.leave.bias.tolist()]


def test_there_is_no_such_generator_and_no_other_reading_of_words(drawer: Path, encoder: Encoder) -> None:
    with pytest.raises(ValueError, match="there is no generator 'nobody'"):
        checkpoint.load("nobody")
    loaded = checkpoint.load(str(drawer))
    foreign = replace(loaded, flow=Flow(replace(loaded.flow.config, words_widths=(7,))))
    with pytest.raises(ValueError, match=r"reads words as .* does, not as tiny"):
        FlowGenerator(foreign, encoder)


# -- training --------------------------------------------------------------------------------------------


def short(words: Path, **changes: object) -> GeneratorRecipe:
    recipe = small_generator(words)
    stages = tuple(replace(stage, steps=6, warmup_steps=2) for stage in recipe.stages)
    return replace(recipe, stages=stages, log_every=1, save_every=4, **changes)  # type: ignore[arg-type]


def run(recipe: GeneratorRecipe, pictures: Path, out: Path, stop: Callable[[], bool] = lambda: False) -> None:
    for _ in train(recipe, data=pictures, trunks=NO_TRUNKS, out=out, stop=stop):
        pass


@pytest.mark.parametrize("stopped_after", [2, 7, 12])  # within each of the stages
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    tiny: Path, pictures: Path, tmp_path: Path, stopped_after: int
) -> None:
    steps = iter(range(100))
    fills = 2  # pictures, texts: it is asked there too
    run(short(tiny), pictures, tmp_path / "whole")
    with pytest.raises(TrainingStopped, match=r"stopped at stage \w+, step \d of 6"):
        run(short(tiny), pictures, tmp_path / "parts", lambda: next(steps) == stopped_after + fills)
    run(short(tiny), pictures, tmp_path / "parts")

    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    curves = [training_log.read(tmp_path / name / LOG) for name in ("whole", "parts")]
    assert curves[0] == curves[1] and len(curves[0]["velocity"]["flow"]) == 6


def test_a_loss_that_is_no_number_stops_and_keeps_what_was_saved(
    tiny: Path, pictures: Path, tmp_path: Path
) -> None:
    recipe = short(tiny)
    wild = replace(recipe.stages[2], matrix_learning_rate=0.0, learning_rate=1e30, warmup_steps=1)
    with pytest.raises(TrainingFailed, match=r"stage flow, step \d: losses .*lower learning_rate"):
        run(replace(recipe, stages=(*recipe.stages[:2], wild)), pictures, tmp_path)

    assert (tmp_path / STATE).exists()
    assert checkpoint.load(str(tmp_path)).generator_id  # of the stages before


def test_rare_values_are_drawn_more_often_and_sources_by_their_shares(
    tiny: Path, pictures: Path, tmp_path: Path
) -> None:
    head, *rows = (pictures / "captions.csv").read_text().splitlines()
    table = pictures / "skewed.csv"
    table.write_text(
        "\n".join([head, *(r for r in rows if ",red," in r or ",circle," in r)])
    )  # 4 red, 3 others
    recipe = small_generator(tiny, sources=(PictureSource(source="skewed.csv"),), balance={"colour": 1.0})

    catalogue = Catalogue(recipe, data=pictures, trunks=NO_TRUNKS, cache=tmp_path)

    assert catalogue.chance.sum() == pytest.approx(1)
    assert sorted(catalogue.chance.round(4).tolist()) == [0.0625] * 4 + [0.25] * 3
    table.unlink()


def test_pictures_without_a_word_are_an_error_that_says_so(
    tiny: Path, pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match="no picture of it has a text"):
        run(
            short(tiny, sources=(PictureSource(source=str(pictures / "red-circle.png")),)), pictures, tmp_path
        )


@pytest.mark.slow
def test_the_perceptual_loss_sees_blur_that_pixels_forgive(trunks: Path) -> None:
    trunk = EfficientNetLite()
    load_efficientnet(trunk.requires_grad_(False), "efficientnet-lite0", trunks)
    sharp = torch.from_numpy(fitted(draw("cross", "red"), 96, 96).copy()).permute(2, 0, 1)[None] / 127.5 - 1
    blurred = torch.nn.functional.avg_pool2d(sharp, 5, stride=1, padding=2, count_include_pad=False)
    shifted = sharp + (blurred - sharp).abs().mean()  # as far from it, pixel by pixel, and as sharp

    wanted, by_blur, by_shift = (trunk.first(pictures, 3) for pictures in (sharp, blurred, shifted))
    assert float(maps_differ(by_blur, wanted)) > 1.5 * float(maps_differ(by_shift, wanted))
    assert float(maps_differ(wanted, wanted)) == 0


def test_a_discriminator_learns_to_tell_and_the_decoder_alone_to_fool_it() -> None:
    torch.manual_seed(0)
    judge = Discriminator((3, 3))
    real = torch.rand(8, 3, 16, 16)
    drawn = torch.nn.functional.avg_pool2d(real, 5, stride=1, padding=2).requires_grad_()
    optimizer = torch.optim.Adam(judge.parameters(), 1e-2)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = judge.telling_loss([real, real], [drawn, drawn])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]
    assert drawn.grad is None

    optimizer.zero_grad()
    fooled = judge.fooling_loss([drawn, drawn])
    fooled.backward()  # type: ignore[no-untyped-call]

    assert all(p.grad is None for p in judge.parameters())
    assert drawn.grad is not None
    with torch.no_grad():
        better = judge.fooling_loss([drawn - 0.05 * drawn.grad.sign()] * 2)
    assert float(better) < float(fooled.detach())


@pytest.mark.slow
def test_a_decoder_sharpened_against_a_discriminator_goes_on_after_a_stop_as_if_it_never_was(
    tiny: Path, pictures: Path, tmp_path: Path, trunks: Path
) -> None:
    recipe = small_generator(tiny)
    stage = replace(recipe.stages[1], steps=4, perceptual_weight=0.5, adversarial_weight=0.1, sharp_only=True)
    sharpen = replace(recipe, stages=(replace(recipe.stages[0], steps=2), stage), log_every=1)
    asked = iter(range(100))

    def train_to(out: Path, stop: Callable[[], bool] = lambda: False) -> dict[str, torch.Tensor]:
        with suppress(TrainingStopped):
            for _ in train(sharpen, data=pictures, trunks=trunks, out=out, stop=stop):
                pass
        return load_file(out / "model.safetensors")

    whole = train_to(tmp_path / "whole")
    train_to(tmp_path / "parts", lambda: next(asked) == 2 + 2 + 2)  # two fills, two steps, then two of four
    parts = train_to(tmp_path / "parts")

    curves = [training_log.read(tmp_path / name / LOG) for name in ("whole", "parts")]
    assert len(curves[0]["telling"][stage.name]) == 4
    assert curves[0] == curves[1]
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_a_discriminator_without_maps_to_look_at_and_sharp_pictures_of_none_are_refused(
    tiny: Path, pictures: Path, tmp_path: Path
) -> None:
    recipe = short(tiny)
    with pytest.raises(ValueError, match=r"adversarial_weight 0\.1 needs a perceptual_weight"):
        replace(recipe.stages[1], adversarial_weight=0.1)

    blurry = tuple(replace(source, sharp=False) for source in recipe.sources)
    stages = (replace(recipe.stages[0], sharp_only=True), *recipe.stages[1:])
    with pytest.raises(ValueError, match="no source of the recipe is sharp"):
        run(replace(recipe, sources=blurry, stages=stages), pictures, tmp_path)


def test_a_flow_whose_latents_would_change_after_it_is_refused(tmp_path: Path) -> None:
    recipe = small_generator(tmp_path)

    with pytest.raises(
        ValueError, match="stage again changes the latents that the flow before it was trained on"
    ):
        replace(recipe, stages=(*recipe.stages, replace(recipe.stages[0], name="again")))


def test_the_recipe_that_comes_with_the_project_is_read_and_fits_the_file_size_allowed() -> None:
    recipe = GeneratorRecipe.read(Path(checkpoint.__file__).parents[1] / "recipes" / "mini-draw.toml")

    flow = FlowConfig(
        channels=recipe.autoencoder.channels,
        places=recipe.autoencoder.places,
        words_widths=(384, 512),
        **recipe.flow,
    )
    numbers = sum(
        p.numel() for module in (Autoencoder(recipe.autoencoder), Flow(flow)) for p in module.parameters()
    )
    assert {stage.trains for stage in recipe.stages} == {"autoencoder", "decoder", "flow"}
    assert 2 * numbers <= 60_000_000
