"""A disk that fills up."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(folder: Path, max_bytes: int) -> Iterator[None]:
    """Inside, a file of more than `max_bytes` does not fit into `folder`, which begins empty.

    A mount of that size where we may (then files share it, and it is gone afterwards), a limit on file sizes
    elsewhere.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mounted = os.geteuid() == 0 and _run("mount", "-t", "tmpfs", "-o", f"size={max_bytes}", "none", folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if not mounted:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        if mounted:
            _run("umount", "--lazy", folder)


def _run(*command: str | Path) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0
