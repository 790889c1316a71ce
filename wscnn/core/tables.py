"""The tables between stages: which columns each has, and how they are read and written."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from wscnn.core.atomic import atomic_path
from wscnn.core.errors import UserError


@dataclass(frozen=True)
class Column:
    """What a column of a table holds.

    Attributes
    ----------
    kind
        Its type in pandas.
    meaning
        One sentence.
    unit
        Empty where it has none.
    """

    kind: str
    meaning: str
    unit: str = ""


# Shows whether a file is still the one that was indexed. An OME-Zarr array is a folder.
_ORIGINAL = {
    "size": Column("int64", "Size of the file; for `omezarr` the sum over the files of the array", "bytes"),
    "mtime_ns": Column(
        "int64", "Time of modification; for `omezarr` the sum over the files of the array, modulo 2^63", "ns since 1970"
    ),
}
_SCREEN = {"screen": Column("str", "Name of the screen")}
_PLATE = {"plate": Column("str", "Name of the plate")}
_WELL = {"well": Column("str", "Row and column of the well, such as `B03`")}
_POSITION = {
    "well_row": Column("int16", "Row of the well, counted from 0"),
    "well_column": Column("int16", "Column of the well, counted from 0"),
}
_FIELD = {"field": Column("int32", "Number of the field within the well, by the instrument")}
_PHENOTYPE = {"phenotype": Column("str", "Phenotype that was scored")}
_PERTURBATION = {"perturbation": Column("str", "What was done to the well, as in the layout")}
_ROLE = {"role": Column("str", "`negative`, `positive`, `sample` or `exclude`, as in the layout")}
_LABEL = {"phenotype": Column("str", "Phenotype that a positive control shows; empty for other wells")}
_BATCH = {"batch": Column("str", "Batch of the plate, as in the table of plates")}

_WELL_SCORES = {
    **_PHENOTYPE,
    "n_fields": Column("Int32", "Fields staged", "count"),
    "n_fields_used": Column("Int32", "Fields that quality control kept", "count"),
    "score": Column(
        "float64", "Mean over used fields; missing where no field is used or no fold may score the well", "log-odds"
    ),
    "score_sd": Column(
        "float64", "Standard deviation of the score over folds; missing where one fold scored the well", "log-odds"
    ),
    "score_max": Column("float64", "Highest score of a used field", "log-odds"),
    "fraction_positive_fields": Column(
        "float64",
        "Used fields whose score, before the folds are aligned, exceeds the folds' field threshold",
        "fraction, 0 to 1",
    ),
    "n_objects": Column("Int32", "Detected cells in used fields", "count"),
    "object_area_fraction": Column("float64", "Area of masks over area of used fields", "fraction, 0 to 1"),
    "n_cells": Column(
        "Int64",
        "Cells in used fields, counted by mosaic.nuclei or else outlined by scoring; missing where neither was done",
        "count",
    ),
    "cell_intensity": Column(
        "float64",
        "Mean over the cells of their mean intensity; for `novelty` only",
        "fraction of the plate's window",
    ),
    "fold": Column("Int8", "Fold that scored the well; missing where all did"),
    "why_no_score": Column(
        "str",
        "Empty where there is a score; else `no good field`, `too few good fields` (fewer than `qc.min_fields`) or "
        "`no fold may score it`; for `novelty` also `no cell found` and `too few negative controls`",
    ),
}

# What the table of baselines has of that of hits.
_CALLS = (
    "rank",
    "perturbation",
    "phenotype",
    "role",
    "hit",
    "caution",
    "effect",
    "effect_low",
    "effect_high",
    "p",
    "q",
    "smallest_p",
    "n_wells",
    "n_plates",
    "n_agree",
)
_METHOD = {"method": Column("str", "`network`, or the simpler method: `count`, `forest` or `novelty`")}

#: Every table between stages and in the results: its columns, in order. The layout's further columns follow those of
#: ``layout``, ``screen_wells`` and ``hits``. A name that ends in ``*`` stands for all columns that begin so: the table
#: of quality has one for each channel.
TABLES: dict[str, dict[str, Column]] = {
    "layout": {**_PLATE, **_WELL, **_POSITION, **_PERTURBATION, **_ROLE, **_LABEL, **_BATCH},
    "controls": {**_PLATE, **_WELL, **_POSITION, **_ROLE, **_LABEL},
    "index": {
        **_PLATE,
        **_WELL,
        **_FIELD,
        "channel": Column("str", "Name of the channel, by the config"),
        "z": Column("int32", "Number of the plane, by the instrument"),
        "time": Column("int32", "Number of the time point, by the instrument"),
        "path": Column(
            "str", "File, below the folder of the plate's images; for `omezarr` the array of full resolution"
        ),
        "page": Column(
            "int32", "Page of the file, counted from 0; for `omezarr` number of the plane over the leading axes"
        ),
        "y_um": Column("float64", "Vertical position of the field's centre, downwards; missing where not known", "um"),
        "x_um": Column("float64", "Horizontal position of the field's centre; missing where not known", "um"),
        "pixel_size_um": Column("float64", "Size of a raw pixel; missing where not known", "um"),
        **_ORIGINAL,
    },
    "raw": {
        "path": Column("str", "File, below the folder of the plate's images"),
        **_ORIGINAL,
        "digest": Column("str", "CRC-32C of the content when it was staged"),
    },
    "qc": {
        **_PLATE,
        **_WELL,
        **_FIELD,
        "used": Column("bool", "Whether quality control kept the field"),
        "flags": Column("str", "What is wrong with the field, separated by commas; empty where nothing is"),
        "n_cells": Column("Int64", "Nuclei in the field; missing where they are not counted", "count"),
        "mean_*": Column("float64", "Mean", "intensity"),
        "median_*": Column("float64", "Median", "intensity"),
        "low_*": Column("float64", "1st percentile", "intensity"),
        "high_*": Column("float64", "99.5th percentile", "intensity"),
        "saturated_*": Column(
            "float64", "Raw pixels at the plate's highest value; 0 where that is no camera's limit", "fraction, 0 to 1"
        ),
        "focus_slope_*": Column(
            "float64",
            "Slope of the power spectrum, noise taken off; more negative with less fine detail",
            "log per log",
        ),
        "focus_gradient_*": Column(
            "float64", "Mean square difference of neighbouring pixels over the variance, noise taken off"
        ),
        "contrast_*": Column(
            "float64", "99.9th percentile of a coarse copy of the field, less its median", "intensity"
        ),
        "bright_*": Column("float64", "Highest value of a coarse copy of the field, less its median", "intensity"),
        "extent_*": Column(
            "float64", "Longest side of the largest bright object", "fraction of the field's side, 0 to 1"
        ),
        "line_jumps_*": Column("float64", "Rows and columns that are darker or brighter as a whole", "count"),
    },
    "history": {
        "step": Column("int64", "Steps of training so far", "count"),
        "loss": Column("float64", "Mean loss since the row before"),
        "select_auc": Column("float64", "Area under the ROC curve on the wells that choose the weights", "0 to 1"),
        "learning_rate": Column("float64", "Learning rate"),
        "seconds": Column("float64", "Time of training so far, over restarts", "s"),
        "best": Column("bool", "Whether these weights replaced the ones kept before"),
    },
    "wells": {**_SCREEN, **_PLATE, **_WELL, **_POSITION, **_WELL_SCORES},
    "fields": {
        **_SCREEN,
        **_PLATE,
        **_WELL,
        **_FIELD,
        **_PHENOTYPE,
        "used": Column("bool", "Whether quality control kept the field; others have no score"),
        "score": Column("float64", "That the field holds the phenotype, mean of the folds", "log-odds"),
        "score_sd": Column(
            "float64", "Standard deviation of the score over folds; missing where one fold scored it", "log-odds"
        ),
        "probability": Column(
            "float64",
            "That the field is of a positive well: the mean over folds, each by its card's `probabilities` from its "
            "score before the folds are aligned",
            "0 to 1",
        ),
        "n_objects": Column("Int32", "Detected cells", "count"),
        "object_area_px": Column("int64", "Area of masks", "mosaic pixels"),
    },
    "objects": {
        **_PLATE,
        **_WELL,
        **_FIELD,
        **_PHENOTYPE,
        "object": Column("int32", "Number within well and phenotype, from 1: the value of its mask in the label image"),
        "y": Column("float64", "Vertical position of the mask's centroid in the well's mosaic", "mosaic pixels"),
        "x": Column("float64", "Horizontal position of the mask's centroid in the well's mosaic", "mosaic pixels"),
        "y0": Column("int32", "First row of the mask's box", "mosaic pixels"),
        "x0": Column("int32", "First column of the mask's box", "mosaic pixels"),
        "y1": Column("int32", "Row after the last of the mask's box", "mosaic pixels"),
        "x1": Column("int32", "Column after the last of the mask's box", "mosaic pixels"),
        "area_px": Column("int32", "Area of the mask", "mosaic pixels"),
        "score": Column("float64", "Peak of the detector, mean of the folds", "log-odds"),
    },
    # One row per novel cell.
    "features": {
        **_PLATE,
        **_WELL,
        "object": Column("int32", "Number of the cell, as in the table of objects under phenotype `novelty`"),
        "feature": Column(
            "object",
            "List of the encoder's features, mean and maximum over the cell, standardized by the plate's negative "
            "controls",
            "robust SDs",
        ),
    },
    "hits": {
        "rank": Column("Int32", "From 1, by p and then by effect; missing for controls and where there is no p"),
        **_PERTURBATION,
        **_PHENOTYPE,
        "role": Column("str", "`sample`, or `positive`: positive controls are listed below the samples, untested"),
        "hit": Column("bool", "Whether q is at most `hits.fdr`"),
        "caution": Column("str", "What speaks against trusting the row, separated by semicolons; empty where nothing"),
        "effect": Column("float64", "Median of its wells' z; 0 is the plate's negative controls", "z"),
        "effect_low": Column("float64", "Lower end of the effect's 95 % interval; missing for one well", "z"),
        "effect_high": Column("float64", "Upper end of the effect's 95 % interval; missing for one well", "z"),
        "effect_sd": Column("float64", "Standard deviation of z over wells; missing for one well", "z"),
        "p": Column("float64", "One-sided p-value: a higher score is more of the phenotype", "0 to 1"),
        "p_position": Column(
            "float64",
            "p-value with positions, not wells, as the units; missing unless replicates share a position over plates",
            "0 to 1",
        ),
        "q": Column(
            "float64",
            "The larger of p and p_position, corrected for all tests of trained phenotypes, or for all of `novelty` "
            "(Benjamini-Hochberg)",
            "0 to 1",
        ),
        "reason": Column("str", "Why it is a hit or none, and which p its q uses"),
        "n_controls": Column(
            "int32", "Independent negative controls behind q: positions for p_position, else wells", "count"
        ),
        "smallest_p": Column("float64", "Smallest p that its wells and controls could reach", "0 to 1"),
        "null_kind": Column("str", "What p was ranked among: `plate`, `pooled`, or empty"),
        "n_wells": Column("int32", "Wells with a score on plates that count", "count"),
        "n_plates": Column("int32", "Plates of these wells", "count"),
        "n_agree": Column("int32", "Wells above 95 % of the screen's negative controls, held out", "count"),
        "ssmd": Column(
            "float64", "Strictly standardised mean difference of z from the negative controls of its plates"
        ),
        "score_mean": Column("float64", "Mean score of its wells", "log-odds, or that of the table of scores"),
        "model_sd": Column("float64", "Root mean square of `score_sd`: spread over the folds", "as `score_mean`"),
        "n_objects_per_field": Column("float64", "Detected cells per used field", "count"),
        "rare_fraction": Column(
            "float64",
            "Share of rare cells in excess of negative controls, where nuclei were counted: detected cells over "
            "nuclei, corrected for what the detector misses and mistakes as far as the model's cards state its recall",
            "fraction",
        ),
        "rare_fraction_low": Column("float64", "Lower bound of its 95 % interval; NaN without a recall", "fraction"),
        "rare_fraction_high": Column("float64", "Upper bound", "fraction"),
        "n_cells_per_field": Column("float64", "Nuclei per used field", "count"),
        "cell_percent": Column("float64", "Nuclei per field, relative to the plate's negative controls", "percent"),
        "cell_loss": Column("bool", "Whether `cell_percent` is below 100 (1 - `hits.cell_loss`)"),
        "explained_by": Column(
            "str",
            "For `novelty`, simple measures that alone separate its wells from negative controls with an AUC of 0.9 or "
            "more: number of cells, or their intensity; empty where none does",
        ),
    },
    "screen_wells": {
        **_SCREEN,
        **_PLATE,
        **_BATCH,
        **_WELL,
        **_POSITION,
        **_PERTURBATION,
        **_ROLE,
        "control_phenotype": Column("str", "Phenotype that a positive control shows, as in the layout"),
        **_WELL_SCORES,
        "used": Column("bool", "Whether the well counts: scored, on a plate that counts, not excluded"),
        "z": Column("float64", "Score, normalised by the plate's negative controls or its samples", "z"),
        "p": Column("float64", "p-value of this well alone; a control is ranked among the others", "0 to 1"),
    },
    "plates": {
        **_SCREEN,
        **_PLATE,
        **_BATCH,
        **_PHENOTYPE,
        "status": Column("str", "`ok`, or `failed`: the plate is kept out of the calls"),
        "reasons": Column("str", "Why the plate failed; empty where it did not"),
        "n_wells": Column("int32", "Wells that should have a score: those with a role other than `exclude`", "count"),
        "n_missing": Column("int32", "Of these, wells without a score", "count"),
        "n_negative": Column("int32", "Negative controls with a score", "count"),
        "n_positive": Column("int32", "Positive controls of this phenotype with a score", "count"),
        "negative_median": Column("float64", "Median of the negative controls", "as the score"),
        "negative_spread": Column(
            "float64",
            "1.4826 MAD of the negative controls (mean absolute deviation x 1.2533 where the MAD is 0); missing where "
            "all are equal",
            "as the score",
        ),
        "z_prime": Column("float64", "Z' of the controls, by mean and standard deviation (Zhang et al. 1999)", "<= 1"),
        "z_prime_robust": Column("float64", "Z' of the controls, by median and MAD", "<= 1"),
        "z_prime_samples": Column(
            "float64", "Z' of positive controls and all samples and negatives, by median and MAD", "<= 1"
        ),
        "ssmd": Column("float64", "Strictly standardised mean difference of the controls (Zhang 2007)"),
        "auc": Column("float64", "Chance that a positive control scores above a negative one", "0 to 1"),
        "auc_samples": Column(
            "float64", "Chance that a positive control scores above a sample or negative control", "0 to 1"
        ),
        "sample_shift": Column(
            "float64", "Median sample less median negative control", "robust SDs of the negative controls"
        ),
        "edge_effect": Column(
            "float64",
            "Median of the border's samples less that of the inner ones; missing with fewer than 3 on a side",
            "robust SDs of the inner samples",
        ),
        "row_effect": Column(
            "float64", "Root mean square row effect of the samples' median polish", "robust SDs of the residuals"
        ),
        "column_effect": Column(
            "float64", "Root mean square column effect of the samples' median polish", "robust SDs of the residuals"
        ),
        "normalize": Column("str", "How scores were normalised: `hits.normalize`, or what `auto` chose"),
        "normalize_reason": Column("str", "What `auto` measured; `as set` where `hits.normalize` names the method"),
        "controls_below": Column(
            "float64",
            "Share of the negative controls with p at most 0.05 among each other; missing where none can reach it",
            "fraction",
        ),
        "outlier": Column(
            "float64",
            "How far samples' and negatives' median or log spread lies from other plates'; missing below 5 plates",
            "robust z",
        ),
        "replicate_correlation": Column(
            "float64", "Rank correlation of its samples' z with the mean z of the same perturbations on other plates"
        ),
    },
    "suspects": {
        **_SCREEN,
        **_PLATE,
        **_BATCH,
        **_WELL,
        **_POSITION,
        **_PERTURBATION,
        **_ROLE,
        **_PHENOTYPE,
        "score": Column("float64", "Score of the well", "log-odds, or that of the table of scores"),
        "z": Column("float64", "Distance from the plate's negative controls", "robust SDs of the negative controls"),
        "position": Column("float64", "0 at the plate's negative controls, 100 at its positive ones", "percent"),
        "reason": Column("str", "How the score contradicts the label"),
    },
    "cells": {
        **_PLATE,
        **_WELL,
        **_FIELD,
        "y": Column("float64", "Vertical position of the nucleus's centre in the well's mosaic", "mosaic pixels"),
        "x": Column("float64", "Horizontal position of the nucleus's centre in the well's mosaic", "mosaic pixels"),
        "feature_*": Column("float32", "A feature of the nucleus; those of a channel end in its name"),
    },
    "baseline_wells": {
        **_METHOD,
        **_SCREEN,
        **_PLATE,
        **_WELL,
        **_POSITION,
        **_PERTURBATION,
        **_ROLE,
        "control_phenotype": Column("str", "Phenotype that a positive control shows, as in the layout"),
        **_PHENOTYPE,
        "score": Column("float64", "Score of the well, in units of the method; missing where there is none"),
        "score_sd": Column(
            "float64", "Standard deviation of the score over folds; missing where one fold scored the well"
        ),
        "fold": Column("Int8", "Fold that scored the well; missing where all did"),
        "used": Column("bool", "Whether the well counts: scored, on a plate that counts, not excluded"),
        "z": Column("float64", "Score, normalised by the plate's negative controls or its samples", "z"),
        "p": Column("float64", "p-value of this well alone; a control is ranked among the others", "0 to 1"),
    },
    "baseline_folds": {
        **_METHOD,
        **_PHENOTYPE,
        "fold": Column("Int8", "Fold that scored the wells; missing where all did"),
        "auc": Column(
            "float64", "Chance that a held-out positive control well scores above a held-out negative one", "0 to 1"
        ),
        "n_negative": Column("int32", "Negative control wells of the fold", "count"),
        "n_positive": Column("int32", "Positive control wells of the fold", "count"),
    },
    # One row per compound and phenotype with a series of doses.
    "doses": {
        "compound": Column("str", "Compound: column `compound` of the layout, or the perturbation"),
        **_PHENOTYPE,
        "status": Column("str", "`ok`; `flat`, `open` or `few doses`: no curve is given"),
        "n_doses": Column("int32", "Different doses", "count"),
        "n_wells": Column("int32", "Wells with a score on plates that count", "count"),
        "lowest_dose": Column("float64", "Lowest dose", "as the layout's dose"),
        "highest_dose": Column("float64", "Highest dose", "as the layout's dose"),
        "trend_p": Column("float64", "p-value of z rising with the dose (Kendall's rank correlation)", "0 to 1"),
        "ec50": Column("float64", "Dose of half the effect", "as the layout's dose"),
        "ec50_low": Column("float64", "Lower bound of its 95 % interval", "as the layout's dose"),
        "ec50_high": Column("float64", "Upper bound", "as the layout's dose"),
        "hill": Column("float64", "Slope of the curve (Hill)"),
        "bottom": Column("float64", "z without the compound, by the curve", "z"),
        "top": Column("float64", "z at saturating dose, by the curve", "z"),
    },
    # One row per warning of a stage.
    "warnings": {
        "stage": Column("str", "`check`, `scale`, `train` or `hits`"),
        "plate": Column("str", "Plate that it is about; empty where it is about all"),
        "fold": Column("Int8", "Fold of the model that it is about; missing where it is about none"),
        "phenotype": Column("str", "Phenotype that it is about; empty where it is about all"),
        "code": Column("str", "Kind of the warning, for programs"),
        "message": Column("str", "What is wrong and what to do"),
    },
}

TABLES["baseline"] = {**_METHOD, **{name: TABLES["hits"][name] for name in _CALLS}}


#: File of each table below the folder of a screen's results, and what a row of it is.
FILES = {
    "layout": ("layout.parquet", "One row per plate and well: the layout as `check` read it"),
    "controls": ("controls.parquet", "One row per control well: what training depends on"),
    "index": ("index/<plate>.parquet", "One row per image or plane, sorted by well, field, channel, z and time"),
    "raw": ("plates/<plate>.raw.parquet", "One row per raw image file that was staged"),
    "qc": ("qc/<plate>.parquet", "One row per field, with one column of each measure for each channel"),
    "history": ("model/history-<fold>.parquet", "One row per evaluation while a fold is trained"),
    "wells": ("wells/<plate>.parquet", "One row per well and phenotype, as `score` writes it"),
    "fields": ("fields/<plate>.parquet", "One row per field and phenotype"),
    "objects": ("objects/<plate>.parquet", "One row per detected cell"),
    "features": ("features/<plate>.parquet", "One row per novel cell, where `discovery.method` is `novelty`"),
    "hits": ("hits.parquet", "One row per perturbation, role and phenotype; the strongest evidence first"),
    "screen_wells": ("wells.parquet", "One row per well and phenotype of the screen, sorted by plate, row and column"),
    "plates": ("plates.parquet", "One row per plate and phenotype"),
    "suspects": ("suspects.parquet", "One row per control well and phenotype whose score contradicts the label"),
    "doses": (
        "doses.parquet",
        "One row per compound and phenotype, where the layout has a `dose`",
    ),
    "cells": ("cells/<plate>.parquet", "One row per nucleus"),
    "baseline_wells": ("baseline_wells.parquet", "One row per method, well and phenotype"),
    "baseline_folds": ("baseline_folds.parquet", "One row per method, phenotype and fold"),
    "warnings": ("warnings.parquet", "One row per warning of a stage"),
    "baseline": ("baseline.parquet", "One row per method, perturbation, role and phenotype, the network included"),
}


def types(table: str) -> dict[str, str]:
    """Return the pandas type of each column of the table `table` of `TABLES`, without families of columns."""
    return {name: column.kind for name, column in TABLES[table].items() if name[-1] != "*"}


def types_in(table: str, names: Iterable[str]) -> dict[str, str]:
    """Return the pandas type of those columns among `names` that the table `table` of `TABLES` has."""
    return {name: column.kind for name in names if (column := described(table, name))}


def described(table: str, name: str) -> Column | None:
    """Return what the column `name` of the table `table` of `TABLES` holds; None where it is the user's own."""
    columns = TABLES[table]
    families = (column for family, column in columns.items() if family[-1] == "*" and name.startswith(family[:-1]))
    return columns.get(name) or next(families, None)


LAYOUT = types("layout")
CONTROLS = types("controls")
#: What readers list; the index of a plate has `ORIGINAL` too, and paths below the folder of its images.
INDEX = {name: kind for name, kind in types("index").items() if name not in _ORIGINAL}
ORIGINAL = {name: column.kind for name, column in _ORIGINAL.items()}
QC = types("qc")
#: What the report needs of a history.
HISTORY = {name: kind for name, kind in types("history").items() if name not in ("learning_rate", "seconds")}
WELLS = types("wells")
FIELDS = types("fields")
OBJECTS = types("objects")
FEATURES = types("features")
HITS = types("hits")
SCREEN_WELLS = types("screen_wells")
PLATES = types("plates")
SUSPECTS = types("suspects")
DOSES = types("doses")
WARNINGS = types("warnings")
CELLS = types("cells")
BASELINE = types("baseline")
BASELINE_WELLS = types("baseline_wells")
BASELINE_FOLDS = types("baseline_folds")

# Rows per group of a Parquet file that is searched: what a reader skips or reads as one.
_ROW_GROUP = 16_384
# The key of a Parquet file's metadata that holds a table's notes.
_NOTES = b"wscnn"


def conform(table: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    """Return `table` with exactly these columns first, in this order and with these types, then any others."""
    others = [name for name in table.columns if name not in columns]
    return table[[*columns, *others]].astype(columns)


def write_table(
    table: pd.DataFrame,
    path: Path,
    notes: Mapping[str, Any] | None = None,
    *,
    kind: str | None = None,
    searched: Sequence[str] = (),
) -> None:
    """Write `table` to the Parquet file `path` atomically; equal tables and notes give equal bytes.

    Parameters
    ----------
    table
        Its index is not written.
    path
        The file to write.
    notes
        Information about the table as a whole, stored as JSON in the file's metadata (see `read_notes`).
    kind
        Which of `TABLES` it is: name, and meaning and unit of every column, are added to the notes as ``table`` and
        ``columns``.
    searched
        Columns by which rows are looked up: they get Bloom filters, and the file small row groups, so that readers
        skip what they can.
    """
    data = pa.Table.from_pandas(table, preserve_index=False)
    notes = {**(_description(kind, table.columns) if kind else {}), **(notes or {})}
    if notes:
        text = json.dumps(notes, sort_keys=True, allow_nan=False)
        data = data.replace_schema_metadata({**(data.schema.metadata or {}), _NOTES: text.encode()})
    lookup: dict[str, Any] = {}
    if searched:
        bloom = {"ndv": min(max(len(table), 1), _ROW_GROUP), "fpp": 0.01}
        lookup = {"row_group_size": _ROW_GROUP, "bloom_filter_options": dict.fromkeys(searched, bloom)}
    with atomic_path(path) as partial:
        # Checksums make a flipped bit an error instead of a wrong number.
        pq.write_table(data, partial, compression="zstd", write_page_checksum=True, **lookup)


def _description(kind: str, names: Iterable[str]) -> dict[str, Any]:
    """Return the notes that say what a table and its columns are."""
    own = Column("", "The user's own column, carried along")
    columns = {name: described(kind, name) or own for name in names}
    return {
        "table": kind,
        "columns": {name: {"unit": column.unit, "meaning": column.meaning} for name, column in columns.items()},
    }


def read_notes(path: Path) -> dict[str, Any]:
    """Return the notes that a Parquet file written by `write_table` holds; none where it has none.

    Raises
    ------
    UserError
        When the file is missing, is not a Parquet file, or its notes are damaged.
    """
    try:
        with pq.ParquetFile(path) as file:
            text = (file.schema_arrow.metadata or {}).get(_NOTES, b"{}")
        notes = json.loads(text)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage that makes it first") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({error}); delete it and run again") from None
    return notes if isinstance(notes, dict) else {}


def read_table(path: Path, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Return the Parquet file at `path` as a table.

    Parameters
    ----------
    path
        The file.
    columns
        Columns that the table must have, with their types, such as `INDEX`; numbers may be narrower or wider than
        declared. These columns come first, in this order and with these types, then any others.

    Raises
    ------
    UserError
        When it is missing or is not a Parquet file, lacks a column, or a column has another type or missing values.
    """
    try:
        # Not `pq.read_table`: it reads a folder as one table, and makes columns of folder names such as `screen=1`.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            data = file.read()
        problems = [_type_problem(data, name, kind) for name, kind in (columns or {}).items()]
        table = data.to_pandas()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage that makes it first") from None
    except Exception as error:  # whatever comes of broken metadata or pages is the file's fault
        reason = " ".join(f"{error}".split())[:200]
        raise UserError(f"{path}: not a readable Parquet file ({reason}); delete it and run again") from None
    if found := [problem for problem in problems if problem]:
        raise UserError(f"{path}: {'; '.join(found)}; run the stage that makes it again")
    return table if columns is None else conform(table, dict(columns))


def _type_problem(data: pa.Table, name: str, kind: str) -> str | None:
    """Return why column `name` of `data` cannot be read as `kind`; None where it can."""
    if name not in data.column_names:
        return f"has no column {name}"
    column = data[name]
    found = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    nullable = kind == "float64" or kind.startswith("Int")
    # Whole numbers of which some are missing are floating-point numbers in tables of earlier versions.
    whole_or_missing = kind.startswith("Int") and pa.types.is_floating(found)
    what, fits = {
        "str": ("text", lambda: pa.types.is_string(found) or pa.types.is_large_string(found)),
        "bool": ("true or false", lambda: pa.types.is_boolean(found)),
        "float64": ("numbers", lambda: pa.types.is_floating(found) or pa.types.is_integer(found)),
        "object": ("lists", lambda: pa.types.is_list(found)),
    }.get(kind, ("whole numbers", lambda: pa.types.is_integer(found)))
    # A column without any value has no type of its own.
    if not fits() and not whole_or_missing and not (pa.types.is_null(found) and (nullable or not len(column))):
        return f"column {name} holds {found} where {what} should be"
    if column.null_count and not nullable:
        return f"column {name} has missing values"
    if kind == "object":
        return None
    try:
        column.cast(pa.type_for_alias(kind.lower()))
    except pa.ArrowInvalid:
        return f"column {name} holds numbers that do not fit into {kind}"
    return None
