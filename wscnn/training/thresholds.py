"""Thresholds of fields and of detector positions, chosen on validation wells."""

import numpy as np
from scipy.ndimage import maximum_filter
from scipy.stats import gaussian_kde, norm

#: At the threshold for positions, a negative field holds at most this many objects on average ...
_FALSE_OBJECTS = 0.1
#: ... or this fraction of those in a positive field, where that is more: negative wells hold rare cells, too.
_FALSE_SHARE = 0.05
#: The same fraction where objects are cells.
_FALSE_CELLS = 0.1
#: Rounds in which the share of rare cells is fitted, and the fewest cells to fit it to.
_ROUNDS, _FEWEST = 200, 50


def field_threshold(negative: np.ndarray, positive: np.ndarray) -> float:
    """Return the log-odds above which the mean of true positive and true negative rate is highest.

    Cuts lie a quarter of the way from one value to the next, since samples hold fewer rare cells than positive controls
    and so score between the two; of several equally good ones, the middle one.
    """
    values = np.unique(np.concatenate([negative, positive]))
    cuts = values[:-1] + np.diff(values) / 4 if len(values) > 1 else values
    rate = (positive[None] > cuts[:, None]).mean(1) + (negative[None] <= cuts[:, None]).mean(1)
    best = cuts[np.isclose(rate, rate.max())]
    return float(best[len(best) // 2])


def place_threshold(negative: np.ndarray, positive: np.ndarray) -> float:
    """Return the detector's value above which a position belongs to an object.

    The lowest at which a negative field holds at most 0.1 objects on average, or 1/20 of those that a positive field
    holds where that is more, but no less than 0 (even odds). Objects are counted as peaks of the maps (n, h', w').
    """
    false, true = np.sort(_peaks(negative)), np.sort(_peaks(positive))
    cuts = np.concatenate([[0.0], false[false > 0]])
    false_objects = (len(false) - np.searchsorted(false, cuts, "right")) / len(negative)
    true_objects = (len(true) - np.searchsorted(true, cuts, "right")) / len(positive)
    fine = false_objects <= np.maximum(_FALSE_OBJECTS, _FALSE_SHARE * true_objects)
    return float(cuts[np.argmax(fine)])


def _peaks(maps: np.ndarray) -> np.ndarray:
    """Return the values of maps (n, h', w') where no neighbour is higher."""
    return maps[maps == maximum_filter(maps, size=(1, 3, 3))]


def cell_threshold(negative: list[np.ndarray], positive: list[np.ndarray]) -> float:
    """Return the score above which a cell is an object.

    The lowest at which a negative field holds at most 0.1 such cells on average, or 1/10 of those that a positive field
    holds where that is more.

    Parameters
    ----------
    negative, positive
        Scores of the cells of each field.
    """
    false, true = (np.sort(np.concatenate([np.empty(0), *fields])) for fields in (negative, positive))
    if not len(false):
        return 0.0
    n_false = (len(false) - np.searchsorted(false, false, "right")) / len(negative)
    n_true = (len(true) - np.searchsorted(true, false, "right")) / len(positive)
    return float(false[np.argmax(n_false <= np.maximum(_FALSE_OBJECTS, _FALSE_CELLS * n_true))])


def recall(negative: np.ndarray, positive: np.ndarray, threshold: float) -> float:
    """Return the share of rare cells that score above a threshold; NaN where there are too few cells to fit.

    Cells of positive wells are a mixture of those that negative wells hold, whose density is known from these, and of
    rare ones, whose scores are assumed to be normal; share, mean and deviation are fitted by expectation-maximisation.

    Parameters
    ----------
    negative, positive
        Scores of cells, (n,) and (m,).
    threshold
        The score.
    """
    if min(len(negative), len(positive)) < _FEWEST or np.ptp(negative) == 0:
        return float("nan")
    grid = np.linspace(min(negative.min(), positive.min()), max(negative.max(), positive.max()), 1024)
    ordinary = np.interp(positive, grid, gaussian_kde(negative)(grid)) + 1e-9
    share, middle, spread = 0.1, float(np.quantile(positive, 0.95)), float(negative.std())
    least = 0.1 * spread
    for _ in range(_ROUNDS):
        rare = share * norm.pdf(positive, middle, spread)
        weight = rare / (rare + (1 - share) * ordinary)
        total = weight.sum()
        if total < 1:
            return float("nan")
        share = total / len(positive)
        middle = float((weight * positive).sum() / total)
        spread = max(float(np.sqrt((weight * (positive - middle) ** 2).sum() / total)), least)
    return float(norm.sf(threshold, middle, spread))
