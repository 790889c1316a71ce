"""Calibration: how often predictions of some probability come true."""

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit

#: Groups of fields by predicted probability.
GROUPS = 10


def fit_probability(negative: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """Return slope and offset that turn a score into a probability: the logistic of slope * score + offset.

    By Platt, "Probabilistic outputs for support vector machines" (1999): the maximum-likelihood pair, with labels
    shrunk slightly (by one pseudo-count each), so that it is finite where a score separates the classes. The slope is
    not below 0.

    Parameters
    ----------
    negative, positive
        Scores of both classes, (n,) and (m,); neither empty.
    """
    scores = np.concatenate([negative, positive]).astype(float)
    middle, spread = scores.mean(), scores.std() or 1.0
    standard = (scores - middle) / spread
    low, high = 1 / (len(negative) + 2), (len(positive) + 1) / (len(positive) + 2)
    targets = np.repeat([low, high], [len(negative), len(positive)])

    def loss(pair: np.ndarray) -> tuple[float, np.ndarray]:
        logit = pair[0] * standard + pair[1]
        difference = expit(logit) - targets
        gradient = np.array([(difference * standard).sum(), difference.sum()])
        return float((np.logaddexp(0, logit) - targets * logit).sum()), gradient

    slope, offset = minimize(loss, [1.0, 0.0], jac=True, bounds=[(0, None), (None, None)]).x
    return float(slope / spread), float(offset - slope * middle / spread)


def probability(scores: np.ndarray, slope: float | np.ndarray, offset: float | np.ndarray) -> np.ndarray:
    """Return scores as probabilities that a field is of a positive well, same shape; see `fit_probability`."""
    return np.asarray(expit(slope * scores + offset))


def reliability(predicted: np.ndarray, positive: np.ndarray) -> pd.DataFrame:
    """Return the points of a reliability diagram: predictions in groups of equal size, the lowest first.

    Parameters
    ----------
    predicted, positive
        Probabilities, and whether each came true, (n,).

    Returns
    -------
    table
        One row per group, at most ten: ``group`` (from 1), ``predicted`` (mean), ``observed`` (share), ``n``.
    """
    table = pd.DataFrame({"predicted": np.asarray(predicted, float), "observed": np.asarray(positive, float), "n": 1})
    # Ranks first: equal predictions must not make one group larger than another.
    rank = table["predicted"].rank(method="first")
    table["group"] = np.ceil(rank * min(GROUPS, len(table)) / max(len(table), 1)).astype(int)
    groups = table.groupby("group")
    return groups.agg(predicted=("predicted", "mean"), observed=("observed", "mean"), n=("n", "sum")).reset_index()
