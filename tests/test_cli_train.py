import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Run
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
        "curves.png",
        "vocabulary.json",
    }
    assert json.loads(measured.out)["model"] == checkpoint.model_id(out)


def test_a_recipe_with_an_unknown_key_is_one_line(run: Run, tmp_path: Path, pictures: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE + "lerning_rate = 2\n")

    done = run("train", recipe, "--sources", pictures, "--out", tmp_path / "out")

    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "stages.lerning_rate" in done.err


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on_and_the_run_then_has_the_losses_of_one_that_never_stopped(
    tmp_path: Path, pictures: Path
) -> None:
    recipe, out = tmp_path / "recipe.toml", tmp_path / "out"
    recipe.write_text("log_every = 1\nsave_every = 1000\n" + RECIPE.replace("steps = 3", "steps = 60"))

    def command(folder: Path) -> list[str]:
        start = [sys.executable, "-u", "-m", "search.cli.main", "train", str(recipe)]
        return [*start, "--sources", str(pictures), "--out", str(folder), "--data", str(tmp_path)]

    process = subprocess.Popen(
        command(out), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("joint: 5/"):
            process.send_signal(signal.SIGINT)
            break
    _, err = process.communicate(timeout=300)
    again = subprocess.run(command(out), cwd=ROOT, capture_output=True, text=True, timeout=300)
    whole = subprocess.run(command(tmp_path / "whole"), cwd=ROOT, capture_output=True, text=True, timeout=300)

    stopped = re.search(
        r"stopped at stage joint, step (\d+) of 60; the same command goes on from there: (.+)", err
    )
    assert process.returncode == 130
    assert stopped is not None, err
    assert stopped[2] == f"textmm train {recipe} --sources {pictures} --out {out} --data {tmp_path}"
    assert 5 <= int(stopped[1]) < 60
    assert (again.returncode, whole.returncode) == (0, 0)
    assert again.stdout.startswith(f"joint: {int(stopped[1]) + 1}/60")
    assert (out / "training.csv").read_text() == (tmp_path / "whole" / "training.csv").read_text()
    assert (out / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
