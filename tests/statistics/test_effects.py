"""Effect sizes against brute force and values worked out by hand."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap

from wscnn.statistics.effects import bootstrap_interval, group_mean, group_median, group_variance, replicate_ssmd


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_interval_of_few_wells_is_that_of_all_samples(size):
    values = np.random.default_rng(size).normal(size=size)
    medians = np.sort([np.median(sample) for sample in product(values, repeat=size)])
    low, high = bootstrap_interval(values, np.zeros(size, dtype=int), 1, seed=0)
    shares = np.arange(1, len(medians) + 1) / len(medians)
    assert low[0] == pytest.approx(medians[shares >= 0.025 - 1e-12][0])
    assert high[0] == pytest.approx(medians[shares >= 0.975 - 1e-12][0])


def test_interval_of_many_wells_is_scipys_within_the_noise_of_drawing():
    values = np.random.default_rng(0).normal(size=40)
    low, high = bootstrap_interval(values, np.zeros(40, dtype=int), 1, seed=0)
    expected = bootstrap((values,), np.median, method="percentile", rng=1, n_resamples=5000).confidence_interval
    assert low[0] == pytest.approx(expected.low, abs=0.1)
    assert high[0] == pytest.approx(expected.high, abs=0.1)


def test_groups_of_all_sizes_at_once_are_as_each_alone():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(6), [1, 0, 2, 3, 8, 3])
    values = rng.normal(size=len(group))
    order = rng.permutation(len(group))
    together = bootstrap_interval(values[order], group[order], 6, seed=0)
    for number in range(6):
        mine = order[group[order] == number]
        alone = bootstrap_interval(values[mine], np.zeros(len(mine), dtype=int), 1, seed=0)
        np.testing.assert_array_equal([together[0][number], together[1][number]], np.ravel(alone))
    assert np.isnan(together[0][[0, 1]]).all()


@given(st.lists(st.tuples(st.floats(-100, 100), st.integers(0, 4)), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_group_statistics_are_numpys(pairs):
    values, group = np.array([v for v, _ in pairs]), np.array([g for _, g in pairs])
    for number in range(5):
        mine = values[group == number]
        expected = [np.median(mine), np.mean(mine)] if len(mine) else [np.nan, np.nan]
        expected.append(np.var(mine, ddof=1) if len(mine) > 1 else np.nan)
        got = [f(values, group, 5)[number] for f in (group_median, group_mean, group_variance)]
        np.testing.assert_allclose(got, expected, atol=1e-9)


def test_ssmd_by_hand():
    # Values 4 and 6: mean 5, variance 2. Controls: mean 1, variance 2: (5 - 1) / root 4.
    values, group = np.array([4.0, 6.0, 3.0]), np.array([0, 0, 1])
    ssmd = replicate_ssmd(values, group, 2, np.ones(3), np.full(3, 2.0))
    assert ssmd[0] == pytest.approx(2)
    # A single value takes the controls' variance: (3 - 1) / root (2 + 2).
    assert ssmd[1] == pytest.approx(1)
