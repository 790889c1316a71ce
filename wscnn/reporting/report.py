"""The report: one HTML file that opens offline and shows what was run, what was found and how far to trust it."""

import base64
import gzip
import json
import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import vl_convert

import wscnn
from wscnn.core.atomic import atomic_path
from wscnn.core.errors import UserError
from wscnn.core.progress import log
from wscnn.core.tables import described
from wscnn.core.wells import DISCOVERED, plate_format, row_letters
from wscnn.reporting import charts
from wscnn.reporting.contest import make_contest
from wscnn.reporting.examples import make_examples
from wscnn.reporting.gallery import make_gallery
from wscnn.reporting.results import Results, concat, read_results
from wscnn.statistics.calibration import reliability
from wscnn.statistics.roc import auc, roc_curve

# How well a plate's controls separate: column, title, reference lines, lower limit and smallest upper limit of the
# axis.
_MEASURES: tuple[tuple[str, str, list[float], float, float], ...] = (
    ("z_prime", "Z′", [0, 0.5], -1, 1),
    ("ssmd", "SSMD", [3], 0, 5),
)
# Fewest pairs of replicates to report a correlation.
_FEW_PAIRS = 5
# Most hits whose names are written into the chart of effects, where there is room.
_LABELLED_HITS = 10

#: Headings of the columns of the page's tables, in their order; what each means is in `wscnn.core.tables.TABLES`. Other
#: columns follow under their own name.
HEADINGS = {
    "rank": "rank",
    "plate": "plate",
    "well": "well",
    "perturbation": "perturbation",
    "phenotype": "phenotype",
    "role": "role",
    "reason": "reason",
    "status": "status",
    "reasons": "reasons",
    "hit": "hit",
    "caution": "caution",
    "effect": "effect",
    "effect_low": "from",
    "effect_high": "to",
    "p": "p",
    "q": "q",
    "n_wells": "wells",
    "n_agree": "agree",
    "n_plates": "plates",
    "n_objects_per_field": "objects / field",
    "rare_fraction": "rare cells",
    "cell_percent": "cells %",
    "cell_loss": "cell loss",
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
#: Warnings that the page shows at the top in other words: failed plates, with a link to each.
_SHOWN_ABOVE = ["plate_failed"]
#: Most warnings at the top of the page; some kinds have one for each plate.
_SHOWN_WARNINGS = 12
#: Columns left out: a well's name contains row and column.
_NOT_SHOWN = ["screen", "well_row", "well_column"]
#: Columns left out where they hold a single value.
_SHOWN_IF_VARIED = ["phenotype", "batch", "null_kind"]


def write_report(results: Path, output: Path, *, hits: Mapping[str, Any], models: Path | None = None) -> None:
    """Write the report of a screen.

    Parameters
    ----------
    results
        The screen's results folder.
    output
        The HTML file: self-contained, without a timestamp, so that equal results give equal bytes.
    hits
        The config's section ``hits``, complete, with which the hits were called.
    models
        Folder of the model that scored the screen; None: ``model`` in the results folder.

    Raises
    ------
    UserError
        When the table of hits, wells or plates is missing, a plate is damaged, or the hits were called at another
        false discovery rate.
    """
    found = read_results(results, models)
    _check_rate(found, hits["fdr"])
    log(f"report: {found.wells['plate'].nunique()} plates, {len(found.hits)} rows of hits")
    roc = held_out_roc(found.controls)
    content = {
        "screen": found.screen,
        "version": wscnn.__version__,
        "summary": summarise(found, roc, hits),
        "gallery": make_gallery(found),
        "examples": make_examples(found),
        "contest": make_contest(results),
        "packed": pack(page_data(found, roc)),
        "phenotypes": found.phenotypes,
        "plates": sorted(found.wells["plate"].unique()),
        "vega": vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"),
    }
    loader = jinja2.PackageLoader("wscnn.reporting")
    # Every value is escaped unless the template says otherwise: names come from users.
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    with atomic_path(output) as partial:
        partial.write_text(environment.get_template("report.html.j2").render(content), encoding="utf-8")
    log(f"report: {output}, {output.stat().st_size / 1e6:.1f} MB")


def _check_rate(results: Results, fdr: float) -> None:
    """Refuse to state a false discovery rate at which these hits were not called."""
    tested = results.hits[results.hits["q"].notna()]
    if not tested["hit"].astype("bool").eq(tested["q"] <= fdr).all():
        raise UserError(
            f"{results.folder.table('hits')}: its hits were not called at a false discovery rate of {fdr:g}; give "
            "the report the same --hits as `wscnn hits` got"
        )


def summarise(results: Results, roc: pd.DataFrame, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the report's first paragraphs say: counts, hits by name, how they are called, and what failed.

    Parameters
    ----------
    results, roc
        The screen, and its `held_out_roc`.
    settings
        The config's section ``hits``.
    """
    wells, hits = results.wells, results.hits
    places = wells.drop_duplicates(["plate", "well"])
    roles = places["role"].value_counts()
    samples = hits[hits["role"] == "sample"] if "role" in hits else hits
    called = samples[samples["hit"].astype("bool")].sort_values("rank")
    card = results.cards[0] if results.cards else None
    pairs = replicate_pairs(wells)
    warnings = _warnings(results)
    return {
        "n_plates": places["plate"].nunique(),
        "n_wells": len(places),
        "roles": {role: int(roles.get(role, 0)) for role in ("negative", "positive", "sample", "exclude")},
        "n_perturbations": samples["perturbation"].nunique(),
        "n_fields": int(places["n_fields"].sum()),
        "n_fields_used": int(places["n_fields_used"].sum()),
        "flags": _flag_counts(results.quality),
        "fdr": settings["fdr"],
        "normalize": settings["normalize"],
        "calibrated": _calibrated(results.plates),
        "n_tests": int(samples["q"].notna().sum()),
        "nulls": sorted(set(samples["null_kind"].dropna()) - {""}) if "null_kind" in samples else [],
        "held_out": bool(results.controls["held_out"].any()),
        "applied": card is not None and card.screen != results.screen,
        "unscored": int(wells.groupby(["plate", "well"])["score"].count().eq(0).sum()),
        "n_hits": called["perturbation"].nunique(),
        "hits": list(zip(called["perturbation"], called["phenotype"], strict=True)),
        "auc": {str(phenotype): float(auc) for phenotype, auc in _mean_auc(roc).items()},
        "n_pairs": len(pairs),
        "agreement": _agreement(pairs),
        "card": card,
        "n_folds": len(results.cards),
        "trained": [name for name in results.phenotypes if name not in DISCOVERED],
        "discovered": [name for name in results.phenotypes if name in DISCOVERED],
        "failed": _failed_plates(results.plates),
        "all_failed": bool(_failed(results.plates).all()),
        "n_suspects": len(results.suspects),
        "warnings": warnings[:_SHOWN_WARNINGS],
        "n_more_warnings": max(len(warnings) - _SHOWN_WARNINGS, 0),
    }


def _calibrated(plates: pd.DataFrame) -> list[dict[Hashable, Any]]:
    """Return for each phenotype how its scores were normalised, why, and how its controls compare."""
    names = ["phenotype", "normalize", "normalize_reason", "controls_below", "auc_phenotype"]
    names += [f"auc_{group}{part}" for group in ("edge", "side", "plate") for part in ("", "_chance")]
    # Tables of an earlier version lack these.
    table = plates.reindex(columns=names).dropna(subset="normalize").drop_duplicates()
    return [dict(zip(names, row, strict=True)) for row in table.itertuples(index=False)]


def page_data(results: Results, roc: pd.DataFrame) -> dict[str, Any]:
    """Return what the page's script draws: tables by name, each table once, charts and tables that show them."""
    plates = sorted(results.wells["plate"].unique())
    maps, wells = _plate_maps(results.wells), _map_wells(results.wells, results.quality)
    rows = {
        "hits": _hit_groups(results.hits),
        "wells": wells,
        "controls": results.controls[["plate", "well", "perturbation", "role", "phenotype", "z"]],
        "plates": results.plates.assign(state=np.where(_failed(results.plates), "left out", "used")),
        "pairs": replicate_pairs(results.wells),
        "history": _with_kept(results.history),
        "roc": roc.assign(fold=_fold_names(roc)),
        "calibration": calibration(results),
        "suspects": results.suspects,
    }
    shown: dict[str, tuple[str, dict[str, Any]]] = {"volcano": ("hits", charts.volcano(*_sample_ranges(results.hits)))}
    for name, (field, title, colors, lettered, numbered) in maps.items():
        shown[name] = ("wells", charts.plate_map(field, title, colors, lettered, numbered))
    shown["control-strip"] = ("controls", charts.control_strip(plates, "z"))
    for measure, title, lines, low, high in _MEASURES:
        if measure in results.plates and results.plates[measure].notna().any():
            domain = [low, max(high, float(results.plates[measure].max()))]
            shown[f"plate-{measure}"] = ("plates", charts.plate_quality(plates, measure, title, lines, domain))
    shown["replicates"] = ("pairs", charts.replicates())
    shown["roc"] = ("roc", charts.roc())
    shown["calibration"] = ("calibration", charts.calibration())
    shown["losses"] = ("history", charts.losses())
    shown["selection"] = ("history", charts.selection())
    tables = {"hits": results.hits, "plates": results.plates, "suspects": results.suspects}
    return {
        "rows": {name: compact(table) for name, table in rows.items()},
        "charts": {name: {"rows": source, "spec": spec} for name, (source, spec) in shown.items() if len(rows[source])},
        "tables": {name: _headings(name, table) for name, table in tables.items()},
    }


def held_out_roc(controls: pd.DataFrame) -> pd.DataFrame:
    """Return the ROC of control wells that the scoring network never saw: ``phenotype, fold, step, fpr, tpr, auc``.

    One row per point of a curve. ``fold`` is ``all`` where all folds of a model trained elsewhere scored the wells.
    """
    curves: list[pd.DataFrame] = []
    held_out = controls[controls["score"].notna() & controls["held_out"]]
    for (phenotype, fold), scored in held_out.groupby(["phenotype", held_out["fold"].astype("str").fillna("all")]):
        positive = scored["role"].eq("positive").to_numpy()
        if positive.all() or not positive.any():
            continue
        scores = scored["score"].to_numpy()
        value = auc(scores[~positive], scores[positive])
        curves.append(roc_curve(scores, positive).assign(phenotype=str(phenotype), fold=str(fold), auc=value))
    return concat(curves)


def calibration(results: Results) -> pd.DataFrame:
    """Return how often control fields of a predicted probability come from positive wells.

    Fields are those of control wells that the scoring network never saw, in ten groups of equal size by prediction.
    Fields that an earlier version scored have no probability.

    Returns
    -------
    table
        One row per group: ``phenotype, predicted`` (mean), ``observed`` (share from positive wells), ``n``.
    """
    tables = []
    for phenotype, own in results.held_out_fields.dropna(subset="probability").groupby("phenotype"):
        table = reliability(own["probability"].to_numpy(), own["role"].eq("positive").to_numpy())
        tables.append(table.assign(phenotype=str(phenotype)).drop(columns="group"))
    return concat(tables)


def replicate_pairs(wells: pd.DataFrame) -> pd.DataFrame:
    """Return pairs of wells of one perturbation: ``phenotype, perturbation, role, z1, z2, well1, well2``.

    Wells are taken in turn from the plates, so that a pair is on two plates where possible; no well is in two pairs.
    """
    key = ["phenotype", "perturbation", "role"]
    usable = wells[wells["role"].isin(["sample", "positive"]) & wells["z"].notna() & wells["used"]]
    usable = usable.assign(turn=usable.groupby([*key, "plate"]).cumcount(), name=usable["plate"] + " " + usable["well"])
    usable = usable.sort_values([*key, "turn", "plate", "well"])
    number = usable.groupby(key).cumcount()
    usable = usable.assign(pair=number // 2)[[*key, "pair", "z", "name"]]
    pairs = usable[number % 2 == 0].merge(usable[number % 2 == 1], on=[*key, "pair"], suffixes=("1", "2"))
    return pairs.rename(columns={"name1": "well1", "name2": "well2"}).drop(columns="pair")


def pack(data: Mapping[str, Any]) -> str:
    """Return `data` as the page's script unpacks it: JSON, gzip, base64; equal data give equal text."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def compact(table: pd.DataFrame) -> dict[str, Any]:
    """Return a table for the page: numbers to four significant digits, each text once, missing values as null."""
    return {"n": len(table), "columns": {name: _compact_column(table[name]) for name in table.columns}}


def _compact_column(column: pd.Series) -> dict[str, Any] | list[Any]:
    if pd.api.types.is_bool_dtype(column):
        return [bool(value) for value in column]
    if pd.api.types.is_numeric_dtype(column):
        return [_short(float(value)) for value in column.astype("Float64").to_numpy(dtype=float, na_value=np.nan)]
    codes, levels = pd.factorize(column.astype("str").where(column.notna(), None))
    return {"levels": [str(level) for level in levels], "codes": codes.tolist()}


def _short(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    short = float(f"{value:.4g}")
    return int(short) if short.is_integer() else short


def _headings(kind: str, table: pd.DataFrame) -> list[dict[str, str]]:
    """Return name, heading and meaning of the columns shown of a table of `TABLES`: the known ones first, in order."""
    names = [
        name
        for name in table.columns
        if name not in _NOT_SHOWN
        and table[name].replace("", None).notna().any()
        and not (name in _SHOWN_IF_VARIED and table[name].nunique() < 2)
    ]
    order = {name: n for n, name in enumerate(HEADINGS)}
    return [
        {"name": name, "heading": HEADINGS.get(name, name.replace("_", " ")), "meaning": _meaning(kind, name)}
        for name in sorted(names, key=lambda name: order.get(name, len(order)))
    ]


def _meaning(kind: str, name: str) -> str:
    """Return what a column of a table of `TABLES` means, with its unit, as plain text; empty for the user's own."""
    column = described(kind, name)
    if column is None:
        return ""
    unit = f" ({column.unit})" if column.unit else ""
    return f"{column.meaning}{unit}".replace("`", "")


def _warnings(results: Results) -> list[dict[str, str]]:
    """Return the warnings at the top of the page: what each is about, and its message."""
    shown = results.warnings[~results.warnings["code"].isin(_SHOWN_ABOVE)]
    about = [
        ", ".join(text for text in (row["plate"] and f"Plate {row['plate']}", row["phenotype"]) if text)
        for row in shown.to_dict("records")
    ]
    return [
        {"stage": stage, "about": of, "message": message}
        for stage, of, message in zip(shown["stage"], about, shown["message"], strict=True)
    ]


def _mean_auc(roc: pd.DataFrame) -> Mapping[Any, float]:
    if roc.empty:
        return {}
    return roc.drop_duplicates(["phenotype", "fold"]).groupby("phenotype")["auc"].mean().to_dict()


def _agreement(pairs: pd.DataFrame) -> dict[str, float]:
    """Return for each phenotype the correlation of sample wells' z with their replicates'; none from few pairs."""
    samples = pairs[pairs["role"] == "sample"]
    return {
        str(phenotype): float(own["z1"].corr(own["z2"]))
        for phenotype, own in samples.groupby("phenotype")
        if len(own) >= _FEW_PAIRS
    }


def _fold_names(roc: pd.DataFrame) -> list[str]:
    return [f"{row.fold} (AUC {row.auc:.3f})" for row in roc.itertuples()]


def _failed(plates: pd.DataFrame) -> pd.Series:
    """Return for each row of plate QC whether the plate is kept out of the calls."""
    if "status" in plates:
        return plates["status"].ne("ok")
    return pd.Series(False, index=plates.index)


def _flag_counts(quality: pd.DataFrame) -> list[tuple[str, int]]:
    """Return how many of the fields that quality control dropped carry each flag, the most frequent first."""
    if "flags" not in quality:
        return []
    flags = quality.loc[~quality["used"].astype("bool"), "flags"].fillna("").str.split(",").explode()
    counts = flags[flags != ""].value_counts()
    return [(str(flag), int(n)) for flag, n in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))]


def _failed_plates(plates: pd.DataFrame) -> list[tuple[str, str]]:
    failed = plates[_failed(plates)]
    reasons = failed["reasons"] if "reasons" in failed else pd.Series("", index=failed.index)
    return list(zip(failed["plate"], reasons.fillna(""), strict=True))


def _hit_groups(hits: pd.DataFrame) -> pd.DataFrame:
    """Return the hit table with the group that colours a point in the chart, and whether its name is written there."""
    role = hits["role"] if "role" in hits else pd.Series("sample", index=hits.index)
    called = hits["hit"].astype("bool") & (role == "sample")
    group = np.where(called, "hit", "not a hit")
    group = np.where(role == "positive", "positive control", group)
    label = pd.Series(False, index=hits.index)
    for _, same in hits[called].groupby("phenotype"):
        label[_uncrowded(same.sort_values("rank").head(_LABELLED_HITS), hits)] = True
    return hits.assign(group=group, label=label)


def _sample_ranges(hits: pd.DataFrame) -> tuple[list[float], list[float]]:
    """Return the ranges of effect and of significance that hold every sample."""
    samples = (hits[hits["role"] == "sample"] if "role" in hits else hits).dropna(subset=["effect", "p"])
    effects = [min(samples["effect"].min(), -1.0), max(samples["effect"].max(), 1.0)] if len(samples) else [-1.0, 1.0]
    margin = 0.08 * (effects[1] - effects[0])
    top = -np.log10(samples["p"].min()) if len(samples) else 1.0
    return [effects[0] - margin, effects[1] + margin], [0.0, 1.08 * max(top, 1.0)]


def _uncrowded(ranked: pd.DataFrame, hits: pd.DataFrame) -> list[Any]:
    """Return the labels of those rows of `ranked` whose names do not overlap an earlier one, in the chart of `hits`."""
    x, y = ranked["effect"], -np.log10(ranked["p"])
    width, height = (np.ptp(limits) for limits in _sample_ranges(hits))
    chosen: list[Any] = []
    for index in ranked.index:
        if all(abs(x[index] - x[i]) > 0.2 * width or abs(y[index] - y[i]) > 0.035 * height for i in chosen):
            chosen.append(index)
    return chosen


def _map_wells(wells: pd.DataFrame, fields: pd.DataFrame) -> pd.DataFrame:
    """Return the values and texts of the plate maps, one row per well and phenotype."""
    table = wells[["plate", "well", "phenotype", "perturbation", "role", "z", "score", "n_objects"]].assign(
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
    n_rows, n_columns = plate_format(list(zip(wells["well_row"], wells["well_column"], strict=True)))
    shape = ([row_letters(row) for row in range(n_rows)], list(range(1, n_columns + 1)))
    span = float(np.clip(_quantile(wells["z"].abs(), 0.98), 3, 10))
    counted = "n_cells" in wells and wells["n_cells"].notna().any()
    count = "n_cells" if counted else "n_objects"
    return {
        "map-z": ("z", "Normalised score z", [-span, 0.0, span], *shape),
        "map-count": (count, "Cells" if counted else "Objects found", _count_range(wells[count]), *shape),
        "map-used": ("used", "Share of fields that passed quality control", [0.0, 1.0], *shape),
    }


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
