"""Columns of the page's tables: which are shown, in which order, under which heading, and what each means."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from wscnn.core.tables import described

#: Headings of the columns of the page's tables, in their order; what each means is in `wscnn.core.tables.TABLES`. Other
#: columns follow under their own name.
HEADINGS = {
    "rank": "rank",
    "plate": "plate",
    "well": "well",
    "perturbation": "perturbation",
    "phenotype": "phenotype",
    "role": "role",
    "status": "status",
    "reasons": "reasons",
    "hit": "hit",
    "effect": "effect",
    "p": "p",
    "q": "q",
    "n_wells": "wells",
    "n_agree": "agree",
    "n_plates": "plates",
    "n_objects_per_field": "objects / field",
    "rare_fraction": "rare cells",
    "cell_percent": "cells %",
    "caution": "caution",
    "reason": "reason",
    "n_missing": "missing",
    "z_prime": "Z′",
    "z_prime_robust": "robust Z′",
    "ssmd": "SSMD",
    "auc": "AUC",
    "edge_effect": "edge effect",
    "row_effect": "row effect",
    "column_effect": "column effect",
    "outlier": "outlier",
    "score": "score",
    "z": "z",
    "position": "position",
    "score_mean": "score",
    "model_sd": "model sd",
    "effect_sd": "effect sd",
}
#: Columns shown at first, by table, and those of them for which a narrow page has room.
#: All of a table that is not here.
CHOSEN = {
    "hits": ["rank", "perturbation", "phenotype", "hit", "effect", "q", "n_wells", "cell_percent", "caution", "reason"],
    "plates": ["plate", "status", "reasons", "z_prime", "ssmd", "auc", "n_missing", "edge_effect"],
}
NARROW = {
    "hits": ["rank", "perturbation", "effect", "q", "cell_percent"],
    "plates": ["plate", "status", "auc"],
    "suspects": ["plate", "well", "role", "reason"],
}
#: Columns left out: a well's name contains row and column; an interval is shown beside its effect, a loss of cells
#: beside their percentage.
_NOT_SHOWN = ["screen", "well_row", "well_column", "effect_low", "effect_high", "cell_loss"]
#: Columns left out where they hold a single value.
_SHOWN_IF_VARIED = ["phenotype", "batch", "null_kind"]


def headings(kind: str, table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the columns shown of a table of `TABLES`, the known ones first, in order.

    Returns
    -------
    columns
        Each ``name, heading, meaning`` and whether it is shown at first on a ``wide`` and on a ``narrow`` page.
    """
    names = [
        name
        for name in table.columns
        if name not in _NOT_SHOWN
        and table[name].replace("", None).notna().any()
        and not (name in _SHOWN_IF_VARIED and table[name].nunique() < 2)
    ]
    order = {name: n for n, name in enumerate(HEADINGS)}
    chosen: Sequence[str] = CHOSEN.get(kind, names)
    return [
        {
            "name": name,
            "heading": HEADINGS.get(name, name.replace("_", " ")),
            "meaning": _meaning(kind, name),
            "wide": name in chosen,
            "narrow": name in NARROW.get(kind, chosen),
        }
        for name in sorted(names, key=lambda name: order.get(name, len(order)))
    ]


def _meaning(kind: str, name: str) -> str:
    """Return what a column of a table of `TABLES` means, with its unit, as plain text; empty for the user's own."""
    column = described(kind, name)
    if column is None:
        return ""
    unit = f" ({column.unit})" if column.unit else ""
    return f"{column.meaning}{unit}".replace("`", "")
