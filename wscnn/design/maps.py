"""Randomised plate maps: controls spread over rows and columns, replicates at different positions."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from wscnn.core.errors import UserError
from wscnn.core.wells import PLATE_FORMATS, well_name


@dataclass(frozen=True)
class Design:
    """How a screen is laid out.

    Attributes
    ----------
    wells
        Wells of a plate, one of `wscnn.core.wells.PLATE_FORMATS`.
    replicates
        Plates that each perturbation lies on, one well on each.
    negatives, positives
        Control wells on each plate.
    fields
        Fields imaged in each well.
    """

    wells: int
    replicates: int
    negatives: int
    positives: int
    fields: int

    @property
    def samples(self) -> int:
        """Wells of a plate that are left for perturbations."""
        return self.wells - self.negatives - self.positives

    def sets(self, n_perturbations: int) -> int:
        """Return how many plates hold all perturbations once."""
        return -(-n_perturbations // self.samples)


def make_layout(perturbations: pd.DataFrame, design: Design, controls: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return a layout with one row per well that is used.

    Parameters
    ----------
    perturbations
        ``perturbation`` and any further columns, one row per perturbation.
    design
        How the screen is laid out.
    controls
        ``perturbation, role, phenotype`` of the negative and of the positive control, in this order.
    seed
        Draws all positions.

    Returns
    -------
    layout
        ``plate, well, perturbation, role, phenotype`` and the further columns, sorted by plate and well. Plates are
        named ``S1R1`` for replicate 1 of set 1. No perturbation lies at one position on two of its plates, unless
        fewer positions than replicates are left for samples.

    Raises
    ------
    UserError
        When controls leave no well for a sample.
    """
    if design.samples < 1:
        raise UserError(
            f"{design.negatives} negative and {design.positives} positive controls leave no well of {design.wells} for "
            "a sample; ask for fewer controls, or larger plates"
        )
    rng = np.random.default_rng(seed)
    columns = PLATE_FORMATS[design.wells][1]
    names = np.array([well_name(well // columns, well % columns) for well in range(design.wells)])
    n_sets = design.sets(len(perturbations))
    # Sets of nearly equal size, drawn at random.
    members = np.array_split(rng.permutation(len(perturbations)), n_sets)
    plates = []
    for number, own in enumerate(members, start=1):
        taken: list[np.ndarray] = []
        for replicate in range(1, design.replicates + 1):
            negative, positive = spread_controls(design, rng)
            free = np.setdiff1d(np.arange(design.wells), np.concatenate([negative, positive]))
            wells = _elsewhere(free, len(own), taken, rng)
            taken.append(wells)
            parts = [
                controls.iloc[[0] * len(negative)],
                controls.iloc[[1] * len(positive)],
                perturbations.iloc[own].assign(role="sample", phenotype=""),
            ]
            table = pd.concat(parts, ignore_index=True)
            at = np.concatenate([negative, positive, wells])
            order = np.argsort(at)
            plates.append(table.assign(plate=f"S{number}R{replicate}", well=names[at]).iloc[order])
    layout = pd.concat(plates, ignore_index=True)
    first = ["plate", "well", "perturbation", "role", "phenotype"]
    return layout[[*first, *(name for name in layout.columns if name not in first)]]


def spread_controls(design: Design, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the wells of negative and of positive controls, each spread evenly over rows and columns.

    Wells are taken one by one at random from those in the rows and columns that hold the fewest of their class;
    positives take columns that hold a negative first, so that no class has columns of its own.
    """
    rows, columns = PLATE_FORMATS[design.wells]
    row, column = np.divmod(np.arange(design.wells), columns)
    free = np.ones(design.wells, dtype=bool)
    without = np.zeros(columns)
    found = []
    for count in (design.negatives, design.positives):
        in_row, in_column, chosen = np.zeros(rows), np.zeros(columns), []
        for _ in range(count):
            crowded = in_row[row] / columns + in_column[column] / rows + without[column] / design.wells
            crowded[~free] = np.inf
            well = int(rng.choice(np.flatnonzero(crowded <= crowded.min() + 1e-12)))
            free[well] = False
            in_row[row[well]] += 1
            in_column[column[well]] += 1
            chosen.append(well)
        without = (in_column == 0).astype(float)
        found.append(np.array(chosen, dtype=np.int64))
    return found[0], found[1]


def _elsewhere(free: np.ndarray, n: int, taken: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Return `n` of the wells `free` in random order, none where the same entry of an array of `taken` has it."""
    wells = rng.permutation(free)
    before = np.stack(taken, axis=1) if taken else np.empty((n, 0), dtype=np.int64)
    if before.shape[1] >= len(free):
        return wells[:n]
    clash = np.flatnonzero((wells[:n, None] == before).any(axis=1))
    while len(clash):
        one, other = int(clash[0]), int(rng.integers(len(wells)))
        trial = wells.copy()
        trial[[one, other]] = trial[[other, one]]
        kept = not (trial[one] == before[one]).any() and (other >= n or not (trial[other] == before[other]).any())
        if kept:
            wells = trial
            clash = np.flatnonzero((wells[:n, None] == before).any(axis=1))
    return wells[:n]
