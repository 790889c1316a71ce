"""What the hit table says in words: why a perturbation was called or not, and what speaks against trusting its row."""

from collections.abc import Sequence
from itertools import compress

import numpy as np
import pandas as pd

# Fewer independent controls than this make p-values unreliable together.
_FEW_CONTROLS = 8


def row_cautions(perturbations: pd.DataFrame, general: Sequence[str], fdr: float) -> list[str]:
    """Return for each perturbation the cautions about its row, separated by semicolons.

    Parameters
    ----------
    perturbations
        One row per perturbation: ``role, n_wells, n_left_out, n_controls, smallest_p, shared, uncorrected``.
    general
        Cautions about all of them.
    fdr
        The false discovery rate at which hits are called.
    """
    sample = perturbations["role"] == "sample"
    own = {
        "no well counts": perturbations["n_wells"] == 0,
        "few replicates": perturbations["n_wells"] == 1,
        "p cannot reach the FDR": perturbations["smallest_p"] > fdr,
        "plates left out": perturbations["n_left_out"] > 0,
        "shared position": perturbations["shared"] & sample,
        "position not corrected": perturbations["uncorrected"] & sample,
        "few independent controls": perturbations["n_controls"].between(1, _FEW_CONTROLS - 1),
    }
    rows = zip(*own.values(), strict=True)
    return ["; ".join([*compress(own, row), *general]) for row in rows]


def call_reasons(called: pd.DataFrame, fdr: float) -> list[str]:
    """Return for each perturbation, in words, why it is or is not a hit, and which p its q uses.

    What kept it from being called comes first, then what contributed: few replicates, wells on failed plates, lost
    cells.

    Parameters
    ----------
    called
        One row per perturbation and phenotype: ``role, hit, withheld, p, p_position, q, smallest_p, n_wells,
        n_left_out, shared, cell_percent, cell_loss``.
    fdr
        The false discovery rate at which hits are called.
    """
    parts = zip(_verdicts(called, fdr), _circumstances(called), _which_p(called), strict=True)
    return ["; ".join(part for part in row if part) for row in parts]


def _verdicts(called: pd.DataFrame, fdr: float) -> list[str]:
    """Return what decided."""
    return np.select(
        [
            called["role"] != "sample",
            called["withheld"],
            (called["n_wells"] == 0) & (called["n_left_out"] > 0),
            called["n_wells"] == 0,
            called["p"].isna(),
            called["smallest_p"] > fdr,
            called["hit"],
        ],
        [
            "a control, not tested",
            "most perturbations differ from the negative controls",
            "all of its plates failed quality control",
            "no well has a score",
            "no negative control to compare with",
            [
                f"too few replicates or controls: the smallest p that it can reach, {p:.2g}, exceeds the FDR"
                for p in called["smallest_p"]
            ],
            "q is at most the FDR",
        ],
        [
            f"q exceeds the FDR: p is {p:.2g}, the smallest that it can reach {smallest:.2g}"
            for p, smallest in zip(called[["p", "p_position"]].max(axis=1), called["smallest_p"], strict=True)
        ],
    ).tolist()


def _circumstances(called: pd.DataFrame) -> list[str]:
    """Return what else is known of the samples that were tested and not called."""
    missed = (called["role"] == "sample") & (called["n_wells"] > 0) & ~called["hit"] & called["q"].notna()
    own = [
        np.where(called["n_wells"] == 1, "too few replicates: one well", ""),
        np.where(
            called["n_left_out"] > 0,
            [f"{n} of its wells are on plates that failed quality control" for n in called["n_left_out"]],
            "",
        ),
        np.where(
            called["cell_loss"],
            [
                f"cells lost: {percent:.0f} % of those of negative controls are left"
                for percent in called["cell_percent"]
            ],
            "",
        ),
    ]
    rows = ["; ".join(part for part in row if part) for row in zip(*own, strict=True)]
    return np.where(missed, rows, "").tolist()


def _which_p(called: pd.DataFrame) -> list[str]:
    """Return which p the q uses; empty where there is none."""
    return np.select(
        [
            called["q"].isna(),
            called["p_position"] > called["p"],
            called["p_position"].notna(),
            called["shared"],
        ],
        [
            "",
            "q uses p_position, the larger: its replicates share a position",
            "q uses p, larger than p_position",
            "q uses p: its replicates share a position, but too few controls do to test that",
        ],
        "q uses p",
    ).tolist()
