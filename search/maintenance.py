"""What a running server does beside answering: take up what others wrote, sweep blobs, give memory back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from search.memory import give_back

logger = logging.getLogger(__name__)

SWEEP_EVERY_S = 3600.0
GIVE_BACK_EVERY_S = 5.0


class Maintenance:
    """One thread. A job that fails is logged and tried again."""

    def __init__(self, *, poll: Callable[[], object], sweep: Callable[[], object], poll_s: float) -> None:
        self._poll, self._sweep, self._poll_s = poll, sweep, poll_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="maintenance", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _work(self) -> None:
        swept = time.monotonic() - SWEEP_EVERY_S
        gave_back = 0.0
        while not self._stop.wait(self._poll_s):
            try:
                self._poll()
                if time.monotonic() - swept > SWEEP_EVERY_S:
                    swept = time.monotonic()
                    self._sweep()
                if time.monotonic() - gave_back > GIVE_BACK_EVERY_S:
                    gave_back = time.monotonic()
                    give_back()
            except Exception:
                logger.exception("maintenance failed; it is tried again")
