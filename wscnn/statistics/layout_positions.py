"""Problems of a layout's positions: replicates that share them, and classes that have columns of their own."""

import numpy as np
import pandas as pd

from wscnn.statistics.cautions import Caution
from wscnn.statistics.shared_positions import FEWEST_POSITIONS, sharing


def position_cautions(layout: pd.DataFrame) -> list[Caution]:
    """Return how the positions of a layout affect the calls.

    Parameters
    ----------
    layout
        ``plate, well_row, well_column, perturbation, role``, one row per well.
    """
    return [*_shared(layout), *_confounded(layout)]


def _shared(layout: pd.DataFrame) -> list[Caution]:
    """Return that replicates share a position on all of their plates, and how the statistics allow for it."""
    samples = layout[layout["role"] == "sample"]
    number, names = pd.factorize(samples["perturbation"])
    position = samples.groupby(["well_row", "well_column"]).ngroup().to_numpy().astype(np.int64)
    shared = sharing(number, position, len(names))
    if not shared.any():
        return []
    plates = samples[shared[number]].groupby("perturbation")["plate"].nunique().max()
    negatives = layout[layout["role"] == "negative"].drop_duplicates(["plate", "well_row", "well_column"])
    on = negatives.groupby(["well_row", "well_column"])["plate"].nunique()
    n = int((on == layout["plate"].nunique()).sum()) or int((on >= plates).sum())
    cost = (
        f"q then uses the larger of p and p_position, which takes {n} control positions as the units (by rank alone it "
        f"could not fall below 1/{n + 1})"
        if n >= FEWEST_POSITIONS
        else "fewer than three positions hold negative controls on all of these plates, so that p cannot allow for it"
    )
    return [
        Caution(
            "shared_positions",
            f"the replicates of {int(shared.sum())} of {len(names)} perturbations share a position over plates, "
            f"so that an effect of that position acts on all of them: {plates} plates count as one; {cost}; randomise "
            "positions on each plate",
        )
    ]


def _confounded(layout: pd.DataFrame) -> list[Caution]:
    """Return that positive and negative controls share no column, so that a network may learn the column."""
    of = {role: set(layout.loc[layout["role"] == role, "well_column"]) for role in ("negative", "positive")}
    if not all(of.values()) or of["negative"] & of["positive"]:
        return []
    return [
        Caution(
            "confounded",
            "no column holds both positive and negative controls: any effect of a column on cells looks like the "
            "phenotype, also in the figures of held-out wells; no statistics can undo this; spread the controls",
        )
    ]
