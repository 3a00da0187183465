"""What a running server does beside answering: take up what others wrote, fold, measure, sweep, give memory back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

logger = logging.getLogger(__name__)

STOP_S = 20.0
"""What a stop waits for a job that runs; a fold that is cut off leaves nothing behind."""
SWEEP_EVERY_S = 3600.0
GIVE_BACK_EVERY_S = 5.0


@dataclass(frozen=True)
class Job:
    name: str
    run: Callable[[], object]
    every_s: float
    """0: never"""
    at_once: bool = False
    """For the first time right after the start."""


class Maintenance:
    """Threads by name, each with jobs that it does one after the other: a long one (folding a million rows) must
    not hold up the quick ones. A job that fails is logged and tried again."""

    def __init__(self, threads: Mapping[str, Sequence[Job]]) -> None:
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(
                target=self._work, args=([job for job in jobs if job.every_s],), name=name, daemon=True
            )
            for name, jobs in threads.items()
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(STOP_S)

    def _work(self, jobs: Sequence[Job]) -> None:
        now = time.monotonic()
        due = {job.name: now if job.at_once else now + job.every_s for job in jobs}
        while not self._stop.wait(max(0.0, min(due.values()) - time.monotonic())):
            for job in jobs:
                if due[job.name] <= time.monotonic():
                    self._do(job)
                    due[job.name] = time.monotonic() + job.every_s

    def _do(self, job: Job) -> None:
        try:
            job.run()
        except Exception:
            logger.exception("%s failed; it is tried again", job.name)
