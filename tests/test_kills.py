"""The short form of tests/benchmarks/bench_kills.py."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing_that_was_acknowledged_and_leave_everything_clean(
    bare_url: str,
) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.bench_kills", "--kills", "12", "--url", bare_url]

    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert ran.returncode == 0, ran.stdout + ran.stderr
    last = json.loads(ran.stdout.splitlines()[-1])
    assert (last["wrong"], sum(last["during"].values())) == (0, 12)
