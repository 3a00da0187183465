import csv
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from safetensors.torch import load_file

from tests.conftest import NO_TRUNKS, TINY
from textmm import checkpoint
from textmm.encoder import Encoder
from textmm.pairs import PairSource
from textmm.recipe import Stage, TrainConfig
from textmm.sources import SourceError, read_source
from textmm.train import Progress, train
from textmm.transforms import decode_image

FIRST = Stage(name="first", steps=5, batch_size=8, learning_rate=1e-3, scale_start=10.0, warmup_steps=2)
SECOND = Stage(
    name="second", steps=7, batch_size=8, learning_rate=1e-3, caption_loss_weight=1.0, warmup_steps=2
)
SHORT = TrainConfig(
    model="tiny",
    sources=(PairSource(source="captions.csv", share=1.0, caption_share=1.0),),
    stages=(FIRST, SECOND),
    log_every=1,
    save_every=3,
    threads=1,
)
RECIPE = """
model = "tiny"
seed = 5
half = true
[[sources]]
source = "captions.csv"
share = 0.5
[[phrases]]
share = 1.0
templates = ["{colour} {shape}"]
[[stages]]
name = "joint"
steps = 3
batch_size = 4
learning_rate = 1e-3
trains = ["image", "text"]
"""


def run(config: TrainConfig, data: Path, out: Path) -> list[Progress]:
    return list(train(config, data=data, trunks=NO_TRUNKS, out=out))


def logged(out: Path) -> dict[tuple[str, int, str], str]:
    with (out / "training.csv").open(newline="") as file:
        return {(r["stage"], int(r["step"]), r["loss"]): r["value"] for r in csv.DictReader(file)}


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    out = tmp_path_factory.mktemp("whole")
    run(SHORT, pictures, out)
    return out


def test_the_tiny_model_learns_the_drawn_pictures_by_heart(encoder: Encoder, pictures: Path) -> None:
    items = list(read_source(str(pictures / "captions.csv")))
    images = [decode_image(Path(item.locator).read_bytes()) for item in items]

    scores = encoder.encode_texts([item.title or "" for item in items]) @ encoder.encode_images(images).T

    assert float((scores.argmax(axis=1) == np.arange(16)).mean()) == 1.0  # recall@1


def test_training_lowers_both_losses(tiny: Path) -> None:
    losses = {key: float(value) for key, value in logged(tiny).items()}

    for name in ("contrastive", "captioning"):
        assert losses["joint", 400, name] < 0.3 * losses["joint", 20, name]


@pytest.mark.parametrize(("stage", "step"), [("first", 4), ("second", 1), ("second", 5)])
def test_a_run_that_was_stopped_goes_on_with_the_losses_of_one_that_never_was(
    tmp_path: Path, pictures: Path, never_stopped: Path, stage: str, step: int
) -> None:
    for progress in train(SHORT, data=pictures, trunks=NO_TRUNKS, out=tmp_path):
        if (progress.what, progress.done) == (stage, step):
            break
    stopped_at = len(logged(tmp_path))

    rest = run(SHORT, pictures, tmp_path)

    assert 0 < stopped_at < len(logged(never_stopped))
    assert len(rest) < 12
    assert logged(tmp_path) == logged(never_stopped)
    for name in ("model.safetensors", "vocabulary.json", "config.json", "training.csv"):
        assert (tmp_path / name).read_bytes() == (never_stopped / name).read_bytes()


def test_a_run_that_was_killed_while_it_saved_goes_on_from_the_save_before(
    tmp_path: Path, pictures: Path, never_stopped: Path
) -> None:
    for progress in train(SHORT, data=pictures, trunks=NO_TRUNKS, out=tmp_path):
        if (progress.what, progress.done) == ("second", 4):
            break
    half_written = (tmp_path / "training.pt").read_bytes()[:1000]
    (tmp_path / "training.pt.4711.partial").write_bytes(half_written)

    run(SHORT, pictures, tmp_path)

    assert logged(tmp_path) == logged(never_stopped)


def test_a_finished_run_has_nothing_left_to_do(tmp_path: Path, pictures: Path, never_stopped: Path) -> None:
    out = tmp_path / "again"
    shutil.copytree(never_stopped, out)

    assert run(SHORT, pictures, out) == []
    assert logged(out) == logged(never_stopped)


def test_progress_counts_the_steps_of_each_stage(tmp_path: Path, pictures: Path) -> None:
    seen = run(replace(SHORT, log_every=3), pictures, tmp_path)

    assert [(p.what, p.done, p.of) for p in seen] == [
        ("first", 3, 5),
        ("first", 5, 5),
        ("second", 3, 7),
        ("second", 6, 7),
        ("second", 7, 7),
    ]
    assert [sorted(p.losses) for p in seen] == [["contrastive"]] * 2 + [["captioning", "contrastive"]] * 3
    assert all(p.samples_per_s > 0 for p in seen)
    assert not list(tmp_path.glob("*.partial"))


def test_another_seed_is_another_run(tmp_path: Path, pictures: Path, never_stopped: Path) -> None:
    run(replace(SHORT, seed=2), pictures, tmp_path)

    assert logged(tmp_path).keys() == logged(never_stopped).keys()
    assert logged(tmp_path) != logged(never_stopped)


def test_a_stage_changes_only_what_it_trains(tmp_path: Path, pictures: Path) -> None:
    one = replace(FIRST, trains=("image.projection", "logit_scale"))
    config = replace(SHORT, stages=(replace(FIRST, steps=1), one))
    run(replace(config, stages=config.stages[:1]), pictures, tmp_path / "before")

    run(config, pictures, tmp_path / "after")

    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("before", "after"))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"image.projection.weight", "logit_scale"}


def test_the_temperature_starts_where_the_stage_says(tmp_path: Path, pictures: Path) -> None:
    still = replace(FIRST, steps=1, trains=("image.projection",), scale_start=25.0)

    run(replace(SHORT, stages=(still,)), pictures, tmp_path)

    weights = load_file(tmp_path / "model.safetensors")
    assert float(weights["logit_scale"].exp()) == pytest.approx(25.0)


# Recipes


def write_recipe(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_a_recipe_reads_as_what_it_says_and_trains(tmp_path: Path, pictures: Path) -> None:
    config = TrainConfig.read(write_recipe(tmp_path, RECIPE))

    assert (config.model, config.seed, config.half) == ("tiny", 5, True)
    assert config.sources == (PairSource(source="captions.csv", share=0.5),)
    assert config.stages[0].trains == ("image", "text")
    assert config.phrases[0].templates == ("{colour} {shape}",)
    assert run(config, pictures, tmp_path / "out")[-1].done == 3
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert {str(tensor.dtype) for tensor in stored.values()} == {"torch.float16"}


@pytest.mark.parametrize(
    ("line", "wrong", "message"),
    [
        ("seed = 5", "sead = 5", "unknown key sead; known here: half, log_every"),
        ("steps = 3", "step = 3", r"unknown key stages\.step; known here: .*steps"),
        ("share = 0.5", "part = 0.5", r"unknown key sources\.part; known here: .*share"),
        ("templates =", "template =", r"unknown key phrases\.template; known here: .*templates"),
        (
            "batch_size = 4",
            "batch_size = 1",
            "stage joint: steps must be at least 1 and batch_size at least 2",
        ),
    ],
)
def test_a_wrong_recipe_is_refused_with_what_is_wrong(
    tmp_path: Path, line: str, wrong: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig.read(write_recipe(tmp_path, RECIPE.replace(line, wrong)))


def test_the_shipped_recipe_is_a_recipe() -> None:
    config = TrainConfig.read(Path("textmm/recipes/mini.toml"))

    assert config.model == "mini"
    assert [stage.name for stage in config.stages] == ["contrastive", "captioning"]


# Sources


def as_csv(pictures: Path, folder: Path) -> str:
    shutil.copytree(pictures, folder, dirs_exist_ok=True)
    return "captions.csv"


def as_parquet(pictures: Path, folder: Path) -> str:
    items = read_source(str(pictures / "captions.csv"))
    rows = [{"path": item.locator, "text": item.title} for item in items]
    parquet.write_table(pa.Table.from_pylist(rows), folder / "m.parquet")
    return "m.parquet"


def as_shards(pictures: Path, folder: Path) -> str:
    items = list(read_source(str(pictures / "captions.csv")))
    for number, part in enumerate((items[:8], items[8:])):
        with tarfile.open(folder / f"s-{number}.tar", "w") as archive:
            for i, item in enumerate(part):
                add(archive, f"{i:03}.png", Path(item.locator).read_bytes())
                add(archive, f"{i:03}.json", json.dumps({"captions": [item.title]}).encode())
    return "s-*.tar"


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    archive.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("write", [as_csv, as_parquet, as_shards])
def test_a_manifest_or_shards_train_a_model_that_loads(
    tmp_path: Path, pictures: Path, write: Callable[[Path, Path], str]
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    source = PairSource(source=write(pictures, data), share=1.0, caption_share=1.0)

    last = run(replace(SHORT, sources=(source,), stages=(replace(SECOND, steps=2),)), data, tmp_path / "out")[
        -1
    ]

    assert (last.done, last.of) == (2, 2)
    assert Encoder.load(str(tmp_path / "out"), NO_TRUNKS).encode_texts(["a red circle"]).shape == (1, 32)


def test_pictures_without_words_are_refused_before_a_step(tmp_path: Path, pictures: Path) -> None:
    config = replace(SHORT, sources=(PairSource(source="", share=1.0),))

    with pytest.raises(
        SourceError, match=r"no picture of it has a text, .* train on a manifest or on shards"
    ):
        run(config, pictures, tmp_path)


def test_a_loss_that_is_no_number_stops_the_run_and_says_where(tmp_path: Path, pictures: Path) -> None:
    run(replace(SHORT, stages=(replace(FIRST, steps=1),)), pictures, tmp_path)
    state = checkpoint.load_training(tmp_path / "training.pt")
    state["model"]["logit_scale"].fill_(float("nan"))  # type: ignore[index]
    checkpoint.save_training(tmp_path / "training.pt", {**state, "stage": 1, "step": 0})

    with pytest.raises(RuntimeError, match="stage second, step 0: the loss is nan"):
        run(SHORT, pictures, tmp_path)


def test_the_fixture_is_the_recipe_of_the_tests(tiny: Path) -> None:
    stored = json.loads((tiny / "config.json").read_text())

    assert stored["name"] == TINY.model
