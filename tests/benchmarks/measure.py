"""What the benchmarks share: medians, and the JSON object on the last line."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def print_json(name: str, arguments: dict[str, Any], figures: dict[str, Any]) -> None:
    """The last line of every benchmark."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    row = {
        "benchmark": name,
        "commit": commit,
        "python": sys.version.split()[0],
        "versions": {p: version(p) for p in ("torch", "numpy", "SQLAlchemy", "Flask")},
        "hardware": {"machine": platform.machine(), "processor": _processor()},
        "arguments": arguments,
        **figures,
    }
    print(json.dumps(row))


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:  # noqa: PTH123
            names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        return f"{len(names)} x {names[0]}"
    except (OSError, IndexError):
        return platform.processor()
