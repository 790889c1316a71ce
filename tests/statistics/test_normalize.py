"""Normalisation against published and hand-worked tables."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wscnn.statistics.normalize import (
    bscore,
    by_group,
    centre_and_scale,
    held_out_groups,
    median,
    median_polish,
    spread,
)

# Deaths from sport parachuting by experience (rows) and year: Velleman and Hoaglin, ABC of EDA (1981), p. 224, the
# example of R's medpolish, whose printed answer is given here: overall 8, sum of absolute residuals 19.
DEATHS = np.array([[14, 15, 14], [7, 4, 7], [8, 2, 10], [15, 9, 10], [0, 2, 0]], dtype=float)
DEATHS_ROWS, DEATHS_COLUMNS = [6, -1, 0, 2, -8], [0, -1, 0]
DEATHS_RESIDUALS = [[0, 2, 0], [0, -2, 0], [0, -5, 2], [5, 0, 0], [0, 3, 0]]


def test_median_polish_gives_the_published_answer():
    polish = median_polish(DEATHS)
    assert polish.overall == 8
    np.testing.assert_allclose(polish.rows, DEATHS_ROWS)
    np.testing.assert_allclose(polish.columns, DEATHS_COLUMNS)
    np.testing.assert_allclose(polish.residuals, DEATHS_RESIDUALS)


def test_tables_in_one_call_do_not_touch_each_other():
    other = DEATHS[::-1] * 3 + 1
    both = median_polish(np.stack([DEATHS, other]))
    for index, table in enumerate((DEATHS, other)):
        alone = median_polish(table)
        for got, expected in zip(both, alone, strict=True):
            np.testing.assert_allclose(got[index], expected)


@given(arrays(float, (5, 7), elements=st.floats(-100, 100, width=32)))
@settings(max_examples=50, deadline=None)
def test_polish_puts_the_table_together_again(table):
    polish = median_polish(table)
    again = polish.overall + polish.rows[:, None] + polish.columns[None, :] + polish.residuals
    np.testing.assert_allclose(again, table, atol=1e-9)


def test_bscore_by_hand():
    """A 3 x 4 plate = 10 + rows (-1, 0, 2) + columns (0, 1, -1, 5) + residuals; the last column holds controls.

    Sweep by hand of the sample columns: row medians 9, 10, 12 leave (0, 1, -1) in every row but for the residuals +4 at
    (0, 1) and -2 at (2, 2). With those in place, rows: (9, 14, 8), (10, 11, 9), (12, 13, 9): medians 9, 10, 12;
    left (0, 5, -1), (0, 1, -1), (0, 1, -3): column medians 0, 1, -1; left (0, 4, 0), (0, 0, 0), (0, 0, -2), whose row
    and column medians are 0. Seven of nine residuals are 0, so the MAD is 0 and the mean absolute deviation,
    (4 + 2) / 9, times 1.2533 scales. The controls' column has no sample: its effect is not known, and stays in their
    scores.
    """
    residuals = np.zeros((3, 4))
    residuals[0, 1], residuals[2, 2], residuals[1, 3] = 4, -2, 7
    plate = 10 + np.array([-1, 0, 2])[:, None] + np.array([0, 1, -1, 5])[None, :] + residuals
    samples = np.ones((3, 4), dtype=bool)
    samples[:, 3] = False
    expected = residuals + np.array([0, 0, 0, 5])
    scores = bscore(plate[None], samples[None])[0]
    np.testing.assert_allclose(scores, expected / (1.2533141373155 * 6 / 9))


def test_bscore_is_residual_over_mad():
    """Rows (1, 2, 3), columns (0, 10, 20), and on the diagonal and below it residuals that medians do not see."""
    residuals = np.array([[3.0, 0, -1], [-1, 0, 2], [0, 0, 0], [1, -2, 0], [-4, 1, 0]])
    polish = median_polish(residuals)
    np.testing.assert_allclose(polish.residuals, residuals)  # every row's and column's median is 0 already
    plate = residuals + np.array([1, 2, 3, 4, 5])[:, None] + np.array([0, 10, 20])[None, :]
    # |residuals| sorted: 0 x 7, 1 1 1 1, 2 2, 3, 4: the middle one of fifteen, the eighth, is 1.
    np.testing.assert_allclose(bscore(plate[None], np.ones((1, 5, 3), bool))[0], residuals / 1.4826022185)


def test_bscore_takes_row_and_column_effects_off_and_leaves_an_effect():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(20, 16, 24))
    edge = np.zeros((16, 24))
    edge[[0, -1], :] += 2
    edge[:, [0, -1]] += 2
    acted = np.zeros((16, 24))
    acted[5, 7] = 6
    scores = bscore(noise + edge + 3 * np.arange(16)[:, None] + acted, np.ones(noise.shape, dtype=bool))
    assert abs(np.median(scores[:, 0, :])) < 0.15
    assert scores[:, 5, 7].mean() == pytest.approx(6, abs=0.6)


def test_robust_z_by_hand():
    # Median 3; absolute deviations 2 1 0 1 7, median 1.
    centre, scale = centre_and_scale(np.array([[1.0, 2, 3, 4, 10, np.nan]]), np.array([np.nan]), "robust_z")
    assert centre[0] == 3
    assert scale[0] == pytest.approx(1.4826, abs=1e-4)


def test_control_percent_by_hand():
    centre, scale = centre_and_scale(np.array([[1.0, 2, 3]]), np.array([12.0]), "control_percent")
    assert (7 - centre[0]) / scale[0] == pytest.approx(50)


def test_positive_controls_below_negative_ones_cannot_scale():
    _, scale = centre_and_scale(np.array([[1.0, 2, 3]]), np.array([0.0]), "control_percent")
    assert np.isnan(scale[0])


def test_equal_controls_cannot_scale_and_mostly_equal_ones_scale_by_the_mean_deviation():
    scale = spread(np.array([[2.0, 2, 2, 2], [2, 2, 2, 6]]))
    assert np.isnan(scale[0])
    assert scale[1] == pytest.approx(1.2533141 * 1.0)


@given(arrays(float, (4, 9), elements=st.one_of(st.floats(-1e6, 1e6), st.just(np.nan))))
@settings(max_examples=50, deadline=None)
def test_median_leaves_missing_values_out(table):
    expected = [np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan for row in table]
    np.testing.assert_allclose(median(table), expected)


def test_by_group_keeps_order_and_fills_up():
    table = by_group(np.array([1.0, 2, 3, 4]), np.array([2, 0, 2, 2]), 3)
    np.testing.assert_array_equal(table, [[2, np.nan, np.nan], [np.nan] * 3, [1, 3, 4]])


def test_held_out_controls_are_normalised_by_the_others():
    # 10 is normalised by 1 2 3: median 2, MAD 1.
    held_out = held_out_groups(np.array([[1.0, 2, 3, 10]]), np.array([np.nan]), "robust_z")
    assert held_out[0, 3] == pytest.approx(8 / 1.4826, rel=1e-4)


def test_groups_are_disjoint_and_left_out_whole():
    negatives = np.random.default_rng(0).normal(size=(3, 7))
    groups = held_out_groups(negatives, np.full(3, np.nan), "none", size=3)
    assert groups.shape == (3, 2)
    for plate in range(3):
        # Two groups of three and one left over: their sum is that of all but one control.
        rest = negatives[plate].sum() - 3 * groups[plate].sum()
        assert np.isclose(rest, negatives[plate]).any()


@pytest.mark.parametrize("n", [4, 5, 8])
def test_controls_normalised_by_themselves_make_nulls_look_strange_and_held_out_ones_do_not(n):
    """The share of null wells above 95 of 100 null values, where each plate has n controls."""
    rng = np.random.default_rng(n)
    values = rng.normal(size=(20_000, n + 1))
    controls, own = values[:, :n], values[:, n]
    centre, scale = centre_and_scale(controls, np.full(len(values), np.nan), "robust_z")
    z = (own - centre) / scale
    shares = {
        "themselves": (z > np.nanquantile((controls - centre[:, None]) / scale[:, None], 0.95)).mean(),
        "held out": (z > np.nanquantile(held_out_groups(controls, centre, "robust_z"), 0.95)).mean(),
    }
    assert shares["themselves"] > 0.055
    assert shares["held out"] < 0.052


def test_groups_next_to_plates_with_few_controls_are_normalised_by_as_few():
    rng = np.random.default_rng(3)
    controls = rng.normal(size=(20_000, 16))
    held_out = held_out_groups(controls, np.full(len(controls), np.nan), "robust_z", most=3)
    treated = rng.normal(size=(20_000, 4))
    centre, scale = centre_and_scale(treated[:, 1:], np.full(len(treated), np.nan), "robust_z")
    assert ((treated[:, 0] - centre) / scale > np.nanquantile(held_out, 0.95)).mean() == pytest.approx(0.05, abs=0.006)
