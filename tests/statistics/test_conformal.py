"""p-values against enumeration of every assignment, and against scipy's own exact tests."""

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from wscnn.statistics.conformal import (
    choose_null,
    false_discovery_q,
    group_counts,
    log_smallest_p,
    rank_sum_p,
    strata_of,
)


def exceeding_counts(n, r):
    """Return U of every one of the equally likely ways in which r values can lie among n null values."""
    places = range(n + r)
    for own in combinations(places, r):
        yield sum(1 for mine in own for other in places if other not in own and other > mine)


@pytest.mark.parametrize("strata", [((4, 2),), ((3, 1), (4, 2)), ((1, 3), (2, 2)), ((2, 1), (2, 1), (3, 1)), ((0, 2),)])
def test_rank_sum_p_is_the_share_of_assignments_that_reach_it(strata):
    sums = np.array([sum(us) for us in product(*(list(exceeding_counts(n, r)) for n, r in strata))])
    for u in range(sum(n * r for n, r in strata) + 1):
        assert rank_sum_p(np.array([float(u)]), [strata])[0] == pytest.approx((sums <= u).mean(), rel=1e-12)


@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_one_set_is_the_exact_mann_whitney_test(n, r, seed):
    rng = np.random.default_rng(seed)
    null, own = rng.normal(size=n), rng.normal(size=r)
    u = float((null[:, None] >= own).sum())
    expected = mannwhitneyu(own, null, alternative="greater", method="exact").pvalue
    assert rank_sum_p(np.array([u]), [((n, r),)])[0] == pytest.approx(expected, rel=1e-9)


def test_one_value_is_the_conformal_p_value():
    p = rank_sum_p(np.arange(20.0), [((19, 1),)] * 20)
    np.testing.assert_allclose(p, np.arange(1, 21) / 20)


def test_many_wells_take_the_normal_law_which_there_equals_the_exact_one():
    strata = ((2000, 60),)
    u = np.array([2000 * 60 / 2 - 3 * np.sqrt(2000 * 60 * 2061 / 12)])
    exact_within = 0.00135 * np.array([0.9, 1.1])  # three standard deviations of the normal law
    assert exact_within[0] < rank_sum_p(np.floor(u), [strata])[0] < exact_within[1]


def test_deep_tails_keep_their_digits():
    # The most extreme of C(16003, 3) equally likely assignments.
    smallest = rank_sum_p(np.zeros(1), [((16000, 3),)])[0]
    assert smallest == pytest.approx(6 / (16001 * 16002 * 16003), rel=1e-9)
    assert np.exp(log_smallest_p(np.array([16000]), np.array([3])))[0] == pytest.approx(smallest, rel=1e-9)


def test_null_p_values_are_uniform_on_their_grid_whatever_the_distribution():
    rng = np.random.default_rng(0)
    n_screens, n, r = 4000, 6, 2
    values = rng.standard_cauchy((n_screens, 2, n + r)) * np.array([1.0, 50.0])[:, None]
    null, own = values[..., :n], values[..., n:]
    u = (null[..., None] >= own[..., None, :]).sum(axis=(1, 2, 3)).astype(float)
    p = rank_sum_p(u, [((n, r), (n, r))] * n_screens)
    for level in (0.01, 0.05, 0.2, 0.5):
        share = (p <= level).mean()
        assert share <= level + 3 * np.sqrt(level * (1 - level) / n_screens)


def test_groups_of_all_plates_are_counted_and_never_cross_plates():
    n_negative = np.array([8, 3, 0, 16])
    np.testing.assert_array_equal(group_counts(n_negative, np.array([1, 2, 5]), rest=2), [8 + 3 + 16, 4 + 8, 1 + 3])


def test_strata_list_each_perturbations_sets_sorted():
    sets = strata_of(np.array([2, 0, 0]), np.array([8, 16, 4]), np.array([1, 1, 2]), 3)
    assert sets == [((4, 2), (16, 1)), (), ((8, 1),)]


@pytest.mark.parametrize(
    ("wells_a_plate", "n_plates", "n_tests", "pooled", "smallest"),
    [
        (1, 3, 10, False, 1 / 17**3),  # 1/4913 is below 0.05 / 10: the plates' own controls suffice
        (1, 1, 10, True, 1 / 65),  # 1/17 is not, and 64 controls of four plates reach lower
        (8, 1, 300, False, 1 / 735471),  # C(24, 8) ways
    ],
)
def test_null_is_chosen_by_what_it_can_reach(wells_a_plate, n_plates, n_tests, pooled, smallest):
    cells = pd.DataFrame({"perturbation": 0, "plate": range(n_plates), "n": wells_a_plate})
    choice = choose_null(cells, np.full(4, 16), 2, n_tests, 0.05, "auto")
    assert bool(choice["pooled"][0]) is pooled
    assert choice["smallest_p"][0] == pytest.approx(smallest)


def test_q_is_benjamini_hochberg_and_missing_p_is_no_test():
    # Worked by hand: p sorted 0.01 0.02 0.03 0.5; times 4 / rank: 0.04 0.04 0.04 0.5 after the running minimum.
    q = false_discovery_q(np.array([0.03, np.nan, 0.01, 0.5, 0.02]))
    np.testing.assert_allclose(q, [0.04, np.nan, 0.04, 0.5, 0.04])
