"""The wells of one phenotype as arrays: scores, normalised scores and null distributions."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from wscnn.core.wells import plate_format
from wscnn.statistics.arrays import Array, Mask, Numbers
from wscnn.statistics.normalize import (
    FITTED,
    bscore,
    by_group,
    centre_and_scale,
    held_out_groups,
    informative_lines,
    median,
    surface_score,
)
from wscnn.statistics.position import Choice, choose


@dataclass(frozen=True)
class Phenotype:
    """The wells of one phenotype as arrays (wells,), and how they are normalised.

    Attributes
    ----------
    score
        Scores, NaN where missing.
    plate, row, column
        Number of the plate, and position on it from 0.
    perturbation
        Number of the perturbation and role; -1 for wells without one (negative controls, excluded wells).
    names
        Perturbation and role by that number.
    negative, positive, sample
        Masks; `positive` holds the controls of this phenotype alone.
    usable
        (plates,) those that count for calls.
    settings
        The config's section ``hits``.
    """

    score: Array
    plate: Numbers
    row: Numbers
    column: Numbers
    perturbation: Numbers
    names: pd.DataFrame
    negative: Mask
    positive: Mask
    sample: Mask
    usable: Mask
    settings: dict[str, Any]

    @classmethod
    def of(cls, part: pd.DataFrame, phenotype: str, plates: pd.Index, settings: dict[str, Any]) -> "Phenotype":
        """Return the rows `part` of a checked table of wells as arrays."""
        role = part["role"]
        tested = role.isin(["sample", "positive"]).to_numpy()
        number = np.full(len(part), -1)
        own = ["perturbation", "role"]
        pairs = part.loc[tested, own]
        number[tested] = pairs.groupby(own).ngroup()
        return cls(
            score=part["score"].to_numpy(dtype=float),
            plate=plates.get_indexer(pd.Index(part["plate"])),
            row=part["well_row"].to_numpy(dtype=np.int64),
            column=part["well_column"].to_numpy(dtype=np.int64),
            perturbation=number,
            names=pairs.drop_duplicates().sort_values(own, ignore_index=True).astype("str"),
            negative=role.eq("negative").to_numpy(),
            positive=(role.eq("positive") & part["control_phenotype"].isin(["", phenotype])).to_numpy(),
            sample=role.eq("sample").to_numpy(),
            usable=np.ones(len(plates), dtype=bool),
            settings=settings,
        )

    @property
    def method(self) -> str:
        """The method of normalisation: as set, or as `auto` chose it."""
        asked = self.settings["normalize"]
        return str(asked if asked != "auto" else self.choice.method)

    @cached_property
    def fitted(self) -> Mask:
        """Which wells of whole plates (plates, R, C) show what position does: samples and negatives alike."""
        return np.isfinite(self.grid(self.sample | self.negative))

    @cached_property
    def informative(self) -> tuple[Mask, Mask]:
        """Return which rows and which columns hold enough perturbations to estimate effects of position."""
        table = np.full(self.fitted.shape, -1)
        wells = (self.sample | self.negative) & np.isfinite(self.score)
        # Negative controls are one perturbation, numbered after all others.
        number = np.where(self.negative, len(self.names), self.perturbation)
        table[self.plate[wells], self.row[wells], self.column[wells]] = number[wells]
        return informative_lines(table, 1), informative_lines(table, 2)

    @property
    def uncorrected(self) -> Mask:
        """Wells in a row or column that holds too few perturbations to correct it, where position is corrected."""
        if self.settings["normalize"] not in ("auto", "surface", "bscore"):
            return np.zeros(len(self.score), dtype=bool)
        rows, columns = self.informative
        return ~(rows[self.plate, self.row] & columns[self.plate, self.column])

    @cached_property
    def choice(self) -> Choice:
        """The choice of `auto` for this phenotype, and why."""
        negative = np.isfinite(self.grid(self.negative))
        return choose(self.grid(self.sample | self.negative), self.fitted, negative, *self.informative)

    @cached_property
    def formats(self) -> Numbers:
        """Rows and columns of the smallest standard format that holds each plate's wells, (plates, 2)."""
        last = np.zeros((len(self.usable), 2), dtype=np.int64)
        np.maximum.at(last, self.plate, np.stack([self.row, self.column], axis=1))
        return np.array([plate_format([(int(row), int(column))]) for row, column in last], dtype=np.int64)

    @cached_property
    def border(self) -> Mask:
        """The outermost wells of each plate (plates, R, C)."""
        border = np.zeros((len(self.usable), self.row.max() + 1, self.column.max() + 1), dtype=bool)
        border[:, 0, :] = border[:, :, 0] = True
        for plate, (rows, columns) in enumerate(self.formats):
            border[plate, rows - 1 :, :] = border[plate, :, columns - 1 :] = True
        return border

    def controls(self, values: Array, wells: Mask) -> Array:
        """Return the finite `values` of `wells` as (plates, n), padded with NaN."""
        wells = wells & np.isfinite(values)
        return by_group(values[wells], self.plate[wells], len(self.usable))

    def grid(self, wells: Mask) -> Array:
        """Return the scores of `wells` as whole plates (plates, R, C), NaN elsewhere."""
        grid = np.full((len(self.usable), self.row.max() + 1, self.column.max() + 1), np.nan)
        grid[self.plate[wells], self.row[wells], self.column[wells]] = self.score[wells]
        return grid

    @cached_property
    def base(self) -> Array:
        """What the controls normalise: the scores, or residuals of the plate's fitted wells."""
        if self.method not in FITTED:
            return self.score
        grid = self.grid(np.ones(len(self.score), dtype=bool))
        if self.method == "bscore":
            values = bscore(grid, self.fitted, *self.informative)
        else:
            values = surface_score(grid, self.fitted, *self.informative, flat=self.method == "samples")
        return values[self.plate, self.row, self.column]

    @cached_property
    def positive_median(self) -> Array:
        return median(self.controls(self.base, self.positive))

    @cached_property
    def z(self) -> Array:
        """Normalised scores."""
        centre, scale = centre_and_scale(self.controls(self.base, self.negative), self.positive_median, self.method)
        return (self.base - centre[self.plate]) / scale[self.plate]

    @cached_property
    def used(self) -> Mask:
        """Wells that count: scored, on a usable plate, not excluded."""
        return np.isfinite(self.z) & self.usable[self.plate] & (self.negative | (self.perturbation >= 0))

    def null(self, size: int = 1, most: int | None = None, partition: int = 0) -> Array:
        """Return (plates, n) held-out means of groups of `size` negative controls, NaN where there is none.

        `partition` numbers the ways to divide a plate's controls into groups.
        """
        negatives = self.controls(self.base, self.negative & self.used)
        return held_out_groups(negatives, self.positive_median, self.method, size, most, partition)

    @property
    def position(self) -> Numbers:
        """Number of each well's position, the same on all plates."""
        return self.row * (int(self.column.max()) + 1) + self.column
