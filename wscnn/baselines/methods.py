"""Simple methods that score wells from features of their nuclei.

All use the same cells, standardised on each plate by its negative controls, and the same folds: a well is scored by a
model that was trained without it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wscnn.core.robust import MAD_TO_SD

Array = NDArray[np.float64]
Cells = NDArray[np.float32]

# Standardised features are clipped here: single cells may be arbitrarily far out.
_FARTHEST = 10.0
# Quantiles of a feature over the cells of a well, and of the negative controls' cells, beyond which cells are counted.
_QUANTILES = (0.05, 0.5, 0.95)
_TAILS = (0.01, 0.05, 0.95, 0.99)
# Trees, and the fewest wells in a leaf.
_TREES = 500
_LEAF = 2
# Number of neighbours to which the distance of a cell is measured, and the quantile of the held-out negative controls'
# cells beyond which a cell is new.
_NEIGHBOURS = 5
_NEW = 0.99
# Cells whose distances are computed at a time.
_BLOCK = 1024


@dataclass(frozen=True)
class Scale:
    """Scale of features: median and robust standard deviation of the reference, shape (feature,)."""

    centre: Array
    spread: Array

    @classmethod
    def of(cls, reference: Cells) -> "Scale":
        """Return the scale of reference cells, shape (cell, feature); NaN is a missing value."""
        known = np.where(np.isfinite(reference), reference, np.nan)
        # Not `nanmedian`, which is slow where values are missing.
        order = np.sort(known, axis=0)  # NaN at the end
        count = np.isfinite(known).sum(axis=0)
        centre = _middle(order, count)
        deviation = np.sort(np.abs(known - centre), axis=0)
        spread = MAD_TO_SD * _middle(deviation, count)
        with np.errstate(invalid="ignore", divide="ignore"):
            sd = np.sqrt(np.nansum((known - centre) ** 2, axis=0) / np.maximum(count, 1))
        spread = np.where(spread > 0, spread, np.where(sd > 0, sd, 1.0))
        return cls(centre.astype(float), spread.astype(float))

    def __call__(self, cells: Cells) -> Cells:
        """Return standardised features; missing values become the reference's median."""
        with np.errstate(invalid="ignore"):
            standard = (cells - self.centre) / self.spread
        return np.nan_to_num(standard, nan=0.0).clip(-_FARTHEST, _FARTHEST).astype(np.float32)


def _middle(ordered: np.ndarray, count: np.ndarray) -> Array:
    """Return the median of the first `count` values of each column of a sorted array; 0 where there is none."""
    low, high = np.maximum(count - 1, 0) // 2, np.maximum(count, 1) // 2
    columns = np.arange(ordered.shape[1])
    middle = (
        ordered[np.minimum(low, len(ordered) - 1), columns] + ordered[np.minimum(high, len(ordered) - 1), columns]
    ) / 2
    return np.where(count > 0, middle, 0.0)


def tails_of(negatives: Cells) -> Cells:
    """Return the values of each feature beyond which few of the negative controls' cells are: `_TAILS` quantiles."""
    return np.quantile(negatives, _TAILS, axis=0).astype(np.float32)


def profile(cells: Cells, tails: Cells) -> Array:
    """Return a well's profile: mean, standard deviation, quantiles of each feature, and the shares beyond `tails`."""
    low, high = tails[: len(_TAILS) // 2], tails[len(_TAILS) // 2 :]
    parts = [
        cells.mean(axis=0),
        cells.std(axis=0),
        *np.quantile(cells, _QUANTILES, axis=0),
        *((cells < limit).mean(axis=0) for limit in low),
        *((cells > limit).mean(axis=0) for limit in high),
    ]
    return np.concatenate(parts).astype(float)


def forest_scores(
    profiles: Array, train: NDArray[np.bool_], positive: NDArray[np.bool_], seed: int, jobs: int
) -> Array:
    """Return the log-odds by a random forest that each well is of a positive control.

    Parameters
    ----------
    profiles
        Shape (well, number).
    train, positive
        The training wells, and which of them are positive.
    seed
        Seed of the forest.
    jobs
        Cores; results do not depend on it.
    """
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(_TREES, min_samples_leaf=_LEAF, random_state=seed, n_jobs=jobs)
    forest.fit(profiles[train], positive[train])
    # By one thread: several would add up the trees in the order in which they finish.
    forest.n_jobs = 1
    share = forest.predict_proba(profiles)[:, 1]
    # One more tree on each side, so that no log-odds are infinite.
    return np.log((share * _TREES + 1) / ((1 - share) * _TREES + 1))


class Novelty:
    """Distance of cells from the nearest cells of negative controls.

    Parameters
    ----------
    negatives
        Standardised cells of negative control wells, shape (cell, feature).
    """

    def __init__(self, negatives: Cells) -> None:
        self._known = negatives
        self._square = (negatives**2).sum(axis=1)

    def distance(self, cells: Cells) -> Array:
        """Return the mean distance of each cell to the five nearest."""
        k = min(_NEIGHBOURS, len(self._known))
        found = []
        for start in range(0, len(cells), _BLOCK):
            own = cells[start : start + _BLOCK]
            squares = (own**2).sum(axis=1)[:, None] + self._square - 2 * own @ self._known.T
            nearest = np.sort(np.partition(squares, k - 1, axis=1)[:, :k], axis=1)
            found.append(np.sqrt(np.maximum(nearest, 0)).mean(axis=1, dtype=float))
        return np.concatenate(found) if found else np.zeros(0)

    @staticmethod
    def limit(held_out: Array) -> float:
        """Return the distance beyond which a cell is new, from those of held-out negative controls."""
        return float(np.quantile(held_out, _NEW))


def even_sample(of: NDArray[np.int64], most: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Return which cells to keep: at most `most`, evenly over the wells, in order.

    Parameters
    ----------
    of
        Number of each cell's well.
    most, random
        Number of cells to keep, and the random generator.
    """
    order = random.permutation(len(of))
    order = order[np.argsort(of[order], kind="stable")]
    size = np.bincount(of)[np.unique(of)] if len(of) else np.zeros(0, np.int64)
    turn = np.arange(len(of)) - np.repeat(np.cumsum(size) - size, size)
    return np.sort(order[np.argsort(turn, kind="stable")][:most])
