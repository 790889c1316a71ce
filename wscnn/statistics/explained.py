"""Whether a perturbation looks new because its wells have fewer or more cells, or dimmer or brighter ones."""

import numpy as np
import pandas as pd

from wscnn.statistics.arrays import Array
from wscnn.statistics.phenotype import Phenotype

#: A simple measure explains a perturbation if it alone separates its wells from negative controls with this AUC.
EXPLAINING_AUC = 0.9
#: Columns of the table of wells, and what a perturbation with lower and with higher values is explained by.
_MEASURES = {
    "n_cells": ("fewer cells", "more cells"),
    "cell_intensity": ("dimmer cells", "brighter cells"),
}


def explained_by(screen: Phenotype, part: pd.DataFrame, treated: np.ndarray) -> list[str]:
    """Return for each perturbation which simple measures separate its wells from the negative controls of their plates.

    Nothing is fitted: each measure, divided by the median of the plate's negative controls, is compared between the
    wells of a perturbation and the negative controls by the AUC, which does not depend on its distribution. Cells are
    counted per used field.

    Parameters
    ----------
    screen, part
        The wells of one phenotype, as arrays and as a table.
    treated
        Wells that count for a perturbation.

    Returns
    -------
    list of str
        Such as ``fewer cells (AUC 0.97)``, empty where no measure reaches `EXPLAINING_AUC`.
    """
    found: list[list[str]] = [[] for _ in range(len(screen.names))]
    control = screen.negative & screen.used
    for name, (lower, higher) in _MEASURES.items():
        if name not in part:
            continue
        values = _relative(screen, part, name, control)
        known = np.sort(values[control & np.isfinite(values)])
        own = treated & np.isfinite(values)
        if not len(known) or not own.any():
            continue
        below = np.searchsorted(known, values[own], "left") + np.searchsorted(known, values[own], "right")
        area = pd.Series(below / (2 * len(known))).groupby(screen.perturbation[own]).mean()
        for number, auc in area.items():
            if max(auc, 1 - auc) >= EXPLAINING_AUC:
                found[int(str(number))].append(f"{higher if auc > 0.5 else lower} (AUC {max(auc, 1 - auc):.2f})")
    return ["; ".join(texts) for texts in found]


def _relative(screen: Phenotype, part: pd.DataFrame, name: str, control: np.ndarray) -> Array:
    """Return a column of the table of wells, relative to the median of the negative controls of each plate."""
    values = part[name].to_numpy(dtype=float, na_value=np.nan)
    if name == "n_cells":
        with np.errstate(divide="ignore", invalid="ignore"):
            values = values / part["n_fields_used"].to_numpy(dtype=float, na_value=np.nan)
    medians = pd.Series(values[control]).groupby(screen.plate[control]).median()
    return np.asarray(values / medians.reindex(screen.plate).to_numpy(dtype=float))
