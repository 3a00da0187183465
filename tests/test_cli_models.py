import json
import re
from pathlib import Path

from tests.conftest import Run
from textmm import checkpoint

RECIPE = """
model = "tiny"
threads = 1

[[sources]]
source = "captions.csv"
share = 1.0
caption_share = 1.0

[[stages]]
name = "joint"
steps = 3
batch_size = 8
learning_rate = 1e-3
caption_loss_weight = 1.0
"""


def test_models_list_tells_id_and_what_each_bundled_model_lacks(run: Run) -> None:
    done = run("models", "list")

    lines = done.out.splitlines()
    expected = [re.escape(checkpoint.model_id(checkpoint.find(n))) for n in checkpoint.bundled_names()]
    assert done.code == 0
    assert len(lines) == len(expected)
    for line, model in zip(lines, expected, strict=True):
        assert re.fullmatch(
            rf"{model}  \d+ dimensions  (ready|lacks .+: run `textmm models fetch \w+`)", line
        )


def test_models_fetch_brings_nothing_for_a_model_without_pretrained_parts(run: Run, tiny: Path) -> None:
    done = run("models", "fetch", tiny)

    assert (done.code, done.out, done.err) == (0, "", "")


def test_models_fetch_of_an_unknown_model_is_one_line(run: Run) -> None:
    done = run("models", "fetch", "huge")

    assert (done.code, done.err.count("\n")) == (2, 1)
    assert done.err.startswith("textmm: there is no model 'huge'")


def test_train_writes_a_model_that_the_other_commands_take(run: Run, tmp_path: Path, pictures: Path) -> None:
    recipe, out = tmp_path / "recipe.toml", tmp_path / "trained"
    recipe.write_text(RECIPE)

    trained = run("train", recipe, "--sources", pictures, "--out", out)
    measured = run("evaluate", out, pictures / "captions.csv", "--task", "retrieval", "--json")

    assert trained.code == 0
    assert trained.out.splitlines()[-1] == f"checkpoint in {out}"
    assert "joint: 3/3" in trained.out
    assert {path.name for path in out.iterdir()} >= {
        "config.json",
        "model.safetensors",
        "training.csv",
        "vocabulary.json",
    }
    assert json.loads(measured.out)["model"] == checkpoint.model_id(out)


def test_a_recipe_with_an_unknown_key_is_one_line(run: Run, tmp_path: Path, pictures: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE + "lerning_rate = 2\n")

    done = run("train", recipe, "--sources", pictures, "--out", tmp_path / "out")

    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "stages.lerning_rate" in done.err
