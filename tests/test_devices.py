"""Devices: what is held on them, what happens when one fails. torch on the processor stands for a device where there is
none; what needs CUDA is marked."""

import logging
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.config import IndexConfig
from indexer.database import Database
from indexer.live import LiveIndex
from indexer.vectors.choice import build_segment
from indexer.vectors.devices import DeviceRefused, cuda_devices, find
from indexer.vectors.gpu import Device, DeviceRows, Devices, probed
from indexer.vectors.index import VectorIndex
from indexer.vectors.options import BuildOptions
from indexer.vectors.planner import DEVICE, EXACT
from indexer.vectors.segments import DeviceFailed, Segment, exact_segment
from tests.rows import overlap
from tests.shop import Shop

N, DIM = 3000, 32
ROWS = np.random.default_rng(0).normal(size=(N, DIM)).astype(np.float32)
ROWS = (ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


def held(devices: Devices, rows: NDArray[np.float32] = ROWS) -> tuple[Segment, DeviceRows]:
    segment = devices.hold(exact_segment(np.arange(1, len(rows) + 1), rows))
    assert isinstance(segment.held, DeviceRows)
    return segment, segment.held


def test_rows_are_spread_evenly_and_found_where_they_lie() -> None:
    _, on = held(Devices([Device("cpu"), Device("cpu"), Device("cpu")]))

    assert [(shard.first, shard.count) for _, shard in on.shards] == [(0, 1000), (1000, 1000), (2000, 1000)]
    scores, at = on.search(ROWS[[0, 999, 1000, 2999]], 1)
    assert at[:, 0].tolist() == [0, 999, 1000, 2999]
    np.testing.assert_allclose(scores[:, 0], 1, atol=1e-3)


def test_each_device_is_used_by_one_thread() -> None:
    device = Device("cpu")

    names = {device.submit(threading.get_ident).result() for _ in range(20)}

    assert len(names) == 1 and names != {threading.get_ident()}


def test_small_segments_stay_in_main_memory() -> None:
    segment = exact_segment(np.arange(1, N + 1), ROWS)

    assert Devices([Device("cpu")], least_rows=N).hold(segment) is segment
    assert Devices([Device("cpu")], least_rows=N - 1).hold(segment).held is not None


def test_the_quicker_of_device_and_processor_is_taken() -> None:
    segment, on = held(Devices([Device("cpu")]))
    index = VectorIndex.over(DIM, [segment])

    on.ms = 1e-6
    assert index.plan().kind == DEVICE
    on.ms = 1e6
    assert index.plan().kind == EXACT


def test_a_device_that_fails_is_passed_over_and_asked_again_later(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = Devices([Device("cpu")])
    segment, on = held(devices)
    on.ms = 0.0
    index = VectorIndex.over(DIM, [segment])
    expected = index.search(ROWS[:20], 10)[1]
    _, shard = on.shards[0]
    rows = shard._rows
    shard._rows = rows[:, :5]  # a matrix that does not fit: torch raises as it does for a device's own errors

    with pytest.raises(DeviceFailed):
        on.search(ROWS[:20], 10)
    assert not on.works and index.plan().kind == EXACT
    on._failed_at = None
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(index.search(ROWS[:20], 10)[1], expected)
    assert "searched without the device" in caplog.text

    monkeypatch.setattr("indexer.vectors.gpu.AGAIN_S", 0.0)
    shard._rows = rows
    assert index.plan().kind == DEVICE
    assert np.array_equal(index.search(ROWS[:20], 10)[1], expected) and on._failed_at is None


def test_a_device_by_name_that_cannot_search_is_refused() -> None:
    with pytest.raises(
        DeviceRefused, match=r"index.device 'cuda:99' cannot search here.*set it to auto or off"
    ):
        find("cuda:99", least_rows=0)


def test_off_means_none_and_auto_those_there_are() -> None:
    assert find("off", least_rows=0) is None
    found = find("auto", least_rows=0)
    assert (0 if found is None else len(found.devices)) <= cuda_devices()


def test_a_probe_passes_what_finds_the_right_rows() -> None:
    device = probed("cpu")

    assert device is not None and device.finder == "torch"


def test_a_collection_is_searched_on_devices(any_database: Database, tmp_path: Path) -> None:
    shop = Shop(any_database)
    shop.put_some(np.random.default_rng(1), range(64))
    live = LiveIndex(any_database, tmp_path, IndexConfig(device="cpu,cpu", exact_rows=8))
    view = live.view(shop.collection)
    assert view is not None
    live.fold(view.collection_id)

    for one in (live, LiveIndex(any_database, tmp_path, IndexConfig(device="cpu", exact_rows=8))):
        folded = one.view(shop.collection)
        assert folded is not None
        (part,) = folded.images.vectors.parts
        assert isinstance(part.segment.held, DeviceRows)
        part.segment.held.ms = part.segment.held.filtered_ms = 0.0
        shop.assert_answers(folded)


@pytest.mark.gpu
def test_the_devices_of_this_machine_pass_the_probe() -> None:
    found = find("auto", least_rows=0)

    assert found is not None and len(found.devices) == cuda_devices()


@pytest.mark.gpu
def test_lists_built_on_a_device_find_what_those_of_the_processor_find() -> None:
    devices = find("auto", least_rows=0)
    assert devices is not None and devices.devices[0].finder == "faiss"
    centres = np.random.default_rng(1).normal(size=(60, DIM))
    rows = np.repeat(centres, 500, axis=0) + 0.2 * np.random.default_rng(2).normal(size=(30_000, DIM))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    options = BuildOptions(kind="lists", recall=0.9)

    segment = build_segment(np.arange(1, len(rows) + 1), rows, options, devices)

    assert segment.kind == "lists" and segment.approximate.ntotal == len(rows)
    exact = VectorIndex.over(DIM, [segment]).exactly().search(rows[:200], 10)[1]
    assert overlap(VectorIndex.over(DIM, [segment]).search(rows[:200], 10)[1], exact) >= 0.9
