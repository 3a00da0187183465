import io
import json
import subprocess
import sys
import tarfile
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file

from tests.conftest import ROOT
from tests.drawn import encoded
from textmm import checkpoint
from textmm.config import named_model
from textmm.encoder import Encoder
from textmm.fusion import TextDecoder
from textmm.model import TextMultiModalModel
from textmm.pairs import Pairs, PairSource
from textmm.phrases import CaptionPhrase, Phrases
from textmm.pretrained import load_tokenizer
from textmm.recipe import Stage, TrainConfig
from textmm.reinforce import sample_words
from textmm.tokenizers import Tokenizer
from textmm.train import Progress, TrainingStopped, train
from textmm.transforms import augment, to_tensor
from textmm.trunk_cache import (
    DECODED_BYTES,
    CachedInputs,
    FrontInputs,
    LiveInputs,
    fill_fronts,
    fill_pictures,
    fill_texts,
    sample,
)

pytestmark = pytest.mark.slow

MINI = named_model("mini")
DRAWN = PairSource(
    source="drawn:24",
    share=1.0,
    caption_share=1.0,
    views=3,
    phrase_share=0.5,
    style="title",
    caption_phrases=(CaptionPhrase(style="attributes", template="{colour} {kind}", share=0.5),),
)
ENGLISH = Phrases(share=0.5, templates=("{colour} {kind}",))
CHINESE = Phrases(share=0.5, templates=("{colour}{kind}",), synonyms="zh.csv", values_too=False)
RECIPE = TrainConfig(
    model="mini",
    sources=(DRAWN,),
    phrases=(ENGLISH, CHINESE),
    stages=(
        Stage(
            name="contrastive",
            steps=3,
            batch_size=12,
            learning_rate=1e-3,
            trains=("image.projection", "text.projection", "logit_scale"),
            scale_start=20.0,
        ),
        Stage(
            name="captioning",
            steps=3,
            batch_size=12,
            learning_rate=1e-3,
            trains=("image.token_projection", "image.colour_projection", "decoder"),
            contrastive_loss_weight=0.0,
            caption_loss_weight=1.0,
        ),
    ),
    log_every=1,
)


@pytest.fixture(scope="module")
def model(trunks: Path) -> TextMultiModalModel:
    torch.manual_seed(1)
    return checkpoint.build(MINI, trunks).eval()


@pytest.fixture(scope="module")
def tokenizer(trunks: Path) -> Tokenizer:
    return load_tokenizer(MINI.text_cfg, trunks)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def pairs(folder: Path) -> Pairs:
    return Pairs((DRAWN,), (ENGLISH, CHINESE), data=folder, drawings=folder, seed=1)


@pytest.fixture(scope="module")
def cached(folder: Path, model: TextMultiModalModel, pairs: Pairs, tokenizer: Tokenizer) -> CachedInputs:
    for _ in chain(fill_pictures(folder, model, pairs), fill_texts(folder, model, pairs, tokenizer)):
        pass
    return CachedInputs(folder, pairs)


def is_near(one: np.ndarray, other: np.ndarray) -> bool:
    """As near as half floats of the size of the numbers."""
    return bool(np.allclose(one, other, atol=2e-3 * float(np.abs(other).max())))


@torch.inference_mode()
def test_cached_pictures_are_their_trunk_outputs_whole_mirrored_or_cropped(
    model: TextMultiModalModel, pairs: Pairs, cached: CachedInputs
) -> None:
    ids = np.arange(24)
    out = cached.pictures(ids, [np.random.default_rng(i) for i in ids], memory=True)

    which = []
    for i in ids.tolist():
        size = MINI.vision_cfg.image_size
        whole = pairs.picture(i).resize((size, size), reducing_gap=2.0)
        crop = augment(pairs.picture(i), MINI.vision_cfg, np.random.default_rng([pairs.seed, 4, i]))
        fresh = model.image.trunk(to_tensor([whole, ImageOps.mirror(whole), crop], MINI.vision_cfg))
        (view,) = [v for v in range(3) if is_near(out.pooled[i].numpy(), fresh.pooled[v].numpy())]
        assert is_near(out.memory[i].numpy(), fresh.memory[view].numpy())
        which.append(view)
    assert set(which) == {0, 1, 2}


@torch.inference_mode()
def test_cached_texts_are_their_trunk_outputs_one_by_one(
    model: TextMultiModalModel, pairs: Pairs, cached: CachedInputs, tokenizer: Tokenizer
) -> None:
    ids = np.arange(len(pairs.texts))

    out = cached.texts(ids)

    fresh = [model.text.trunk(tokenizer([text])) for text in pairs.texts]
    torch.testing.assert_close(out.pooled, torch.cat([f.pooled for f in fresh]), atol=1e-3, rtol=0)
    assert torch.equal(out.present, torch.cat([f.present for f in fresh]))
    assert set(map(tuple, out.present.tolist())) == {(True, True), (False, True)}  # English, Chinese


def test_what_is_filled_is_not_filled_again(
    folder: Path, model: TextMultiModalModel, pairs: Pairs, tokenizer: Tokenizer, cached: CachedInputs
) -> None:
    files = {path: path.stat().st_mtime_ns for path in folder.glob("*.np?")}

    assert list(fill_pictures(folder, model, pairs)) == []
    assert list(fill_texts(folder, model, pairs, tokenizer)) == []
    assert len(files) == 4
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.np?")} == files
    assert not list(folder.glob("*.partial*"))


@pytest.fixture(scope="module")
def fronts(
    tmp_path_factory: pytest.TempPathFactory, folder: Path, model: TextMultiModalModel, pairs: Pairs
) -> FrontInputs:
    folder = tmp_path_factory.mktemp("fronts")
    for _ in fill_fronts(folder, model, pairs, 5):
        pass
    return FrontInputs(folder, pairs, model, 5)


@torch.inference_mode()
def test_the_rest_of_a_trunk_over_its_kept_first_stages_gives_what_the_whole_gives(
    pairs: Pairs, cached: CachedInputs, fronts: FrontInputs
) -> None:
    ids = np.arange(24)

    kept = fronts.pictures(ids, None, memory=True)
    whole = cached.pictures(ids, None, memory=True)
    views = [fronts.pictures(ids[:1], [np.random.default_rng(i)], memory=False).pooled[0] for i in range(20)]

    assert is_near(kept.pooled.numpy(), whole.pooled.numpy())
    assert is_near(kept.memory.numpy(), whole.memory.numpy())
    assert is_near(fronts.views(0, 7, 1).pooled.numpy(), whole.pooled[7:8].numpy())
    assert len({tuple(view.tolist()) for view in views}) == DRAWN.views


def test_more_views_or_another_seed_have_files_of_their_own(folder: Path, cached: CachedInputs) -> None:
    other = replace(DRAWN, views=2)
    fewer = Pairs((other,), (ENGLISH, CHINESE), data=folder, drawings=folder, seed=1)

    with pytest.raises(FileNotFoundError, match=r"pooled\.npy"):
        CachedInputs(folder, fewer).pictures(np.arange(2), None, memory=False)


def test_features_to_standardise_by_are_of_whole_pictures_and_of_texts_that_both_trunks_read(
    pairs: Pairs, cached: CachedInputs
) -> None:
    images, texts = sample(cached, pairs, np.random.default_rng(3), 10_000)

    both = cached.texts(np.arange(len(pairs.texts))).present.all(1)
    assert images.shape == (24, 6240)
    assert texts.shape == (int(both.sum()), 896)
    assert 0 < len(texts) < len(pairs.texts)


@torch.inference_mode()
def test_live_inputs_run_the_trunk_on_the_texts_of_the_batch(
    model: TextMultiModalModel, pairs: Pairs, tokenizer: Tokenizer
) -> None:
    live = LiveInputs(model, pairs, tokenizer)

    texts = live.texts(np.array([3, 0]))
    pictures = live.pictures(np.array([5]), [np.random.default_rng(4)], memory=True)

    expected = model.text.trunk(tokenizer([pairs.texts[3], pairs.texts[0]]))
    torch.testing.assert_close(texts.pooled, expected.pooled)
    assert pictures.pooled.shape == (1, 6240)
    assert pictures.memory.shape == (1, 17, 1280)


def test_a_model_over_locked_trunks_trains_and_is_an_encoder(tmp_path: Path, trunks: Path) -> None:
    seen = list(train(RECIPE, data=tmp_path, trunks=trunks, out=tmp_path))

    encoder = Encoder.load(str(tmp_path), trunks, threads=1)
    rows = encoder.encode_texts(["red dress", "红色连衣裙"])
    stored = load_file(tmp_path / "model.safetensors")
    assert [p.what for p in seen[-6:]] == ["contrastive"] * 3 + ["captioning"] * 3
    assert rows.shape == (2, 384)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-4)
    assert not [name for name in stored if name.startswith(checkpoint.LOCKED)]
    assert float(stored["image.projection.std"].min()) > 0
    assert not torch.equal(stored["image.projection.mean"], torch.zeros(6240))


def test_a_stage_says_how_many_features_its_heads_do_not_see(tmp_path: Path, trunks: Path) -> None:
    def first_loss(image: float | dict[str, float], text: float | dict[str, float]) -> float:
        stage = replace(RECIPE.stages[0], steps=1, image_feature_dropout=image, text_feature_dropout=text)
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        seen = list(train(replace(RECIPE, stages=(stage,)), data=tmp_path, trunks=trunks, out=out))
        return seen[-1].losses["contrastive"]

    (drawn,) = (source.source for source in RECIPE.sources)
    as_usual = first_loss(0.2, 0.2)
    losses = [as_usual, first_loss(0.9, 0.2), first_loss(0.2, 0.9), first_loss({drawn: 0.9}, {drawn: 0.9})]

    assert len(set(losses)) == 4
    assert first_loss({}, {}) == as_usual
    with pytest.raises(
        ValueError, match="image_feature_dropout names 'photos', which is none of the sources: drawn"
    ):
        replace(RECIPE, stages=(replace(RECIPE.stages[0], image_feature_dropout={"photos": 0.9}),))


def test_captions_that_are_rewarded_are_sampled_over_pictures_with_features_left_out(
    tmp_path: Path, trunks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[torch.Tensor, bool]] = []

    def sampled(decoder: TextDecoder, image_tokens: torch.Tensor, **how: Any) -> torch.Tensor:
        seen.append((image_tokens.detach(), decoder.training))
        return sample_words(decoder, image_tokens, **how)

    monkeypatch.setattr("textmm.train.sample_words", sampled)
    rewarded = replace(RECIPE.stages[1], name="rewarded", steps=1, reward_weight=1.0, reward_style="title")
    first = []
    for share in (0.0, 0.9):
        seen.clear()
        run = replace(RECIPE, stages=(replace(rewarded, image_feature_dropout=share),))
        for _ in train(run, data=tmp_path, trunks=trunks, out=tmp_path / f"{share}"):
            pass
        first.append(seen[0])  # of the same pictures and untrained weights

    (whole, _), (left_out, training) = first
    assert whole.shape == left_out.shape and not torch.allclose(whole, left_out)
    assert not training


def test_an_unlocked_layer_learns_is_stored_and_comes_back(tmp_path: Path, trunks: Path) -> None:
    """Texts are then encoded in the steps; pictures still come from the cache."""
    parts = ("text.trunks.0.layers.5", "image.projection")
    first, second = RECIPE.stages
    unlocking = replace(first, name="unlocking", trains=parts, steps=2, learning_rate=1e-2, warmup_steps=1)
    run = replace(RECIPE, stages=(replace(first, steps=1), unlocking, replace(second, steps=1)))

    for _ in train(run, data=tmp_path, trunks=trunks, out=tmp_path / "out"):
        pass

    published = checkpoint.build(MINI, trunks).state_dict()
    stored = load_file(tmp_path / "out" / "model.safetensors")
    layer = [k for k in published if k.startswith("text.trunks.0.layers.5.")]
    loaded = checkpoint.load(str(tmp_path / "out"), trunks)
    state = loaded.model.state_dict()
    assert {k for k in stored if k.startswith(checkpoint.LOCKED)} == set(layer) == loaded.unlocked
    assert all(torch.equal(state[k], stored[k]) for k in layer)
    assert not torch.equal(state[layer[0]], published[layer[0]])
    others = [k for k in published if k.startswith(checkpoint.LOCKED) and k not in layer]
    assert all(torch.equal(state[k], published[k]) for k in others)
    # Who goes on from it keeps what was unlocked, locked or not.
    tune = replace(RECIPE, model="", start=str(tmp_path / "out"), stages=(replace(first, steps=1),))
    for _ in train(tune, data=tmp_path, trunks=trunks, out=tmp_path / "tuned"):
        pass
    tuned = load_file(tmp_path / "tuned" / "model.safetensors")
    assert all(torch.equal(tuned[k], stored[k]) for k in layer)
    assert checkpoint.model_id(tmp_path / "tuned") != checkpoint.model_id(tmp_path / "out")


def test_an_unlocked_image_stage_learns_with_finite_gradients(tmp_path: Path, trunks: Path) -> None:
    stage = replace(
        RECIPE.stages[0], trains=("image.features", "image.projection"), steps=2, batch_size=4, micro_batch=2
    )

    seen = list(train(replace(RECIPE, stages=(stage,)), data=tmp_path, trunks=trunks, out=tmp_path))

    stored = load_file(tmp_path / "model.safetensors")
    published = checkpoint.build(MINI, trunks).state_dict()
    learnt = sorted(k for k in stored if k.startswith("image.features."))
    assert seen[-1].done == 2
    assert learnt == sorted(k for k in published if k.startswith("image.features."))
    assert all(bool(torch.isfinite(stored[k]).all()) for k in learnt)
    assert any(not torch.equal(stored[k], published[k]) for k in learnt)


LATE = ("image.features.stages.6", "image.features.head", "image.projection")


def test_late_image_stages_learn_over_kept_first_ones(tmp_path: Path, trunks: Path) -> None:
    first, second = RECIPE.stages
    late = replace(first, name="late", trains=LATE, steps=4, batch_size=8, learning_rate=1e-3)
    run = replace(RECIPE, stages=(replace(first, steps=1), late, replace(second, steps=2)))

    def losses(out: Path, stop_after: int) -> list[float]:
        seen: list[Progress] = []
        with suppress(TrainingStopped):
            for progress in train(
                run, data=tmp_path, trunks=trunks, out=out, stop=lambda: len(steps(seen)) + 1 == stop_after
            ):
                seen.append(progress)
        return [sum(p.losses.values()) for p in steps(seen)]

    def steps(seen: list[Progress]) -> list[Progress]:
        return [p for p in seen if p.losses]

    whole = losses(tmp_path / "whole", stop_after=-1)
    in_parts = losses(tmp_path / "parts", stop_after=3) + losses(tmp_path / "parts", stop_after=-1)

    published = checkpoint.build(MINI, trunks).state_dict()
    stored = load_file(tmp_path / "whole" / "model.safetensors")
    learnt = {k for k in published if k.startswith(LATE[:2])}
    assert len(whole) == 7
    assert in_parts == whole
    assert {k for k in stored if k.startswith(checkpoint.LOCKED)} == learnt
    assert all(not torch.equal(stored[k], published[k]) for k in learnt)
    # Who tunes the heads over what came of it finds the trunk as it is now, and runs it once.
    tune = replace(RECIPE, model="", start=str(tmp_path / "whole"), stages=(replace(first, steps=1),))
    for _ in train(tune, data=tmp_path, trunks=trunks, out=tmp_path / "tuned"):
        pass
    (cache,) = {p.parent for p in (tmp_path / "tuned" / "cache").glob("*/*.memory.npy")}
    kept = {p.parent.name for p in (tmp_path / "whole" / "cache").glob("*/*.memory.npy")}
    tuned = load_file(tmp_path / "tuned" / "model.safetensors")
    assert cache.name in kept and len(kept) == 2  # before the late stages learnt, and after
    assert not list((tmp_path / "tuned" / "cache").glob("*/*.maps-*"))
    assert all(torch.equal(tuned[k], stored[k]) for k in learnt)


@torch.inference_mode()
def test_a_stage_after_late_ones_reads_what_the_trunk_has_become(tmp_path: Path, trunks: Path) -> None:
    """Kept once; not the published trunk's, and not run in the steps."""
    first, second = RECIPE.stages
    late = replace(first, name="late", trains=LATE, steps=3, batch_size=8, learning_rate=1e-2, warmup_steps=1)
    run = replace(RECIPE, stages=(replace(first, steps=1), late, replace(second, steps=1)))
    with torch.inference_mode(mode=False):
        for _ in train(run, data=tmp_path, trunks=trunks, out=tmp_path):
            pass

    pairs = Pairs((DRAWN,), (ENGLISH, CHINESE), data=tmp_path, drawings=tmp_path / "cache", seed=run.seed)
    folders = {path.parent for path in (tmp_path / "cache").glob("*/*.memory.npy")}
    folder = max(folders, key=lambda path: path.stat().st_mtime)
    kept = CachedInputs(folder, pairs).pictures(np.arange(24), None, memory=True)
    (rows,) = (np.load(path) for path in folder.glob("*.pooled.npy"))
    now = checkpoint.load(str(tmp_path), trunks).model
    assert isinstance(now, TextMultiModalModel)
    become, published = (
        LiveInputs(model, pairs, load_tokenizer(MINI.text_cfg, trunks)).pictures(
            np.arange(24), None, memory=True
        )
        for model in (now, checkpoint.build(MINI, trunks).eval())
    )

    assert rows.shape == (24, 3, 6240)
    for values in ("pooled", "memory"):
        mine, right, before = (getattr(x, values)[..., :1280] for x in (kept, become, published))
        near, far = (float((mine - x).norm() / x.norm()) for x in (right, before))
        assert near < 0.02 < 0.1 < far


PEAK = """
import resource, sys
from pathlib import Path
from textmm.pairs import PairSource
from textmm.recipe import Stage, TrainConfig
from textmm.train import train

stage = Stage(name="s", steps=int(sys.argv[3]), batch_size=16, micro_batch=4, learning_rate=1e-4)
source = PairSource(source="*.tar", share=1.0)
config = TrainConfig(model="tiny", sources=(source,), stages=(stage,), threads=1, save_every=1000)
for _ in train(config, data=Path(sys.argv[1]), trunks=Path("none"), out=Path(sys.argv[2])):
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_shards_whose_pictures_are_larger_than_the_memory_for_them_stream(tmp_path: Path) -> None:
    """80 pictures of 12 MB decoded, 960 MB in all, of which about all are drawn in 12 steps."""
    for shard in range(4):
        with tarfile.open(tmp_path / f"s-{shard}.tar", "w") as archive:
            for i in range(20):
                colour = (10 * i, 60 * shard, 90)
                files = {"jpg": encoded(Image.new("RGB", (2000, 2000), colour), "JPEG")}
                files["json"] = json.dumps({"title": f"{shard} times {i}"}).encode()
                for extension, data in files.items():
                    info = tarfile.TarInfo(f"{i:03}.{extension}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))

    def peak_mb(steps: int) -> float:
        arguments = [str(tmp_path), str(tmp_path / f"out{steps}"), str(steps)]
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *arguments], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return float(done.stdout) / 1024

    few, many = peak_mb(1), peak_mb(12)

    assert many - few < DECODED_BYTES / 1e6 + 100


def test_decoded_pictures_in_memory_are_those_used_last(
    model: TextMultiModalModel, pairs: Pairs, tokenizer: Tokenizer
) -> None:
    size = pairs.picture(0).width * pairs.picture(0).height * 3
    live = LiveInputs(model, pairs, tokenizer, decoded_bytes=3 * size)

    for i in (0, 1, 2, 0, 3, 4):
        live.pictures(np.array([i]), None, memory=False)

    assert list(live._decoded) == [0, 3, 4]


def test_answers_alone_are_learned_over_locked_trunks(tmp_path: Path, trunks: Path) -> None:
    source = replace(DRAWN, share=0.0, caption_share=0.0, question_share=1.0)
    stage = Stage(
        name="questions",
        steps=2,
        batch_size=8,
        learning_rate=1e-3,
        trains=("question", "decoder"),
        contrastive_loss_weight=0.0,
        question_loss_weight=1.0,
    )
    recipe = replace(RECIPE, sources=(source,), stages=(stage,), questions="questions.toml")

    seen = list(train(recipe, data=tmp_path, trunks=trunks, out=tmp_path / "out"))

    assert [p.done for p in seen if p.what == "questions"] == [1, 2]
    assert all(0 < p.losses["questions"] < 12 for p in seen if p.what == "questions")
