import numpy as np
import pytest

from indexer.seen import SeenKeys


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_keys_that_came_before_are_told_as_a_set_tells_them(size: int) -> None:
    rng = np.random.default_rng(size)
    seen, truth = SeenKeys(), set[str]()

    for _ in range(20):
        keys = [f"key {n}" for n in rng.integers(0, 5 * size, size)]
        told = seen.add(keys)
        wanted = [key in truth or key in keys[:i] for i, key in enumerate(keys)]
        truth |= set(keys)
        assert told == wanted

    asked = [f"key {n}" for n in range(6 * size)]
    assert seen.missing(asked) == [key for key in asked if key not in truth]


def test_nothing_came_before_the_first_key() -> None:
    assert SeenKeys().add([]) == []
    assert SeenKeys().missing(["a"]) == ["a"]
