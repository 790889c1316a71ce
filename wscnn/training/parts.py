"""The three parts of the control wells, for training, validation and test of the folds."""

import numpy as np
import pandas as pd

from wscnn.core.errors import UserError, listed
from wscnn.network.card import PARTS

#: The class of negative controls.
NEGATIVE = "negative"

#: Random divisions of plates or batches into parts, of which the most even one is taken.
_DIVISIONS = 200


def assign_parts(controls: pd.DataFrame, seed: int, hold_out: str = "well") -> pd.Series:
    """Return the part (0, 1 or 2) of each control well, balanced over classes and over the plates of each.

    All fields of a well are in one part. Fold k is trained on part k, validated on part k + 1 and tested on part k + 2
    (modulo 3).

    Parameters
    ----------
    controls
        Columns ``plate, well, role, phenotype``, and ``batch`` where `hold_out` is ``batch``.
    seed
        Seed of the assignment, which does not depend on the order of the rows.
    hold_out
        What is in one part as a whole: each ``well``, each ``plate``, or all plates of a ``batch``.

    Raises
    ------
    UserError
        When there are fewer than two classes, a class has fewer than three wells, or fewer than three plates or batches
        hold negative controls and positive controls of each phenotype.
    """
    table = controls.assign(label=class_of(controls)).sort_values(["label", "plate", "well"])
    counts = table["label"].value_counts().sort_index()
    problems = [
        f"layout: class '{label}' has {count} control wells, but needs at least {len(PARTS)}: one each for training, "
        "validation and test"
        for label, count in counts.items()
        if count < len(PARTS)
    ]
    if NEGATIVE not in counts:
        problems.append("layout: there is no negative control well; training needs wells of role negative")
    if set(counts.index) <= {NEGATIVE}:
        problems.append("layout: there is no positive control well; training needs wells of role positive")
    if not problems and hold_out != "well":
        problems = group_problems(controls, hold_out)
    if problems:
        raise UserError(problems)
    random = np.random.default_rng(seed)
    if hold_out != "well":
        return _parts_of_groups(table, hold_out, random).reindex(controls.index)
    parts = pd.Series(0, index=table.index, name="part")
    for _, wells in table.groupby("label"):
        # The assignment continues from plate to plate, so that the parts of a class differ by at most one well.
        order = [index for _, group in wells.groupby("plate") for index in random.permutation(group.index)]
        parts[order] = (np.arange(len(order)) + random.integers(len(PARTS))) % len(PARTS)
    return parts.reindex(controls.index)


def class_of(controls: pd.DataFrame) -> pd.Series:
    """Return the class of each control well: ``negative`` or its phenotype."""
    return controls["phenotype"].where(controls["role"] == "positive", NEGATIVE)


def group_problems(controls: pd.DataFrame, hold_out: str) -> list[str]:
    """Return why whole plates or batches of these control wells cannot be held out.

    Parameters
    ----------
    controls, hold_out
        As of `assign_parts`; `hold_out` is ``plate`` or ``batch``.
    """
    many = {"plate": "plates", "batch": "batches"}[hold_out]
    if hold_out == "batch":
        unnamed = sorted(set(controls.loc[controls["batch"] == "", "plate"]))
        if unnamed:
            return [
                f"train.hold_out: batch, but the table of plates gives no batch for plate {listed(unnamed, 5)}; fill "
                "in its column batch, or hold out plates or wells"
            ]
    wells = pd.crosstab(controls[hold_out], class_of(controls))
    problems = []
    for phenotype in sorted(set(wells.columns) - {NEGATIVE}):
        both = (wells.reindex(columns=[NEGATIVE, phenotype], fill_value=0) > 0).all(axis=1)
        if both.sum() < len(PARTS):
            problems.append(
                f"train.hold_out: {hold_out} needs at least {len(PARTS)} {many} that hold both negative controls and "
                f"positive controls of '{phenotype}', one each for training, validation and test, but there are "
                f"{both.sum()}; hold out wells (train.hold_out: well), or add {many}"
            )
    return problems


def _parts_of_groups(table: pd.DataFrame, hold_out: str, random: np.random.Generator) -> pd.Series:
    """Return the part of each control well, with all wells of a plate or batch in one part."""
    wells = pd.crosstab(table[hold_out], table["label"])
    share = (wells / wells.sum()).to_numpy()
    best, most_even = np.zeros(len(wells), dtype=np.int64), -1.0
    for _ in range(_DIVISIONS):
        parts = random.permutation(np.arange(len(wells)) % len(PARTS))
        smallest = min(float(share[parts == part].sum(axis=0).min()) for part in range(len(PARTS)))
        if smallest > most_even:
            best, most_even = parts, smallest
    if most_even <= 0:
        raise UserError(
            f"train.hold_out: {hold_out}: no division into {len(PARTS)} parts was found in which each part holds "
            "controls of every class; hold out wells (train.hold_out: well)"
        )
    return table[hold_out].map(dict(zip(wells.index, best.tolist(), strict=True))).rename("part")
