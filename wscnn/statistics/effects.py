"""How strongly a perturbation acts and how well its replicates agree."""

from itertools import combinations_with_replacement
from math import factorial, prod

import numpy as np
from numpy.typing import NDArray

from wscnn.statistics.arrays import Array
from wscnn.statistics.normalize import by_group, median

#: Up to this many wells all bootstrap samples are enumerated; of more wells samples are drawn.
ENUMERATED = 6

#: Samples drawn.
DRAWN = 2_000

#: Share of the bootstrap distribution inside the interval.
COVERAGE = 0.95

# Numbers held at once while samples are summarised.
_BLOCK = 10_000_000


def bootstrap_interval(values: Array, group: NDArray[np.int64], n_groups: int, seed: int) -> tuple[Array, Array]:
    """Return the ends of the bootstrap interval of each group's median: the 2.5th and 97.5th percentile.

    Groups of up to six values go through all samples with replacement, larger ones through 2,000 drawn ones. Of two or
    three values that is their range: no more can be said of so few. Source: Efron, Annals of Statistics 7, 1 (1979).

    Parameters
    ----------
    values, group
        (n,) values, finite, and the number of the group each belongs to.
    n_groups
        Groups; one with fewer than two values has no interval (NaN).
    seed
        For the samples that are drawn.

    Returns
    -------
    low, high
        (n_groups,) each.
    """
    low, high = np.full(n_groups, np.nan), np.full(n_groups, np.nan)
    counts = np.bincount(group, minlength=n_groups)
    for size in np.unique(counts[counts > 1]):
        groups = np.flatnonzero(counts == size)
        samples, weights = _samples(int(size), seed)
        number = np.full(n_groups, -1)
        number[groups] = np.arange(len(groups))
        mine = number[group] >= 0
        table = by_group(values[mine], number[group[mine]], len(groups))
        step = max(_BLOCK // samples.size, 1)
        for start in range(0, len(groups), step):
            medians = median(table[start : start + step][:, samples])
            ends = _quantiles(medians, weights, ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2))
            low[groups[start : start + step]], high[groups[start : start + step]] = ends
    return low, high


def replicate_ssmd(values: Array, group: NDArray[np.int64], n_groups: int, centre: Array, variance: Array) -> Array:
    """Return the strictly standardised mean difference of each group from the negative controls of its wells' plates.

    It is (mean of values less mean of controls) / root (variance of values + variance of controls), controls averaged
    over the group's wells. A single value is given the controls' variance. Source: Zhang, Genomics 89, 552 (2007).

    Parameters
    ----------
    values, group
        (n,) normalised scores and number of the group of each.
    centre, variance
        (n,) mean and variance of the negative controls on the plate of each.
    """
    mean, own = group_mean(values, group, n_groups), group_variance(values, group, n_groups)
    around = group_mean(variance, group, n_groups)
    total = np.where(np.isfinite(own), own, around) + around
    difference = mean - group_mean(centre, group, n_groups)
    return difference / np.sqrt(np.where(total > 0, total, np.nan))


def group_sum(values: Array, group: NDArray[np.int64], n_groups: int) -> Array:
    """Return each group's sum of its finite values; NaN where it has none."""
    finite = np.isfinite(values)
    total = np.bincount(group[finite], weights=values[finite], minlength=n_groups)
    return np.where(np.bincount(group[finite], minlength=n_groups) > 0, total, np.nan)


def group_mean(values: Array, group: NDArray[np.int64], n_groups: int) -> Array:
    """Return each group's mean of its finite values; NaN where it has none."""
    count = np.bincount(group[np.isfinite(values)], minlength=n_groups)
    return group_sum(values, group, n_groups) / np.maximum(count, 1)


def group_variance(values: Array, group: NDArray[np.int64], n_groups: int) -> Array:
    """Return each group's variance over its n finite values, divided by n - 1; NaN where n is below 2."""
    count = np.bincount(group[np.isfinite(values)], minlength=n_groups)
    squares = group_sum((values - group_mean(values, group, n_groups)[group]) ** 2, group, n_groups)
    return np.where(count > 1, squares / np.maximum(count - 1, 1), np.nan)


def group_median(values: Array, group: NDArray[np.int64], n_groups: int) -> Array:
    """Return each group's median of its values, all finite; NaN where it has none."""
    ordered = np.append(values[np.lexsort((values, group))], np.nan)
    count = np.bincount(group, minlength=n_groups)
    first = np.cumsum(count) - count
    middle = (ordered[first + np.maximum(count - 1, 0) // 2] + ordered[first + count // 2]) / 2
    return np.where(count > 0, middle, np.nan)


def _samples(size: int, seed: int) -> tuple[NDArray[np.int64], Array]:
    """Return samples with replacement of `size` values as indices (samples, size), and the probability of each."""
    if size > ENUMERATED:
        rng = np.random.default_rng([seed, size])
        return rng.integers(size, size=(DRAWN, size)), np.full(DRAWN, 1 / DRAWN)
    samples = list(combinations_with_replacement(range(size), size))
    ways = [factorial(size) / prod(factorial(sample.count(i)) for i in range(size)) for sample in samples]
    return np.array(samples), np.array(ways) / size**size


def _quantiles(values: Array, weights: Array, levels: tuple[float, float]) -> tuple[Array, Array]:
    """Return for each row of `values` the smallest value up to which the weights sum to each level."""
    order = np.argsort(values, axis=1, kind="stable")
    reached = np.cumsum(weights[order], axis=1)
    ordered = np.take_along_axis(values, order, axis=1)
    low, high = (
        np.take_along_axis(ordered, np.argmax(reached >= level - 1e-12, axis=1)[:, None], axis=1)[:, 0]
        for level in levels
    )
    return low, high
