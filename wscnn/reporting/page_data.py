"""What the page's script draws: tables by name, and the charts and tables that show them."""

from typing import Any

import numpy as np
import pandas as pd

from wscnn.core.wells import plate_format, row_letters
from wscnn.reporting import charts
from wscnn.reporting.headings import headings
from wscnn.reporting.packing import compact
from wscnn.reporting.results import Results, failed
from wscnn.reporting.validation import calibration, replicate_pairs
from wscnn.reporting.volcano import sample_ranges, volcano_rows

# How well a plate's controls separate: column, title, reference lines, lower limit and smallest upper limit of the
# axis.
_MEASURES: tuple[tuple[str, str, list[float], float, float], ...] = (
    ("z_prime", "Z′", [0, 0.5], -1, 1),
    ("ssmd", "SSMD", [3], 0, 5),
    ("auc", "AUC", [0.5], 0, 1),
)


def page_data(results: Results, roc: pd.DataFrame, beside: pd.DataFrame, fdr: float) -> dict[str, Any]:
    """Return what the page's script draws: tables by name, each table once, charts and tables that show them.

    Parameters
    ----------
    results, roc, beside
        The screen, its `held_out_roc` and its `side_by_side`.
    fdr
        The false discovery rate at which hits were called.
    """
    plates = sorted(results.wells["plate"].unique())
    maps, wells = _plate_maps(results.wells), _map_wells(results.wells, results.quality)
    rows = {
        "hits": volcano_rows(results.hits, fdr),
        "wells": wells,
        "controls": results.controls[["plate", "well", "perturbation", "role", "phenotype", "z"]],
        "plates": results.plates.assign(state=np.where(failed(results.plates), "left out", "used")),
        "pairs": replicate_pairs(results.wells),
        "history": _with_kept(results.history),
        "roc": roc.assign(fold=_fold_names(roc)),
        "calibration": calibration(results),
        "suspects": results.suspects,
        "beside": beside,
        "doses": results.doses,
    }
    shown: dict[str, tuple[str, dict[str, Any]]] = {"volcano": ("hits", charts.volcano(*sample_ranges(results.hits)))}
    for name, (field, title, colors, lettered, numbered) in maps.items():
        shown[name] = ("wells", charts.plate_map(field, title, colors, lettered, numbered))
    shown["control-strip"] = ("controls", charts.control_strip(plates, "z"))
    for measure, title, lines, low, high in _MEASURES:
        if measure in results.plates and results.plates[measure].notna().any():
            domain = [low, max(high, float(results.plates[measure].max()))]
            shown[f"plate-{measure}"] = ("plates", charts.plate_quality(plates, measure, title, lines, domain))
    shown["replicates"] = ("pairs", charts.replicates())
    shown["beside"] = ("beside", charts.side_by_side())
    shown["roc"] = ("roc", charts.roc())
    shown["calibration"] = ("calibration", charts.calibration())
    shown["losses"] = ("history", charts.losses())
    shown["selection"] = ("history", charts.selection())
    tables = {"hits": results.hits, "plates": results.plates, "suspects": results.suspects}
    return {
        "rows": {name: compact(table) for name, table in rows.items()},
        "charts": {name: {"rows": source, "spec": spec} for name, (source, spec) in shown.items() if len(rows[source])},
        "internal": sorted(set(rows["hits"]) - set(results.hits)),
        "tables": {name: headings(name, table) for name, table in tables.items()},
        "map": {
            "shape": plate_format(_positions(results.wells)),
            "span": maps["map-z"][2][-1],
            "colors": charts.DIVERGING,
        },
    }


def _fold_names(roc: pd.DataFrame) -> list[str]:
    return [f"{row.fold} (AUC {row.auc:.3f})" for row in roc.itertuples()]


def _map_wells(wells: pd.DataFrame, fields: pd.DataFrame) -> pd.DataFrame:
    """Return the values and texts of the plate maps, one row per well and phenotype."""
    carried = [name for name in ("p", "compound", "dose") if name in wells]
    table = wells[["plate", "well", "phenotype", "perturbation", "role", "z", "score", "n_objects", *carried]].assign(
        counts=wells["used"].astype("bool"),
        row=[row_letters(row) for row in wells["well_row"]],
        column=wells["well_column"] + 1,
        used=wells["n_fields_used"] / wells["n_fields"].clip(lower=1),
        fields=[
            f"{used:g} of {n:g} used"
            for used, n in zip(wells["n_fields_used"].fillna(0), wells["n_fields"].fillna(0), strict=True)
        ],
    )
    if "n_cells" in wells and wells["n_cells"].notna().any():
        table["n_cells"] = wells["n_cells"]
    if "flags" in fields:
        flagged = fields[fields["flags"].fillna("") != ""].drop_duplicates(["plate", "well", "flags"])
        words = flagged.groupby(["plate", "well"])["flags"].agg(", ".join).rename("flags").reset_index()
        table = table.merge(words, on=["plate", "well"], how="left").fillna({"flags": "none"})
    return table


def _plate_maps(wells: pd.DataFrame) -> dict[str, tuple[str, str, list[float], list[str], list[int]]]:
    """Return the plate maps by name: field, title, range of colours, rows and columns."""
    n_rows, n_columns = plate_format(_positions(wells))
    shape = ([row_letters(row) for row in range(n_rows)], list(range(1, n_columns + 1)))
    span = float(np.clip(_quantile(wells["z"].abs(), 0.98), 3, 10))
    counted = "n_cells" in wells and wells["n_cells"].notna().any()
    count = "n_cells" if counted else "n_objects"
    return {
        "map-z": ("z", "Normalised score z", [-span, 0.0, span], *shape),
        "map-count": (count, "Cells" if counted else "Objects found", _count_range(wells[count]), *shape),
        "map-used": ("used", "Share of fields that passed quality control", [0.0, 1.0], *shape),
    }


def _positions(wells: pd.DataFrame) -> list[tuple[int, int]]:
    return list(zip(wells["well_row"], wells["well_column"], strict=True))


def _with_kept(history: pd.DataFrame) -> pd.DataFrame:
    """Return the history with ``kept``: True at each fold's step whose weights are in use, the last that was best.

    Times are left out: equal results make equal reports.
    """
    history = history.drop(columns="seconds", errors="ignore")
    if history.empty:
        return history
    last = history[history["best"]].groupby("fold")["step"].max()
    return history.assign(kept=history["step"] == history["fold"].map(last))


def _count_range(counts: pd.Series) -> list[float]:
    low, high = _quantile(counts, 0.01), _quantile(counts, 0.99)
    return [low, max(high, low + 1)]


def _quantile(values: pd.Series, share: float) -> float:
    known = values.dropna().astype("float64")
    return float(known.quantile(share)) if len(known) else 0.0
