"""The chart of effect against significance: its points, their labels, its lines and its ranges."""

from typing import Any

import numpy as np
import pandas as pd

from wscnn.core.wells import DISCOVERED

# Most hits whose names are written into the chart, where there is room.
_LABELLED_HITS = 10


def volcano_rows(hits: pd.DataFrame, fdr: float) -> pd.DataFrame:
    """Return the hit table with what the chart shows of it.

    Returns
    -------
    table
        With ``group``, by which points are coloured; ``label``, whether the name is written there; and the same for
        all rows of a phenotype ``p_called`` and ``p_reachable``, those of `thresholds`.
    """
    role = _role(hits)
    called = hits["hit"].astype("bool") & (role == "sample")
    group = np.where(called, "hit", "not a hit")
    group = np.where(role == "positive", "positive control", group)
    label = pd.Series(False, index=hits.index)
    for _, same in hits[called].groupby("phenotype"):
        label[_uncrowded(same.sort_values("rank").head(_LABELLED_HITS), hits)] = True
    lines = thresholds(hits, fdr).set_index("phenotype")
    return hits.assign(
        group=group,
        label=label,
        p_called=hits["phenotype"].map(lines["p_called"]).astype("float64"),
        p_reachable=hits["phenotype"].map(lines["p_reachable"]).astype("float64"),
    )


def thresholds(hits: pd.DataFrame, fdr: float) -> pd.DataFrame:
    """Return the two p-values at which lines are drawn, one row per phenotype.

    Returns
    -------
    table
        ``phenotype``; ``p_called``, the largest p of a hit, by the procedure of Benjamini and Hochberg, or where there
        is no hit the p below which a single one would be called; and ``p_reachable``, the smallest p that any
        perturbation could reach. Both are missing where nothing was tested.
    """
    tested = hits[(_role(hits) == "sample") & hits["q"].notna()]
    tested = tested.assign(
        taken=tested.reindex(columns=["p", "p_position"]).max(axis=1), family=tested["phenotype"].isin(DISCOVERED)
    )
    rows = []
    for phenotype in sorted(hits["phenotype"].unique()):
        family = tested[tested["family"] == (phenotype in DISCOVERED)]
        called = family.loc[family["hit"].astype("bool"), "taken"]
        own = tested[tested["phenotype"] == phenotype].reindex(columns=["smallest_p"])
        single = fdr / len(family) if len(family) else np.nan
        rows.append((phenotype, called.max() if len(called) else single, own["smallest_p"].min()))
    return pd.DataFrame(rows, columns=["phenotype", "p_called", "p_reachable"])


def sample_ranges(hits: pd.DataFrame) -> tuple[list[float], list[float]]:
    """Return the ranges of effect and of significance that hold every sample."""
    samples = hits[_role(hits) == "sample"].dropna(subset=["effect", "p"])
    effects = [min(samples["effect"].min(), -1.0), max(samples["effect"].max(), 1.0)] if len(samples) else [-1.0, 1.0]
    margin = 0.08 * (effects[1] - effects[0])
    top = -np.log10(samples["p"].min()) if len(samples) else 1.0
    return [effects[0] - margin, effects[1] + margin], [0.0, 1.08 * max(top, 1.0)]


def _role(hits: pd.DataFrame) -> pd.Series:
    return hits["role"] if "role" in hits else pd.Series("sample", index=hits.index)


def _uncrowded(ranked: pd.DataFrame, hits: pd.DataFrame) -> list[Any]:
    """Return the labels of those rows of `ranked` whose names do not overlap an earlier one, in the chart of `hits`."""
    x, y = ranked["effect"], -np.log10(ranked["p"])
    width, height = (np.ptp(limits) for limits in sample_ranges(hits))
    chosen: list[Any] = []
    for index in ranked.index:
        if all(abs(x[index] - x[i]) > 0.2 * width or abs(y[index] - y[i]) > 0.035 * height for i in chosen):
            chosen.append(index)
    return chosen
