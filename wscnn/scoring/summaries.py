"""Tables of objects, fields and wells from network outputs and masks."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from wscnn.core.tables import FIELDS, OBJECTS, WELLS, conform
from wscnn.core.wells import parse_well
from wscnn.network.card import Card
from wscnn.plates.store import Plate
from wscnn.scoring.tasks import ScoredWell
from wscnn.staging.field_qc import FEW_FIELDS
from wscnn.statistics.calibration import probability

#: Fewest common wells, which all folds may score, to align the folds.
MIN_COMMON_WELLS = 8


def align_folds(logits: pd.DataFrame) -> pd.Series:
    """Return scores on a scale common to the folds.

    Over the wells that all folds score, each fold's well means are brought to the same median and median absolute
    deviation: the mean of those of the folds, so that scores stay log-odds. Where fewer than `MIN_COMMON_WELLS` wells
    are common, or a fold gives them all the same score, scores stay unchanged.

    The mean of several folds spreads less than a single fold. So that wells that only some folds may score, the
    controls, are comparable with wells that all folds score, the scores of the former are shrunk towards the centre by
    the ratio of spreads in the common wells.

    Parameters
    ----------
    logits
        Of one plate, one row per field, phenotype and fold: ``well, phenotype, fold, logit``.
    """
    aligned = logits["logit"].copy()
    for _, rows in logits.groupby("phenotype"):
        every = rows.pivot_table(index="well", columns="fold", values="logit")
        means = every.dropna()
        centre = means.median()
        spread = (means - centre).abs().median()
        if len(means) >= MIN_COMMON_WELLS and (spread > 0).all():
            standard = (rows["logit"] - rows["fold"].map(centre)) / rows["fold"].map(spread)
            middle = centre.mean()
            common = ((means - centre) / spread).to_numpy()
            # Which folds score a well: one or several for a control, all for a sample.
            patterns, pattern = np.unique(every.notna().to_numpy(), axis=0, return_inverse=True)
            spreads = np.array([_mad(common[:, own].mean(axis=1)) for own in patterns])
            ratio = _mad(common.mean(axis=1)) / np.where(spreads > 0, spreads, np.nan)
            shrink = rows["well"].map(pd.Series(np.nan_to_num(ratio, nan=1.0)[pattern.ravel()], index=every.index))
            aligned[rows.index] = middle + standard * spread.mean() * shrink
    return aligned


def _mad(values: np.ndarray) -> float:
    """Return the median absolute deviation."""
    return float(np.median(np.abs(values - np.median(values))))


def _objects(plate: str, found: Mapping[str, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """Return the objects of all wells, columns by name for each, as one table."""
    if not found:
        return conform(pd.DataFrame(columns=list(OBJECTS)), OBJECTS)
    # Made at once: a table per well would cost as much as finding its objects.
    wells = np.repeat(list(found), [len(own["object"]) for own in found.values()])
    columns = {
        name: np.concatenate([own[name] for own in found.values()]) for name in OBJECTS.keys() - {"plate", "well"}
    }
    return conform(pd.DataFrame({"plate": plate, "well": wells, **columns}), OBJECTS)


def _long(
    wells: Sequence[ScoredWell],
    logits: Mapping[str, np.ndarray],
    phenotypes: Sequence[str],
    scales: Mapping[str, np.ndarray],
) -> pd.DataFrame:
    """Return the scores of wells, each of shape (folds, n, P), as one table, one row per fold, field and phenotype.

    Its columns are ``well, fold, field, phenotype, logit, margin, probability``.
    """
    # Made at once and not well by well, which would cost more than the networks do.
    columns: dict[str, list[np.ndarray]] = {
        name: [] for name in ("at", "fold", "field", "phenotype", "logit", "margin", "probability")
    }
    for at, well in enumerate(wells):
        values = logits[well.name].astype(float)
        folds, fields = np.array(well.folds)[:, None, None], well.fields["field"][:, None]
        of_fold = {key: scale[well.folds][:, None] for key, scale in scales.items()}
        rows = {
            "at": at,
            "fold": folds,
            "field": fields,
            "phenotype": np.arange(len(phenotypes)),
            "logit": values,
            "margin": values - of_fold["field"],
            "probability": probability(values, of_fold["slope"], of_fold["offset"]),
        }
        for name, cells in rows.items():
            columns[name].append(np.broadcast_to(cells, values.shape).ravel())
    table = pd.DataFrame({name: np.concatenate([np.empty(0), *parts]) for name, parts in columns.items()})
    table = table.astype({"at": int, "fold": int, "field": int, "phenotype": int})
    names = np.array([well.name for well in wells], dtype=object)
    return table.assign(well=names[table.pop("at")], phenotype=np.array(phenotypes, dtype=object)[table["phenotype"]])


def _summaries(
    plate: Plate,
    screen: str,
    quality: pd.DataFrame,
    cards: Sequence[Card],
    scored: Sequence[ScoredWell],
    long: pd.DataFrame,
    objects: pd.DataFrame,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables of fields and of wells."""
    # A fold that has not learned a phenotype gives no scores.
    long = long[long["logit"].notna()].copy()
    long["aligned"] = align_folds(long)
    held_out = {
        well.name: cards[well.folds[0]].fold
        for well in scored
        if len(well.folds) == 1 and cards[well.folds[0]].holds_out(f"{plate.name}/{well.name}")
    }
    unscored = dict.fromkeys((well.name for well in scored), "no fold that may score it learned anything")
    return summarise(plate, screen, quality, cards[0].phenotypes, long, objects, held_out, unscored)


def summarise(
    plate: Plate,
    screen: str,
    quality: pd.DataFrame,
    phenotypes: Sequence[str],
    long: pd.DataFrame,
    objects: pd.DataFrame,
    held_out: Mapping[str, int],
    unscored: Mapping[str, str],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables of fields and of wells.

    Parameters
    ----------
    plate, screen
        The staged plate, and the screen's name.
    quality
        One row per field: ``well, field, used, flags, n_cells`` and the field's box.
    phenotypes
        Those that were looked for.
    long
        One row per fold, field and phenotype that has a score: ``well, fold, field, phenotype, aligned, margin,
        probability``; where it has ``weight``, a well's score is the weighted mean of its fields'.
    objects
        The columns of `wscnn.core.tables.OBJECTS`.
    held_out
        The fold of each well that only the fold that tested it has scored.
    unscored
        Why a well that was looked at may have no score, by its name.
    """
    by_field, by_well = ["well", "field", "phenotype"], ["well", "phenotype"]
    classes = pd.DataFrame({"phenotype": list(phenotypes)})
    fields = quality.merge(classes, how="cross")
    fields = fields.merge(
        long.groupby(by_field).agg(
            score=("aligned", "mean"),
            score_sd=("aligned", "std"),
            margin=("margin", "mean"),
            probability=("probability", "mean"),
        ),
        how="left",
        on=by_field,
    ).merge(
        objects.groupby(by_field).agg(n_objects=("object", "size"), object_area_px=("area_px", "sum")),
        how="left",
        on=by_field,
    )
    fields = fields.fillna({"n_objects": 0, "object_area_px": 0}).assign(screen=screen, plate=plate.name)

    ours = fields.assign(
        positive=(fields["margin"] > 0).where(fields["margin"].notna()),
        px=(fields["height"] * fields["width"]).where(fields["used"], 0),
        cells=fields["n_cells"].astype("float64").where(fields["used"], 0.0),
    )
    wells = ours.groupby(by_well, sort=False).agg(
        n_fields=("field", "size"),
        n_fields_used=("used", "sum"),
        score_max=("score", "max"),
        fraction_positive_fields=("positive", "mean"),
        n_objects=("n_objects", "sum"),
        area=("object_area_px", "sum"),
        px=("px", "sum"),
        few=("flags", lambda flags: flags.eq(FEW_FIELDS).any()),
    )
    wells["n_cells"] = ours.groupby(by_well, sort=False)["cells"].sum(skipna=False)
    by_fold = _well_means(long, [*by_well, "fold"]).groupby(by_well)
    wells = wells.join(by_fold.agg(score="mean", score_sd="std")).reset_index()
    place = wells["well"].map(parse_well)
    why = np.select(
        [
            wells["score"].notna(),
            wells["well"].isin(unscored),
            wells["n_fields_used"] > 0,
            wells["few"],
        ],
        ["", wells["well"].map(dict(unscored)).fillna(""), "no fold may score it", "too few good fields"],
        "no good field",
    )
    wells = wells.assign(
        screen=screen,
        why_no_score=why,
        plate=plate.name,
        well_row=place.str[0],
        well_column=place.str[1],
        object_area_fraction=(wells["area"] / wells["px"]).where(wells["score"].notna()),
        n_cells=wells["n_cells"].where(wells["n_fields_used"] > 0).round(),
        fold=wells["well"].map(dict(held_out)),
        cell_intensity=np.nan,
    )
    return conform(fields, FIELDS)[list(FIELDS)], conform(wells, WELLS)[list(WELLS)]


def _well_means(long: pd.DataFrame, by: list[str]) -> pd.Series:
    """Return the mean of ``aligned`` over the fields of each well and fold, by ``weight`` where there is one."""
    if "weight" not in long:
        return long.groupby(by)["aligned"].mean()
    weighted = long.assign(total=long["aligned"] * long["weight"]).groupby(by)[["total", "weight"]].sum()
    return weighted["total"] / weighted["weight"]
