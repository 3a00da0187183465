import numpy as np

from textmm.figures import Miss
from textmm.metrics import precisions_at_k, probabilities
from textmm.misses import CAME, WORST, fewest_right, last_ranked, surest_mistakes

SCORES = np.array([[0.9, 0.8, 0.7, 0.1], [0.1, 0.2, 0.3, 0.4], [0.6, 0.5, 0.4, 0.3]])
RELEVANT = np.array([[0, 0, 0, 1], [0, 0, 0, 1], [0, 1, 1, 0]], dtype=bool)


def test_the_query_whose_right_item_ranks_last_comes_first_and_one_that_was_found_not_at_all() -> None:
    found = last_ranked(SCORES, RELEVANT, ["dog", "cat", "cow"], [10, 11, 12, 13])

    assert found == [
        Miss("dog", (13,), (10, 11, 12, 13), "right one at 4"),
        Miss("cow", (11, 12), (10, 11, 12, 13), "right one at 2"),
    ]


def test_of_queries_with_many_right_pictures_the_wrong_ones_that_came_are_kept() -> None:
    precisions = precisions_at_k(SCORES, RELEVANT, 2)

    found = fewest_right(SCORES, RELEVANT, ["dog", "cat", "cow"], precisions)

    assert found == [
        Miss("dog", (3,), (0, 1, 2), "precision@10 0.0"),
        Miss("cat", (3,), (2, 1, 0), "precision@10 0.5"),
        Miss("cow", (1, 2), (0, 3), "precision@10 0.5"),
    ]


def test_the_surest_mistake_comes_first() -> None:
    scores = np.array([[0.9, 0.1], [0.5, 0.6], [0.2, 0.9], [0.9, 0.1]])
    truth = np.array([1, 0, 1, 0])

    found = surest_mistakes(scores, probabilities(scores, 10.0), truth, ["red", "blue"], [4, 5, 6, 7])

    assert found == [
        Miss(4, ("blue",), ("red",), "confidence 1.00"),
        Miss(5, ("red",), ("blue",), "confidence 0.73"),
    ]


def test_a_sheet_is_no_longer_than_can_be_looked_at() -> None:
    scores = np.tile(np.arange(30.0)[::-1], (30, 1))

    found = last_ranked(scores, np.eye(30, dtype=bool), range(30), range(30))

    assert [miss.asked for miss in found] == list(range(29, 29 - WORST, -1))
    assert {len(miss.came) for miss in found} == {CAME}
