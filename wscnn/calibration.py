"""Calibration: how often what was predicted with some probability is so."""

import numpy as np
import pandas as pd
from scipy.special import expit

#: Groups of fields by predicted probability.
GROUPS = 10


def probability(scores: np.ndarray, score_pool: str) -> np.ndarray:
    """Return what a network's scores of fields say as probabilities that the phenotype is there, same shape.

    Parameters
    ----------
    scores
        Log-odds; from the pool ``count`` the logarithm of the expected number of positive places.
    score_pool
        The network's.
    """
    # Of an expected number of cells: that there is one at all is what is predicted (Poisson).
    return -np.expm1(-np.exp(scores)) if score_pool == "count" else expit(scores)


def reliability(predicted: np.ndarray, positive: np.ndarray) -> pd.DataFrame:
    """Return the points of a reliability diagram: predictions in groups of equal size, the lowest first.

    Parameters
    ----------
    predicted, positive
        Probabilities, and whether it is so, (n,).

    Returns
    -------
    table
        A row a group, ten at most: ``group`` (from 1), ``predicted`` (mean), ``observed`` (share), ``n``.
    """
    table = pd.DataFrame({"predicted": np.asarray(predicted, float), "observed": np.asarray(positive, float), "n": 1})
    # Ranks first: equal predictions must not make one group larger than another.
    rank = table["predicted"].rank(method="first")
    table["group"] = np.ceil(rank * min(GROUPS, len(table)) / max(len(table), 1)).astype(int)
    groups = table.groupby("group")
    return groups.agg(predicted=("predicted", "mean"), observed=("observed", "mean"), n=("n", "sum")).reset_index()
