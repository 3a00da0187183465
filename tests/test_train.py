import csv
import io
import json
import re
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import NO_TRUNKS, TINY
from textmm import checkpoint, open_clip_config
from textmm.encoder import Encoder
from textmm.model import TextMultiModalModel
from textmm.optimiser import trained_by
from textmm.pairs import PairSource
from textmm.ranks import Ranks
from textmm.recipe import Stage, TrainConfig, Validation
from textmm.sources import SourceError, read_source
from textmm.train import Progress, TrainingFailed, TrainingStopped, train
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
RECIPES = Path("textmm/recipes")
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
        (
            "steps = 3",
            "steps = 3\nimage_feature_dropout = 1.0",
            "stage joint: image_feature_dropout must be 0 or more and below 1, got 1.0",
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
    assert [stage.name for stage in config.stages] == [
        *("contrastive", "late", "contrastive-2"),
        *("words", "rewarded"),
    ]


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
    config = replace(SHORT, sources=(PairSource(source="", share=1.0, caption_share=1.0),))

    with pytest.raises(
        SourceError, match=r"no picture of it has a text, .* train on a manifest or on shards"
    ):
        run(config, pictures, tmp_path)


def test_a_loss_that_is_no_number_stops_the_run_and_says_where(tmp_path: Path, pictures: Path) -> None:
    run(replace(SHORT, stages=SHORT.stages[:1]), pictures, tmp_path)
    state = checkpoint.load_training(tmp_path / "training.pt")
    state["model"]["logit_scale"].fill_(float("nan"))  # type: ignore[index]
    checkpoint.save_training(tmp_path / "training.pt", state)

    with pytest.raises(RuntimeError, match=r"stage second, step 0: the loss \(contrastive\) is nan"):
        run(SHORT, pictures, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 2}, "holds a run of another recipe"),
        ({"sources": (PairSource(source="captions.csv", share=1.0, caption_share=0.5),)}, "another recipe"),
        ({"stages": (replace(FIRST, steps=6), SECOND)}, "has done stage first with 5 steps"),
        ({"stages": (replace(FIRST, name="other"), SECOND)}, "has done stage first with 5 steps"),
    ],
)
def test_a_folder_of_another_run_is_refused_and_stays_as_it_was(
    never_stopped: Path, pictures: Path, change: dict[str, Any], message: str
) -> None:
    before = (never_stopped / "training.pt").read_bytes()

    with pytest.raises(ValueError, match=message):
        run(replace(SHORT, **change), pictures, never_stopped)

    assert (never_stopped / "training.pt").read_bytes() == before


def test_a_stage_cannot_become_as_short_as_what_is_done_of_it(tmp_path: Path, pictures: Path) -> None:
    for progress in train(SHORT, data=pictures, trunks=NO_TRUNKS, out=tmp_path):
        if progress.what == "second" and progress.done == 4:  # saved at 3
            break

    with pytest.raises(ValueError, match="has done stage second with 7 steps"):
        run(replace(SHORT, stages=(FIRST, replace(SECOND, steps=3))), pictures, tmp_path)
    assert run(replace(SHORT, stages=(FIRST, replace(SECOND, steps=4))), pictures, tmp_path)[-1].done == 4


def test_a_run_may_be_given_another_stage_or_a_lower_rate_on_the_way(tmp_path: Path, pictures: Path) -> None:
    run(replace(SHORT, stages=(FIRST,)), pictures, tmp_path)

    more = run(replace(SHORT, stages=(FIRST, replace(SECOND, learning_rate=1e-4))), pictures, tmp_path)

    assert {progress.what for progress in more} == {"second"}


def test_the_fixture_is_the_recipe_of_the_tests(tiny: Path) -> None:
    stored = json.loads((tiny / "config.json").read_text())

    assert stored["name"] == TINY.model


def test_a_run_in_parts_goes_on_with_the_losses_and_the_optimiser_of_one_that_never_stopped(
    tmp_path: Path, pictures: Path
) -> None:
    config = replace(SHORT, stages=(replace(SECOND, micro_batch=3, loss="sigmoid"),))
    run(config, pictures, tmp_path / "whole")
    for progress in train(config, data=pictures, trunks=NO_TRUNKS, out=tmp_path / "stopped"):
        if progress.done == 5:
            break

    run(config, pictures, tmp_path / "stopped")

    whole, stopped = (checkpoint.load_training(tmp_path / n / "training.pt") for n in ("whole", "stopped"))
    assert logged(tmp_path / "stopped") == logged(tmp_path / "whole")
    assert stopped.keys() == whole.keys()
    moments, expected = (state["optimizer"]["state"] for state in (stopped, whole))  # type: ignore[index]
    assert moments.keys() == expected.keys()
    for parameter, state in expected.items():
        assert float(state["step"]) == 7
        assert torch.equal(moments[parameter]["exp_avg_sq"], state["exp_avg_sq"])


def test_a_batch_in_parts_has_the_contrastive_losses_of_the_whole(
    tmp_path: Path, pictures: Path, never_stopped: Path
) -> None:
    config = replace(SHORT, stages=(replace(FIRST, micro_batch=3),))
    run(config, pictures, tmp_path)

    for key, value in logged(tmp_path).items():
        assert float(value) == pytest.approx(float(logged(never_stopped)[key]), abs=2e-3)


def test_a_run_that_is_asked_to_stop_saves_says_where_and_goes_on(
    tmp_path: Path, pictures: Path, never_stopped: Path
) -> None:
    asked = iter([False, False, False, True])  # after the fourth step, where nothing else saves

    with pytest.raises(TrainingStopped, match="stopped at stage first, step 4 of 5"):
        list(train(SHORT, data=pictures, trunks=NO_TRUNKS, out=tmp_path, stop=lambda: next(asked)))
    rest = run(SHORT, pictures, tmp_path)

    assert (rest[0].what, rest[0].done) == ("first", 5)
    assert logged(tmp_path) == logged(never_stopped)


def test_a_rate_at_which_weights_explode_stops_the_run_and_keeps_the_last_good_checkpoint(
    tmp_path: Path, pictures: Path
) -> None:
    wild = replace(FIRST, name="wild", steps=50, learning_rate=1e30, warmup_steps=1)
    config = replace(SHORT, stages=(FIRST, wild), save_every=1)

    with pytest.raises(TrainingFailed) as failed:
        run(config, pictures, tmp_path)

    said = (
        rf"stage wild, step \d+: the .+ is (nan|inf); {tmp_path} keeps the weights of stage first, its end: "
    )
    assert re.fullmatch(said + "lower learning_rate", str(failed.value))
    kept = load_file(tmp_path / "model.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in kept.values())
    assert Encoder.load(str(tmp_path), NO_TRUNKS).encode_texts(["a red circle"]).shape == (1, 32)
    assert np.isfinite([float(value) for value in logged(tmp_path).values()]).all()


# Validation


def with_validation(metric: str, stage: Stage) -> TrainConfig:
    validate = Validation(source="captions.csv", metric=metric, every=2, patience=2)
    return replace(SHORT, stages=(replace(stage, validate=validate),))


@pytest.mark.parametrize("metric", ["loss", "recall@10"])
def test_a_stage_ends_when_validation_no_longer_improves_and_keeps_the_best_weights(
    tmp_path: Path, pictures: Path, metric: str
) -> None:
    wild = replace(SECOND, steps=40, learning_rate=0.5, warmup_steps=4)

    last = run(with_validation(metric, wild), pictures, tmp_path / "wild")[-1]

    name = f"validation {metric}"
    figures = {step: float(v) for (_, step, loss), v in logged(tmp_path / "wild").items() if loss == name}
    best = (min if metric == "loss" else max)(figures.values())
    best_step = next(step for step, figure in figures.items() if figure == best)
    assert last.done < last.of
    assert list(figures) == list(range(2, last.done + 1, 2))
    assert best_step == last.done - 4  # two looks without a better figure
    # The same run without validation, cut where that was best, has the weights that were kept.
    plain = replace(SHORT, stages=(wild,), save_every=best_step)
    for progress in train(plain, data=pictures, trunks=NO_TRUNKS, out=tmp_path / "cut"):
        if progress.done == best_step + 1:
            break
    kept, expected = (load_file(tmp_path / n / "model.safetensors") for n in ("wild", "cut"))
    assert kept.keys() == expected.keys()
    assert all(torch.equal(kept[name], expected[name]) for name in kept)


def test_a_validated_run_that_was_stopped_goes_on_as_if_it_never_was(tmp_path: Path, pictures: Path) -> None:
    config = with_validation("loss", SECOND)
    run(config, pictures, tmp_path / "whole")
    for progress in train(config, data=pictures, trunks=NO_TRUNKS, out=tmp_path / "stopped"):
        if progress.done == 5:
            break

    run(config, pictures, tmp_path / "stopped")

    assert logged(tmp_path / "stopped") == logged(tmp_path / "whole")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "stopped")]
    assert weights[0] == weights[1]


# A start from weights


def write_tables(pictures: Path, data: Path) -> None:
    """The tables that the fine-tuning recipes speak of, over the drawn pictures."""
    shutil.copytree(pictures, data)
    words = {Path(i.locator).name: str(i.title) for i in read_source(str(data / "captions.csv"))}
    tables = {
        "catalogue": ["path,title", *(f"{path},{title}" for path, title in words.items())],
        "clicks": ["image,query", *(f"{path},{w}" for path, title in words.items() for w in title.split())],
        "labels": ["path,label", *(f"{path},{title.split()[-1]}" for path, title in words.items())],
        "questions": [
            "image,question,answer",
            *(f"{path},{row}" for path, w in words.items() for row in asked(w)),
        ],
        "captions": ["path,caption", *(f"{path},{title.split()[-1]} it is" for path, title in words.items())],
    }
    for name, lines in tables.items():
        (data / f"{name}.csv").write_text("\n".join(lines) + "\n")


def asked(title: str) -> list[str]:
    """Two questions with their answers about "a red circle"."""
    _, colour, shape = title.split()
    return [f"which colour?,{colour}", f"which shape?,{shape}"]


def test_fine_tuning_begins_with_the_weights_of_a_model_and_lowers_its_loss(
    tmp_path: Path, tiny: Path, pictures: Path
) -> None:
    write_tables(pictures, tmp_path / "data")
    stage = Stage(name="tune", steps=30, batch_size=16, learning_rate=1e-3, caption_loss_weight=1.0)
    source = PairSource(source="captions.csv", share=1.0, caption_share=1.0)
    tune = replace(SHORT, model="", start=str(tiny), stages=(stage,), sources=(source,))

    run(tune, tmp_path / "data", tmp_path / "tuned")

    losses = {key[1:]: float(value) for key, value in logged(tmp_path / "tuned").items()}
    assert losses[30, "captioning"] < 0.5 * losses[1, "captioning"]
    assert losses[30, "contrastive"] < losses[1, "contrastive"]
    assert (tmp_path / "tuned" / "vocabulary.json").read_text() == (tiny / "vocabulary.json").read_text()
    assert checkpoint.model_id(tmp_path / "tuned") != checkpoint.model_id(tiny)


def test_the_sigmoid_loss_gives_a_model_a_bias_that_learns_and_is_stored(
    tmp_path: Path, tiny: Path, pictures: Path
) -> None:
    stage = replace(FIRST, loss="sigmoid")
    run(replace(SHORT, model="", start=str(tiny), stages=(stage,)), pictures, tmp_path)

    bias = load_file(tmp_path / "model.safetensors")["logit_bias"]
    assert float(bias) == pytest.approx(-10.0, abs=0.1) and float(bias) != -10.0
    assert "logit_bias" not in load_file(tiny / "model.safetensors")


@pytest.mark.parametrize(("model", "start"), [("", ""), ("tiny", "mini")])
def test_a_recipe_says_a_model_or_a_start_and_not_both(model: str, start: str) -> None:
    with pytest.raises(ValueError, match=r"a recipe says either model, .* or start"):
        replace(SHORT, model=model, start=start)


@pytest.mark.parametrize("name", sorted(path.name for path in RECIPES.glob("finetune-*.toml")))
def test_a_fine_tuning_recipe_trains_on_the_table_that_it_speaks_of(
    tmp_path: Path, tiny: Path, asker: Path, pictures: Path, name: str
) -> None:
    """Two steps of each stage, from the small model, whose parts have other names."""
    write_tables(pictures, tmp_path / "data")
    recipe = TrainConfig.read(RECIPES / name)
    stages = tuple(replace(s, steps=2, batch_size=8, trains=("",), bfloat16=False) for s in recipe.stages)
    start = asker if name == "finetune-questions.toml" else tiny
    small = replace(recipe, start=str(start), stages=stages, log_every=1, threads=1)

    seen = run(small, tmp_path / "data", tmp_path / "out")

    assert [p.done for p in seen] == [1, 2] * len(stages)


@pytest.mark.parametrize("name", sorted(path.name for path in RECIPES.glob("finetune-*.toml")))
def test_a_fine_tuning_recipe_names_parts_of_the_model_that_it_begins_with(name: str) -> None:
    recipe = TrainConfig.read(RECIPES / name)
    bundled = recipe.start == "mini"
    published = open_clip_config.architecture(recipe.start.partition("/")[0])
    assert bundled or published is not None
    config = (
        checkpoint.stored_config(checkpoint.find(recipe.start))
        if bundled
        else open_clip_config.model_config(published or {}, {})
    )
    assert config is not None
    with torch.device("meta"):
        model = TextMultiModalModel(config)

    for stage in recipe.stages:
        assert trained_by(model, stage.trains, pretrained=bundled)


def test_questions_without_a_file_or_a_column_are_refused(tmp_path: Path, pictures: Path) -> None:
    source = replace(SHORT.sources[0], question_share=1.0)

    with pytest.raises(SourceError, match=r"captions\.csv has a question_share: say the recipe's questions"):
        run(replace(SHORT, sources=(source,)), pictures, tmp_path)
    with pytest.raises(SourceError, match="no picture of it has columns quest and answer"):
        run(replace(SHORT, sources=(replace(source, question_column="quest"),)), pictures, tmp_path)
    with pytest.raises(
        ValueError, match="stage first has a question_loss_weight, and no source a question_share"
    ):
        replace(SHORT, stages=(replace(FIRST, question_loss_weight=1.0),))


def test_a_stage_of_questions_is_validated_by_its_loss(tmp_path: Path, asker: Path, pictures: Path) -> None:
    write_tables(pictures, tmp_path / "data")
    recipe = TrainConfig.read(RECIPES / "finetune-questions.toml")
    watch = Validation(source="questions.csv", metric="loss", every=2, question_column="question")
    stage = replace(recipe.stages[0], steps=4, batch_size=8, bfloat16=False, validate=watch)

    run(replace(recipe, start=str(asker), stages=(stage,), log_every=1), tmp_path / "data", tmp_path / "out")

    with (tmp_path / "out" / "training.csv").open() as file:
        assert any("validation loss" in ",".join(row) for row in csv.reader(file))


@pytest.mark.gpu
def test_a_run_on_a_gpu_has_the_losses_of_one_on_the_processor(
    tmp_path: Path, pictures: Path, never_stopped: Path
) -> None:
    config = replace(SHORT, stages=(replace(FIRST, micro_batch=4), replace(SECOND, bfloat16=True)))
    on_gpu = Ranks(device=torch.device("cuda"))

    for _ in train(config, data=pictures, trunks=NO_TRUNKS, out=tmp_path, ranks=on_gpu):
        pass

    first = {key: float(value) for key, value in logged(tmp_path).items() if key[0] == "first"}
    assert first == pytest.approx({key: float(logged(never_stopped)[key]) for key in first}, abs=1e-2)
    assert logged(tmp_path).keys() == logged(never_stopped).keys()
