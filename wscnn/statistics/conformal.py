"""p-values by rank among negative controls, and the false discovery rate.

Everything here rests on one assumption only: that a well in which nothing acts is exchangeable with the negative
controls it is ranked among.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import gammaln
from scipy.stats import false_discovery_control, norm

from wscnn.statistics.arrays import Array, Numbers

#: A reference set: how many null values it holds, and how many values of a perturbation are ranked in it.
Stratum = tuple[int, int]

# Sums of ranks of more than this many steps of work use the normal law, which is accurate for this many wells.
_EXACT_WORK = 5e7


@lru_cache(maxsize=4096)
def _one_set(n: int, r: int) -> Array:
    """Return the probabilities of U = 0 ... n r, U counting (null, own) pairs in which the null value is the larger.

    The generating function is the Gaussian binomial, the product over i = 1 ... r of (1 - q^(n + i)) / (1 - q^i);
    each factor is scaled by i / (n + i), so that the sum stays 1.
    """
    size = n * r + 1
    probability = np.zeros(size)
    probability[0] = 1.0
    for i in range(1, r + 1):
        shifted = probability.copy()
        shifted[n + i :] -= probability[: max(size - n - i, 0)]
        # Division by 1 - q^i is a running sum with stride i.
        padded = np.zeros(-(-size // i) * i)
        padded[:size] = shifted
        probability = padded.reshape(-1, i).cumsum(axis=0).ravel()[:size] * (i / (n + i))
    return np.maximum(probability, 0.0)


@lru_cache(maxsize=4096)
def _rank_sum_cdf(strata: tuple[Stratum, ...]) -> Array:
    """Return P(U <= u) for u = 0, 1, ..., where U is summed over independent reference sets."""
    total = np.ones(1)
    for n, r in strata:
        total = np.convolve(total, _one_set(max(n, r), min(n, r)))
    return np.minimum(np.cumsum(total), 1.0)


def _work(strata: tuple[Stratum, ...]) -> float:
    """Return about how many steps the exact law of U takes."""
    steps, size = 0.0, 1.0
    for n, r in strata:
        steps += float(n) * r * (min(n, r) + size)
        size += float(n) * r
    return steps


def rank_sum_p(u: Array, strata: Sequence[tuple[Stratum, ...]]) -> Array:
    """Return P(U <= u) where nothing acts: the p-value of several wells taken together.

    U counts the pairs of a null value and one of the perturbation's own values, both of the same reference set, in
    which the null value is at least as large (ties count against the perturbation); it is summed over the sets. That
    is the Wilcoxon-Mann-Whitney statistic, stratified (van Elteren, 1960). One value in one set gives the conformal
    p-value (u + 1) / (n + 1) (Vovk, Gammerman and Shafer, 2005). The law of U under exchangeability within every
    set is known exactly, whatever the scores' distribution, and is used up to about 5e7 steps of work; beyond, the
    normal law with its exact mean and variance.

    Parameters
    ----------
    u
        (perturbations,) the statistic.
    strata
        For each perturbation its reference sets, each (number of null values, number of own values), sorted.

    Returns
    -------
    p
        (perturbations,) in (0, 1]; 1 where no set holds both.
    """
    p = np.ones(len(u))
    codes, kinds = pd.factorize(pd.Series(list(strata), dtype=object))
    for code, kind in enumerate(kinds):
        rows = np.flatnonzero(codes == code) if len(kinds) > 1 else slice(None)
        if _work(kind) <= _EXACT_WORK:
            p[rows] = _rank_sum_cdf(kind)[u[rows].astype(int)]
        else:
            n, r = np.array(kind, dtype=float).T
            deviation = np.sqrt((n * r * (n + r + 1)).sum() / 12)
            p[rows] = np.maximum(norm.cdf((u[rows] + 0.5 - (n * r).sum() / 2) / deviation), np.finfo(float).tiny)
    return p


def strata_of(
    perturbation: NDArray[np.int64], n: NDArray[np.int64], r: NDArray[np.int64], n_perturbations: int
) -> list[tuple[Stratum, ...]]:
    """Return each perturbation's reference sets, sorted, from one row (perturbation, n, r) per set."""
    order = np.lexsort((r, n, perturbation))
    sets = list(zip(n[order].tolist(), r[order].tolist(), strict=True))
    ends = np.cumsum(np.bincount(perturbation, minlength=n_perturbations)).tolist()
    return [tuple(sets[start:end]) for start, end in zip([0, *ends][:-1], ends, strict=True)]


def log_smallest_p(n: NDArray[np.integer], r: NDArray[np.integer]) -> Array:
    """Return the natural logarithm of the smallest p that r values ranked among n can reach: 1 / C(n + r, r)."""
    return gammaln(n + 1) + gammaln(r + 1) - gammaln(n + r + 1)


def group_counts(n_negative: NDArray[np.int64], sizes: NDArray[np.int64], rest: int) -> NDArray[np.int64]:
    """Return how many groups of each of `sizes` the negative controls of all plates make, none across plates.

    Parameters
    ----------
    n_negative
        (plates,) negative controls.
    sizes
        (k,) wells per group.
    rest
        How many controls of the plate must remain beside a group.
    """
    room = n_negative[None, :] - sizes[:, None] >= rest
    return np.where(room, n_negative[None, :] // sizes[:, None], 0).sum(axis=1)


def choose_null(
    cells: pd.DataFrame, n_negative: NDArray[np.int64], rest: int, n_tests: int, fdr: float, null: str
) -> pd.DataFrame:
    """Return for each perturbation which null its p-value is taken from, and the smallest p it can reach.

    ``plate``: its wells are ranked among the negative controls of their own plates, which does not depend on the
    normalisation. ``pooled``: its wells (their mean on each plate) are ranked among those of all plates, which presumes
    that normalised scores of different plates are comparable, and reaches far smaller p-values. ``auto`` takes the
    first where it suffices: where that perturbation could be called even if it were the only hit, that is, its smallest
    p is at most `fdr` / `n_tests`. The choice depends on the layout alone, never on a score.

    Parameters
    ----------
    cells
        ``perturbation`` (number), ``plate`` (number), ``n``: wells of a perturbation on a plate.
    n_negative
        (plates,) negative controls.
    rest
        How many controls of a plate must remain beside a group of the pooled null.
    n_tests
        Perturbations and phenotypes tested.
    fdr
        The requested false discovery rate.
    null
        ``auto``, ``plate`` or ``pooled``.

    Returns
    -------
    choice
        Indexed by perturbation: ``pooled`` (bool) and ``smallest_p``, 1 where there is nothing to rank among.
    """
    own = cells["n"].to_numpy()
    around = n_negative[cells["plate"].to_numpy()]
    plate = log_smallest_p(around, own)
    by_size = cells.groupby(["perturbation", "n"], sort=True).size()
    size = by_size.index.get_level_values("n").to_numpy()
    sizes, place = np.unique(size, return_inverse=True)
    pooled = pd.Series(
        log_smallest_p(group_counts(n_negative, sizes, rest)[place], by_size.to_numpy()),
        index=by_size.index.get_level_values("perturbation"),
    )
    choice = pd.DataFrame(
        {
            "plate": pd.Series(plate).groupby(cells["perturbation"].to_numpy()).sum(),
            "pooled": pooled.groupby(level=0).sum(),
        }
    )
    suffices = (choice["plate"] <= np.log(fdr / max(n_tests, 1))) | (choice["plate"] <= choice["pooled"])
    take_pooled = ~suffices if null == "auto" else pd.Series(null == "pooled", index=choice.index)
    log_p = choice["pooled"].where(take_pooled, choice["plate"])
    return pd.DataFrame({"pooled": take_pooled, "smallest_p": np.exp(log_p)})


def false_discovery_q(p: Array) -> Array:
    """Return the Benjamini-Hochberg q of each p (1995); NaN stays NaN and counts as no test."""
    q = np.full(len(p), np.nan)
    tested = np.isfinite(p)
    if tested.any():
        q[tested] = false_discovery_control(p[tested], method="bh")
    return q


def _cells(perturbation: Numbers, plate: Numbers) -> pd.DataFrame:
    """Return how many wells a perturbation has on a plate: ``perturbation, plate, n``, sorted."""
    wells = pd.DataFrame({"perturbation": perturbation, "plate": plate})
    return wells.groupby(["perturbation", "plate"]).size().rename("n").reset_index()
