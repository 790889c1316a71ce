"""Thresholds of fields and of detector positions, chosen on validation wells."""

import numpy as np
from scipy.ndimage import maximum_filter

#: Objects that a negative field holds on average, at most, at the threshold for places ...
_FALSE_OBJECTS = 0.1


#: ... or this share of those that a positive field holds, where that is more: negative wells hold rare cells too.
_FALSE_SHARE = 0.05


def field_threshold(negative: np.ndarray, positive: np.ndarray) -> float:
    """Return the log-odds above which the mean of true positive and true negative rate is highest.

    Cuts lie a quarter of the way from one value to the next, since samples hold fewer rare cells than positive controls
    and so score between the two; of several that do as well, the middle one.
    """
    values = np.unique(np.concatenate([negative, positive]))
    cuts = values[:-1] + np.diff(values) / 4 if len(values) > 1 else values
    rate = (positive[None] > cuts[:, None]).mean(1) + (negative[None] <= cuts[:, None]).mean(1)
    best = cuts[np.isclose(rate, rate.max())]
    return float(best[len(best) // 2])


def place_threshold(negative: np.ndarray, positive: np.ndarray) -> float:
    """Return the detector's value above which a place belongs to an object.

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
