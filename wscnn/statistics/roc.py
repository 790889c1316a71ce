"""Areas under the ROC curve (AUC), their standard errors, and the curve itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from wscnn.statistics.arrays import Array

if TYPE_CHECKING:
    from torch import Tensor


def auc(negative: np.ndarray, positive: np.ndarray) -> float:
    """Return the AUC: the chance that a positive scores above a negative, ties counting half.

    NaN where a side is empty. Scores are finite.
    """
    if not len(negative) or not len(positive):
        return float("nan")
    return pairs_won(negative, positive) / (len(negative) * len(positive))


def pairs_won(negative: np.ndarray, positive: np.ndarray) -> float:
    """Return in how many pairs the positive scores above the negative, ties counting half. Scores are finite."""
    ranked = np.sort(negative)
    # Exact: twice the number of pairs is an integer.
    twice = np.searchsorted(ranked, positive, "left") + np.searchsorted(ranked, positive, "right")
    return float(twice.sum() / 2)


def auc_of_rows(negatives: Array, positives: Array) -> Array:
    """Return the AUC of each row of scores, which are padded with NaN."""
    pairs = zip(negatives, positives, strict=True)
    return np.array([auc(low[np.isfinite(low)], high[np.isfinite(high)]) for low, high in pairs], dtype=np.float64)


def auc_error(value: float, n_negative: float, n_positive: float) -> float:
    """Return the standard error of an AUC (Hanley and McNeil, Radiology 1982)."""
    two_positive, two_negative = value / (2 - value), 2 * value**2 / (1 + value)
    variance = (
        value * (1 - value)
        + (n_positive - 1) * (two_positive - value**2)
        + (n_negative - 1) * (two_negative - value**2)
    )
    return float(np.sqrt(variance / (n_negative * n_positive)))


def roc_curve(scores: np.ndarray, positive: np.ndarray) -> pd.DataFrame:
    """Return the ROC curve: ``fpr, tpr, step``, one row per distinct score, from the highest, after (0, 0).

    Parameters
    ----------
    scores, positive
        Shape (n,): finite scores, and whether each is of a positive; both kinds occur.
    """
    counts = pd.DataFrame({"score": scores, "tp": positive, "fp": ~positive})
    by_score = counts.groupby("score")[["tp", "fp"]].sum()[::-1].cumsum()
    tpr = np.concatenate([[0.0], by_score["tp"] / positive.sum()])
    fpr = np.concatenate([[0.0], by_score["fp"] / (~positive).sum()])
    return pd.DataFrame({"fpr": fpr, "tpr": tpr, "step": np.arange(len(fpr))})


def partial_auc(scores: Tensor, positive: Tensor, highest: float, fewest: int) -> Tensor:
    """Return the partial AUC of each column of scores, over the lowest false positive rates, on the scores' device.

    It is scaled so that 0.5 is chance and 1 is perfect (McClish, Medical Decision Making 1989).

    Parameters
    ----------
    scores
        Shape (n, columns).
    positive
        Shape (n,): whether each row is of a positive.
    highest
        The false positive rate up to which the curve counts.
    fewest
        Negatives that count at least.
    """
    # torch takes seconds to import and is needed only here.
    import torch

    negative = scores[~positive]
    top = negative.topk(min(len(negative), max(fewest, round(highest * len(negative)))), dim=0).values
    value = torch.stack([(scores[positive] > score).float().mean(0) for score in top]).mean(0)
    chance = (len(top) + 1) / 2 / (len(negative) + 1)
    return 0.5 + 0.5 * (value - chance) / (1 - chance)
