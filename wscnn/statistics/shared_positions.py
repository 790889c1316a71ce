"""Replicates that share a position over plates: effects of that position act on all of them, so they count as one."""

import numpy as np
import pandas as pd
from scipy.stats import t as t_law

from wscnn.statistics.arrays import Array, Mask, Numbers

#: With fewer control positions than this the variation between positions is unknown.
FEWEST_POSITIONS = 3


def sharing(perturbation: Numbers, position: Numbers, n_perturbations: int) -> Mask:
    """Return which perturbations have at least two wells per position: the same positions on several plates.

    Parameters
    ----------
    perturbation, position
        (wells,) numbers.
    n_perturbations
        How many there are.
    """
    wells = np.bincount(perturbation, minlength=n_perturbations)
    pairs = pd.DataFrame({"of": perturbation, "at": position}).drop_duplicates()
    positions = np.bincount(pairs["of"].to_numpy(), minlength=n_perturbations)
    return (positions > 0) & (wells >= 2 * positions)


def position_p(table: pd.DataFrame, controls: pd.DataFrame, n_perturbations: int) -> tuple[Array, Numbers]:
    """Return the p-value of each perturbation with the position as the unit, and the control positions behind it.

    Over a perturbation's plates the mean z of each control position is taken, as is its own. Its p is by rank among the
    n control positions, which is right whatever their distribution but never below 1 / (n + 1). A mean above all of
    theirs takes the t law of a new observation where that is smaller: (mean - their mean) / (their SD x root(1/k +
    1/n)) with n - 1 degrees of freedom, k being its own positions.

    Parameters
    ----------
    table
        ``perturbation, plate, position, z`` of the wells of perturbations that share positions.
    controls
        ``plate, position, z`` of the negative controls.
    n_perturbations
        How many there are.

    Returns
    -------
    p, n_positions
        (n_perturbations,) each; NaN and 0 where the perturbation is not in `table`, or where fewer than three
        positions hold a negative control on all of its plates.
    """
    p, n_positions = np.full(n_perturbations, np.nan), np.zeros(n_perturbations, dtype=np.int64)
    grid = _grid(controls)
    plates: dict[tuple[int, ...], list[int]] = {}
    for of, values in zip(*_grouped(table), strict=True):
        plates.setdefault(values, []).append(of)
    own = table.groupby(["perturbation", "position"])["z"].mean().groupby("perturbation").agg(["mean", "size"])
    for on, members in plates.items():
        means = grid.reindex(columns=pd.Index(on)).dropna().mean(axis=1).to_numpy()
        number = np.array(members, dtype=np.int64)
        found = _against(own.loc[number, "mean"].to_numpy(), own.loc[number, "size"].to_numpy(), means)
        if found is not None:
            p[number], n_positions[number] = found, len(means)
    return p, n_positions


def control_position_p(controls: pd.DataFrame) -> pd.Series:
    """Return the p-value of each control position among the others, as `position_p` compares a sample's.

    Parameters
    ----------
    controls
        ``plate, position, z`` of the negative controls.

    Returns
    -------
    p
        Indexed by position; NaN where fewer than three others hold a control on all of its plates.
    """
    grid = _grid(controls)
    values = grid.to_numpy()
    p = np.full(len(grid), np.nan)
    for unit, own in enumerate(values):
        on = np.isfinite(own)
        others = np.delete(values, unit, axis=0)[:, on].mean(axis=1)
        found = _against(own[on].mean(keepdims=True), np.ones(1), others[np.isfinite(others)])
        if found is not None:
            p[unit] = found[0]
    return pd.Series(p, index=grid.index)


def _grid(controls: pd.DataFrame) -> pd.DataFrame:
    """Return the mean z of controls by position and plate."""
    return controls.pivot_table(index="position", columns="plate", values="z")


def _against(mean: Array, k: Array, means: Array) -> Array | None:
    """Return the p-values of means over `k` positions among control positions; None where too few of these differ."""
    n = len(means)
    deviation = means.std(ddof=1) if n >= FEWEST_POSITIONS else 0.0
    if not deviation > 0:
        return None
    rank = ((means >= mean[:, None]).sum(axis=1) + 1) / (n + 1)
    beyond = t_law.sf((mean - means.mean()) / (deviation * np.sqrt(1 / k + 1 / n)), n - 1)
    return np.asarray(np.where(rank > 1 / (n + 1), rank, np.minimum(rank, beyond)))


def _grouped(table: pd.DataFrame) -> tuple[list[int], list[tuple[int, ...]]]:
    """Return the perturbations of a table, and the plates of each, sorted."""
    pairs = table[["perturbation", "plate"]].drop_duplicates().sort_values(["perturbation", "plate"])
    number, plate = pairs["perturbation"].to_numpy(dtype=np.int64), pairs["plate"].to_numpy(dtype=np.int64)
    if not len(pairs):
        return [], []
    of, starts = np.unique(number, return_index=True)
    return of.tolist(), [tuple(part.tolist()) for part in np.split(plate, starts[1:])]
