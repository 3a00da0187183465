import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from textmm.checkpoint import load_training
from textmm.ranks import Ranks, parts_of

ROOT = Path(__file__).parent.parent
RECIPE = """
model = "tiny"
threads = 1
log_every = 1
[[sources]]
source = "captions.csv"
share = 1.0
caption_share = 1.0
[[stages]]
name = "joint"
steps = {steps}
batch_size = 16
micro_batch = {micro_batch}
learning_rate = 1e-3
caption_loss_weight = 2.0
loss = "{loss}"
scale_start = 10.0
warmup_steps = 2
grad_clip_norm = 1000.0
"""


@pytest.mark.parametrize("rows", [1, 5, 16])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_shares_of_all_processes_are_the_batch(rows: int, count: int) -> None:
    shares = [Ranks(rank, count).share(rows) for rank in range(count)]

    assert [row for share in shares for row in share] == list(range(rows))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_parts_are_of_the_size_asked_for_and_in_order() -> None:
    assert parts_of(range(3, 11), 3) == [range(3, 6), range(6, 9), range(9, 11)]
    assert parts_of(range(3, 11), 0) == parts_of(range(3, 11), 8) == [range(3, 11)]
    assert parts_of(range(3, 3), 2) == [range(3, 3)]


def trained(folder: Path, pictures: Path, processes: int, **stage: object) -> Path:
    """A run of the command in so many processes of torchrun -> its folder."""
    folder.mkdir()
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE.format(**stage))
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]
    launch = torchrun if processes > 1 else []
    command = [sys.executable, "-m", *launch, "search.cli.main", "train", str(recipe)]
    command += ["--sources", str(pictures), "--out", str(folder / "out"), "--data", str(folder / "data")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("checkpoint in") == 1  # one process alone speaks and writes
    return folder / "out"


def losses(out: Path) -> dict[str, float]:
    with (out / "training.csv").open(newline="") as file:
        return {f"{row['step']} {row['loss']}": float(row["value"]) for row in csv.DictReader(file)}


@pytest.mark.slow
def test_two_processes_have_the_losses_and_gradients_of_one_with_the_whole_batch(
    tmp_path: Path, pictures: Path
) -> None:
    """Parts of 8 rows in one process are the rows of two, so dropout too is the same."""
    one = trained(tmp_path / "one", pictures, 1, steps=1, micro_batch=8, loss="sigmoid")
    two = trained(tmp_path / "two", pictures, 2, steps=1, micro_batch=8, loss="sigmoid")

    assert list(losses(two)) == ["1 contrastive", "1 captioning"]
    assert losses(two) == pytest.approx(losses(one), abs=2e-5)
    # After one step Adam's first moment is a tenth of the gradient.
    moments = [load_training(out / "training.pt")["optimizer"]["state"] for out in (one, two)]  # type: ignore[index]
    assert moments[0].keys() == moments[1].keys()
    for parameter, state in moments[0].items():
        torch.testing.assert_close(moments[1][parameter]["exp_avg"], state["exp_avg"], rtol=1e-3, atol=1e-7)
    assert max(float(state["exp_avg"].abs().max()) for state in moments[0].values()) > 1e-3


@pytest.mark.slow
def test_two_processes_go_on_with_the_losses_of_one(tmp_path: Path, pictures: Path) -> None:
    one = trained(tmp_path / "one", pictures, 1, steps=6, micro_batch=4, loss="infonce")
    two = trained(tmp_path / "two", pictures, 2, steps=6, micro_batch=4, loss="infonce")

    assert losses(two) == pytest.approx(losses(one), abs=1e-3)
