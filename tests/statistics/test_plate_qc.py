"""Plate quality against values worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from wscnn.core.config import section
from wscnn.statistics.normalize import median_polish
from wscnn.statistics.plate_qc import (
    doubts,
    edge_effect,
    failures,
    measure,
    outlier,
    position_effects,
    ssmd,
    suspects,
    z_prime,
)
from wscnn.statistics.roc import auc_of_rows

# Means 2 and 12, both standard deviations 1.
NEGATIVES, POSITIVES = np.array([[1.0, 2, 3]]), np.array([[11.0, 12, 13]])


def test_z_prime_by_hand():
    assert z_prime(NEGATIVES, POSITIVES)[0] == pytest.approx(1 - 3 * 2 / 10)
    assert z_prime(NEGATIVES, POSITIVES, robust=True)[0] == pytest.approx(1 - 3 * 2 * 1.4826022 / 10)


def test_ssmd_by_hand():
    assert ssmd(NEGATIVES, POSITIVES)[0] == pytest.approx(10 / np.sqrt(2))


def test_auc_counts_pairs_and_half_of_ties():
    # Of 3 x 2 pairs four are won, and one is a tie.
    assert auc_of_rows(NEGATIVES, np.array([[2.0, 9, np.nan]]))[0] == pytest.approx((1 + 0.5 + 3) / 6)
    assert np.isnan(auc_of_rows(NEGATIVES, np.array([[np.nan]]))[0])


def test_rules_do_not_tell_negative_controls_from_samples():
    """Swapping a sample with a negative control changes nothing that a plate is judged by."""
    rng = np.random.default_rng(0)
    grid, border = rng.normal(size=(1, 4, 6)), np.zeros((1, 4, 6), dtype=bool)
    negatives, positives = rng.normal(size=(1, 8)), 1 + rng.normal(size=(1, 8))
    swapped, others = grid.copy(), negatives.copy()
    swapped[0, 1, 1], others[0, 0] = negatives[0, 0], grid[0, 1, 1]
    given, after = (measure(n, positives, g, border).iloc[0] for n, g in ((negatives, grid), (others, swapped)))
    for rule in ("auc_samples", "z_prime_samples"):
        assert after[rule] == pytest.approx(given[rule])
    assert given["auc_samples"] == pytest.approx(
        np.mean(positives.ravel()[:, None] > np.append(grid.ravel(), negatives.ravel()))
    )


def test_edge_effect_is_the_border_less_the_inside():
    rng = np.random.default_rng(0)
    grid = rng.normal(size=(2, 16, 24))
    border = np.ones((16, 24), dtype=bool)
    border[1:-1, 1:-1] = False
    grid[1][border] += 3
    effect = edge_effect(grid, np.stack([border, border]))
    assert effect[0] == pytest.approx(0, abs=0.4)
    assert effect[1] == pytest.approx(3, abs=0.5)


def test_position_effects_see_rows_and_columns_apart():
    rng = np.random.default_rng(0)
    grid = rng.normal(size=(1, 16, 24)) + np.linspace(-3, 3, 16)[:, None]
    rows, columns = position_effects(median_polish(grid))
    assert rows[0] == pytest.approx(np.linspace(-3, 3, 16).std(), rel=0.2)
    assert columns[0] == pytest.approx(1.25 / 4, abs=0.15)  # noise alone


def test_a_plate_unlike_the_others_stands_out():
    rng = np.random.default_rng(0)
    negatives = rng.normal(size=(12, 16))
    negatives[4] += 9
    negatives[7] *= 40
    z = outlier(negatives)
    assert set(np.argsort(z)[-2:]) == {4, 7}
    assert z[[4, 7]].min() > 5
    assert np.isnan(outlier(negatives[:4])).all()


def plates(**columns):
    """Return the quality of one good plate, with some columns changed."""
    grid = np.random.default_rng(0).normal(size=(1, 8, 12)) + 2
    good = measure(NEGATIVES.repeat(2, axis=1), POSITIVES, grid, np.zeros((1, 8, 12), dtype=bool))
    return good.assign(n_wells=96, n_missing=0).assign(**columns)


@pytest.mark.parametrize(
    ("columns", "settings", "reason"),
    [
        ({}, "{}", ""),
        ({"n_negative": 3}, "{}", "fewer than 4 negative controls with a score"),
        ({"n_negative": 3}, '{"normalize": "bscore"}', ""),
        ({"negative_spread": np.nan}, '{"normalize": "robust_z"}', "negative controls all have the same score"),
        ({"n_missing": 96}, "{}", "no well has a score"),
        ({"n_missing": 60}, "{}", "more than 50% of the wells have no score"),
        ({"auc_samples": 0.6}, '{"min_auc": 0.7}', "AUC of positive controls against samples and negatives below 0.7"),
        ({"auc": 0.3, "z_prime": -9.0, "auc_samples": 0.6}, "{}", ""),
        ({"auc": 0.3, "z_prime": -9.0}, '{"min_auc": 0.7, "min_z_prime": -5}', ""),
        ({"auc_samples": np.nan}, '{"min_auc": 0.7}', ""),
        (
            {"z_prime_samples": 0.1},
            '{"min_z_prime": 0.3}',
            "Z' of positive controls against samples and negatives below 0.3",
        ),
        ({"edge_effect": -2.0}, '{"max_edge_effect": 1.5}', "edge effect above 1.5"),
        ({"outlier": 9.0}, '{"max_outlier": 5}', "wells unlike those of other plates, z above 5"),
    ],
)
def test_a_plate_fails_by_the_rules_of_the_config(columns, settings, reason):
    found = failures(plates(**columns), section("hits", settings))[0]
    assert found == reason or (reason == "no well has a score" and found.startswith(reason))


def test_doubts_name_position_and_controls_unlike_samples():
    quality = pd.DataFrame({"edge_effect": [1.0, 1.2, 0.9], "sample_shift": [0.1, 1.9, 2.0]})
    edge, shift = doubts(quality, 0.05, corrected=False)
    assert edge.code == "plate_effects" and "+1.0 robust SDs" in edge.message
    assert shift.code == "unlike_controls" and "+1.9 robust SDs" in shift.message
    assert len(doubts(quality, 0.05, corrected=True)) == 1
    good = pd.DataFrame({"edge_effect": [np.nan], "sample_shift": [0.2]})
    assert doubts(good, 0.06, corrected=False) == []
    assert "40% of the sample wells" in doubts(good, 0.4, corrected=False)[0].message


def test_controls_that_score_like_the_other_class_are_suspects():
    z = np.array([0.5, 8.0, 4.0, 9.0, 0.2, 5.0])
    position = np.array([5.0, 90.0, 40.0, 95.0, 2.0, np.nan])
    negative = np.array([True, True, True, False, False, True])
    reasons = suspects(z, position, negative, ~negative)
    assert [bool(reason) for reason in reasons] == [False, True, False, False, True, True]
    assert reasons[1] == "negative control that looks positive"
    assert reasons[4] == "positive control that looks negative"
