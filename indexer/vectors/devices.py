"""Which CUDA devices search and build here. torch is loaded only where there are some, or one is named."""

from __future__ import annotations

import ctypes
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from indexer.vectors.gpu import Devices

logger = logging.getLogger(__name__)


class DeviceRefused(ValueError):
    """A device that was asked for by name and cannot search."""


def find(asked: str, *, least_rows: int) -> Devices | None:
    """The devices that pass a probe; None: none does, or none is wanted. Segments of more than `least_rows` go there.

    `asked`: auto, off, or names of torch's (cuda:0,cuda:1). Raises DeviceRefused when one that is named does not pass.
    """
    if asked == "off":
        return None
    names = [f"cuda:{i}" for i in range(cuda_devices())] if asked == "auto" else asked.split(",")
    if not names:
        return None
    from indexer.vectors.gpu import Devices, probed

    found = []
    for name in (name.strip() for name in names):
        device = probed(name)
        if device is not None:
            found.append(device)
            logger.info("vectors are searched on %s by %s", name, device.finder)
        elif asked != "auto":
            raise DeviceRefused(
                f"index.device {name!r} cannot search here (see the log): set it to auto or off"
            )
    return Devices(found, least_rows=least_rows) if found else None


def cuda_devices() -> int:
    """How many the driver sees."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    seen = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return count.value if seen else 0
