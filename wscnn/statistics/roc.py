"""Areas under the ROC curve and their standard errors."""

import numpy as np


def auc(negative: np.ndarray, positive: np.ndarray) -> float:
    """Return the chance that a positive scores above a negative, ties counting half; NaN where a side is empty."""
    if not len(negative) or not len(positive):
        return float("nan")
    ranked = np.sort(negative)
    below = np.searchsorted(ranked, positive, "left") + np.searchsorted(ranked, positive, "right")
    return float(below.mean() / 2 / len(negative))


def auc_error(area: float, n_negative: float, n_positive: float) -> float:
    """Return the standard error of an AUC (Hanley and McNeil, Radiology 1982)."""
    two_positive, two_negative = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (
        area * (1 - area) + (n_positive - 1) * (two_positive - area**2) + (n_negative - 1) * (two_negative - area**2)
    )
    return float(np.sqrt(variance / (n_negative * n_positive)))
