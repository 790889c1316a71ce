"""The share of rare cells: right on average for a detector that misses and mistakes cells, with an honest interval."""

import numpy as np
import pytest

from wscnn.statistics.rare_fraction import UNKNOWN, Recall, rare_fraction


def simulated(share: float, recall: float, base: float, seeds: int = 300) -> np.ndarray:
    """Return shares and bounds for a perturbation of four wells of 150 cells beside 32 negative wells."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(seeds):
        rare = rng.binomial(150, share, 4)
        objects = rng.binomial(rare, recall) + rng.binomial(150 - rare, base)
        control = rng.binomial(150, base, 32)
        # What a card states of the recall is itself uncertain.
        known = Recall(recall * (1 + rng.normal(0, 0.1)), 0.1 * recall)
        values = rare_fraction(
            objects.astype(float),
            np.full(4, 150.0),
            np.zeros(4, int),
            1,
            control.astype(float),
            np.full(32, 150.0),
            known,
        )
        found.append([value[0] for value in values])
    return np.array(found)


@pytest.mark.parametrize(("share", "recall", "base"), [(0.05, 0.7, 0.003), (0.3, 0.5, 0.02), (0.94, 0.8, 0.05)])
def test_right_on_average_and_covered_by_its_interval(share, recall, base):
    estimate, low, high = simulated(share, recall, base).T
    assert abs(np.mean(estimate) / share - 1) < 0.06
    assert ((low <= share) & (share <= high)).mean() >= 0.9
    assert (low <= estimate).all() and (estimate <= high).all()


def test_no_rare_cell_is_an_interval_that_reaches_zero():
    _, low, high = simulated(0.0, 0.7, 0.003).T
    assert (low == 0).mean() >= 0.95 and (high > 0).mean() >= 0.95


def test_without_a_recall_it_is_what_was_detected():
    share, low, high = rare_fraction(
        np.array([3.0, np.nan, 5.0]),
        np.array([100.0, np.nan, 100.0]),
        np.array([0, 0, 1]),
        3,
        *np.ones((2, 4)),
        UNKNOWN,
    )
    np.testing.assert_allclose(share, [0.03, 0.05, np.nan])
    assert np.isnan(low).all() and np.isnan(high).all()


def test_a_detector_that_finds_as_many_in_controls_says_nothing():
    share, *_ = rare_fraction(
        np.array([50.0]), np.array([100.0]), np.array([0]), 1, np.full(4, 60.0), np.full(4, 100.0), Recall(0.5, 0.05)
    )
    assert np.isnan(share[0])
