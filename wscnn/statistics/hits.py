"""Hit calls: well scores normalised, ranked among negative controls, combined over replicates, FDR controlled."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wscnn.core.errors import UserError
from wscnn.core.progress import log
from wscnn.core.provenance import made_from
from wscnn.core.screen_folder import ScreenFolder
from wscnn.core.screen_tables import load_layout
from wscnn.core.tables import (
    DRIFT,
    HITS,
    PLATES,
    SCREEN_WELLS,
    SUSPECTS,
    WARNINGS,
    WELLS,
    conform,
    read_table,
    write_table,
)
from wscnn.core.wells import DISCOVERED
from wscnn.network.card import Card, read_cards
from wscnn.staging.scale import read_scale
from wscnn.statistics import plate_qc
from wscnn.statistics.arrays import Array, Mask, Numbers
from wscnn.statistics.attainable import layout_cautions
from wscnn.statistics.cautions import Caution, gather, in_short, of_drift, of_models, of_scale, tabulate
from wscnn.statistics.conformal import _cells, choose_null, false_discovery_q, log_smallest_p, rank_sum_p, strata_of
from wscnn.statistics.doses import dose_series
from wscnn.statistics.effects import (
    bootstrap_interval,
    group_mean,
    group_median,
    group_sum,
    group_variance,
    replicate_ssmd,
)
from wscnn.statistics.explained import explained_by
from wscnn.statistics.normalize import (
    median,
    smallest_rest,
    spread,
)
from wscnn.statistics.phenotype import Phenotype
from wscnn.statistics.rare_fraction import UNKNOWN, Recall, rare_fraction, recall_of
from wscnn.statistics.reasons import call_reasons, row_cautions
from wscnn.statistics.separation import in_words, separations
from wscnn.statistics.shared_positions import control_position_p, position_p, sharing
from wscnn.statistics.well_tables import LAYOUT, check_wells, join_layout, read_wells, well_tables

# Columns that the statistics add to the table of wells.
_MADE = ("used", "z", "p")
# A well agrees with a hit when it lies above this share of the screen's negative controls.
_AGREES = 0.95
# Ways to divide negative controls into groups that are averaged.
_PARTITIONS = 32
# Where more than this share of this many perturbations differ from negative controls, none is called new.
_MOST, _MANY = 0.5, 10
_MOST_NEW = (
    "most perturbations differ from the negative controls, so that none is called new: the controls may differ from "
    "samples in reagent, density or position; see the plate maps, and compare with wells that are treated alike"
)


def call_hits(
    wells: Sequence[Path],
    layout: Path | None,
    output: Path,
    *,
    hits: dict[str, Any],
    checked: Path | None = None,
    models: Path | None = None,
    scale: Path | None = None,
    drift: Path | None = None,
) -> None:
    """Call hits from tables of well scores.

    Parameters
    ----------
    wells
        Tables of well scores (Parquet, CSV or TSV), or folders of them, with at least ``plate, well, score``; several
        phenotypes are distinguished by ``phenotype``.
    layout
        Table ``plate, well, perturbation, role, phenotype, batch`` and any further columns, as `check` or the user
        wrote it; None where the tables of wells hold ``perturbation`` and ``role`` themselves.
    output
        Folder for ``hits.parquet`` (one row per perturbation and phenotype), ``wells.parquet`` (one row per well and
        phenotype), ``plates.parquet`` (plate quality), ``suspects.parquet`` (controls that look mislabelled) and
        ``warnings.parquet`` (what all stages warn of), and ``doses.parquet`` (one curve per compound and phenotype
        where the layout has a column ``dose``; else empty).
    hits
        The config's section ``hits``, complete.
    checked
        Table of the warnings of `wscnn.preflight.check`; None: the layout is checked here.
    models
        Folder of the model that gave the scores, whose folds are checked; None where it is not known.
    scale
        The screen's scale (`wscnn.staging.scale`); None where ``mosaic.downsample`` was given.
    drift
        How far plates lie from those that the model was trained with (`wscnn.scoring.drift`); None where it was trained
        on this screen.

    Raises
    ------
    UserError
        When a table lacks a column, holds a well twice, or names a role that does not exist.
    """
    files = well_tables(wells)
    table, layout_table = read_wells(files, treated=layout is None), None
    if layout is not None:
        plates = sorted(table["plate"].unique())
        table, layout_table = join_layout(table, load_layout(layout, plates, checked=True))
    tables = analyse(
        table,
        layout_table,
        source=", ".join(map(str, wells[:3])),
        hits=hits,
        checked=None if checked is None else _read_warnings(checked),
        cards=[] if models is None else _cards(models),
        other_sizes=[] if scale is None else of_scale(read_scale(scale)),
        drift=None if drift is None else read_table(drift, DRIFT),
    )
    inputs = [(name, path) for name, path in (("layout", layout), ("drift", drift)) if path is not None]
    notes = made_from({"hits": hits}, [*inputs, *((f"wells/{path.stem}", path) for path in files)])
    screen = ScreenFolder(output)
    write_table(tables.hits, screen.table("hits"), notes, kind="hits", searched=["perturbation"])
    write_table(tables.wells, screen.table("wells"), notes, kind="screen_wells", searched=["plate", "perturbation"])
    write_table(tables.plates, screen.table("plates"), notes, kind="plates")
    write_table(tables.suspects, screen.table("suspects"), notes, kind="suspects")
    write_table(tables.doses, screen.table("doses"), notes, kind="doses")
    write_table(tables.warnings, screen.table("warnings"), notes, kind="warnings")


def _read_warnings(path: Path) -> pd.DataFrame:
    return read_table(path, WARNINGS)


def _cards(models: Path) -> list[Card]:
    cards = read_cards(models)
    if not cards:
        raise UserError(f"{models}: holds no card of a fold (fold-*.json); correct --models, or leave it out")
    return cards


@dataclass(frozen=True)
class Tables:
    """The tables of hit calling, as `call_hits` writes them."""

    hits: pd.DataFrame
    wells: pd.DataFrame
    plates: pd.DataFrame
    suspects: pd.DataFrame
    doses: pd.DataFrame
    warnings: pd.DataFrame


def analyse(
    table: pd.DataFrame,
    layout: pd.DataFrame | None,
    *,
    source: str,
    hits: dict[str, Any],
    checked: pd.DataFrame | None = None,
    cards: Sequence[Card] = (),
    other_sizes: Sequence[Caution] = (),
    drift: pd.DataFrame | None = None,
) -> Tables:
    """Return the tables of hit calling for a table of well scores.

    Parameters
    ----------
    table
        One row per well and phenotype: ``plate, well, perturbation, role, score`` at least.
    layout
        The wells that should be there (``plate, well, role, batch``), or None: those of `table`.
    source
        Name of the table in errors.
    hits
        The config's section ``hits``, complete.
    checked
        The warnings of `wscnn.preflight.check`; None: those of the layout are found here, from `table`.
    cards
        Of the folds of the model that gave the scores; none where it is not known.
    other_sizes
        What `wscnn.statistics.cautions.of_scale` says of the screen's scale.
    drift
        The columns of `wscnn.core.tables.DRIFT`, one row per plate; None where nothing is known.

    Raises
    ------
    UserError
        When a column is missing, a well is there twice, or a role does not exist.
    """
    place = ["plate", "well_row", "well_column", "phenotype"]
    # In one order whatever the order of files, so that sums, and so the tables' bytes, are the same.
    table = check_wells(table, source).sort_values(place, ignore_index=True)
    if replaced := [name for name in table.columns if name.lower() in _MADE]:
        log(f"hits: column {', '.join(replaced)} of the tables of wells: replaced by what is computed here")
        table = table.drop(columns=replaced)
    places = table if layout is None else layout
    extras = [name for name in table.columns if name not in {*WELLS, *LAYOUT}]
    plates = pd.Index(sorted({*table["plate"], *places["plate"]}), dtype="str")
    tests = table.loc[table["role"] == "sample", ["perturbation", "phenotype"]].drop_duplicates()
    in_family = tests["phenotype"].isin(DISCOVERED).value_counts()
    if checked is None:
        checked = tabulate("check", layout_cautions(_layout_of(table), hits))
    warnings = [checked, tabulate("scale", other_sizes), tabulate("train", of_models(cards))]
    drift = pd.DataFrame(columns=list(DRIFT)).astype(DRIFT) if drift is None else drift
    warnings.append(tabulate("hits", of_drift(drift[drift["plate"].isin(plates)])))
    recalls = recall_of(cards)
    scored, called, qualities, suspects = [], [], [], []
    for phenotype, part in table.groupby("phenotype", sort=True):
        screen = Phenotype.of(part, str(phenotype), plates, hits)
        if hits["normalize"] == "auto":
            log(f"hits: '{phenotype}': normalize: auto takes {screen.method}: {screen.choice.why}")
        quality = _quality(screen, part, places, plates, str(phenotype))
        screen = replace(screen, usable=quality["status"].eq("ok").to_numpy())
        quality["normalize"] = screen.method
        quality["normalize_reason"] = screen.choice.why if hits["normalize"] == "auto" else "as set"
        quality["controls_below"] = below = _calibration(screen)
        if np.isfinite(below):
            log(
                f"hits: '{phenotype}': your negative controls against each other: {100 * below:.0f} % below 0.05 "
                "(5 % is expected)"
            )
        quality = quality.assign(**separations(screen)).merge(drift, on="plate", how="left")
        quality["drift_of"] = quality["drift_of"].fillna("")
        log(f"hits: '{phenotype}': {in_words(quality.iloc[0])}")
        n_tests = int(in_family.get(phenotype in DISCOVERED, 0))
        calls = _call(screen, part, n_tests, recalls.get(str(phenotype), UNKNOWN))
        samples = calls.perturbations.query("role == 'sample'")
        above = samples["n_agree"].sum() / max(samples["n_wells"].sum(), 1)
        doubts = plate_qc.doubts(quality[screen.usable], above, corrected=screen.method in ("surface", "bscore"))
        if str(phenotype) in DISCOVERED and _most_are_new(calls.perturbations, hits["fdr"]):
            calls.perturbations["withheld"] = True
            doubts.append(Caution("most_new", _MOST_NEW))
        for doubt in doubts:
            log(f"hits: '{phenotype}': {doubt.message}")
        found = [replace(caution, phenotype=str(phenotype)) for caution in [*doubts, *_failed(quality)]]
        warnings.append(tabulate("hits", found))
        cautions = row_cautions(calls.perturbations, in_short(gather(warnings), str(phenotype)), hits["fdr"])
        scored.append(calls.wells)
        called.append(calls.perturbations.assign(phenotype=phenotype, caution=cautions))
        qualities.append(quality.assign(replicate_correlation=_replicate_correlation(screen)))
        if str(phenotype) not in DISCOVERED:  # which no label contradicts
            suspects.append(_suspects(screen, part))
    ranked = _rank(pd.concat(called, ignore_index=True), hits["fdr"])
    ranked = conform(ranked.merge(_constant(table, extras), on=["perturbation", "role"], how="left"), HITS)
    log(f"hits: {int(ranked['hit'].sum())} called in {len(tests)} tests at a false discovery rate of {hits['fdr']:g}")
    wells = _arranged(pd.concat(scored), extras).sort_values(place, ignore_index=True)
    return Tables(
        hits=ranked,
        wells=wells,
        plates=conform(pd.concat(qualities), PLATES).sort_values(["plate", "phenotype"], ignore_index=True),
        suspects=pd.concat(suspects or [pd.DataFrame(columns=list(SUSPECTS)).astype(SUSPECTS)]).sort_values(
            place, ignore_index=True
        ),
        doses=dose_series(wells),
        warnings=gather(warnings),
    )


def _most_are_new(perturbations: pd.DataFrame, fdr: float) -> bool:
    """Return whether most perturbations would be called: then negative controls are not a valid reference."""
    samples = perturbations[perturbations["role"] == "sample"]
    q = false_discovery_q(samples["p"].to_numpy(dtype=float))
    return len(samples) >= _MANY and float((q <= fdr).mean()) > _MOST


def _layout_of(table: pd.DataFrame) -> pd.DataFrame:
    """Return the layout that a checked table of wells was joined with: one row per well."""
    wells = table[table["role"] != "exclude"].drop_duplicates(["plate", "well_row", "well_column"])
    return wells.drop(columns="phenotype").rename(columns={"control_phenotype": "phenotype"})


def _failed(quality: pd.DataFrame) -> list[Caution]:
    """Return which plates are kept out of the calls, and why."""
    failed = quality.loc[quality["status"] == "failed", ["plate", "reasons"]]
    return [
        Caution("plate_failed", f"the plate is kept out of the calls: {reasons}", plate=plate)
        for plate, reasons in failed.itertuples(index=False)
    ]


@dataclass(frozen=True)
class Calls:
    """Results of one phenotype: one row per well, one row per perturbation and role."""

    wells: pd.DataFrame
    perturbations: pd.DataFrame


def _call(screen: Phenotype, part: pd.DataFrame, n_tests: int, recall: Recall = UNKNOWN) -> Calls:
    """Return the wells with ``used, z, p``, and the perturbations with all but ``q, hit, rank``."""
    treated = screen.used & (screen.perturbation >= 0)
    negatives = screen.controls(screen.z, screen.negative & screen.used)
    n_negative = np.isfinite(negatives).sum(axis=1)
    cells = _cells(screen.perturbation[treated], screen.plate[treated])
    choice = choose_null(
        cells,
        n_negative,
        smallest_rest(screen.method),
        n_tests,
        screen.settings["fdr"],
        screen.settings["compare_with"],
    ).reindex(range(len(screen.names)))
    pooled = choice["pooled"].eq(True).to_numpy()
    known = choice["smallest_p"].lt(1).to_numpy()

    above = np.zeros(len(screen.score), dtype=np.int64)
    for column in negatives.T:
        above += column[screen.plate] >= screen.z
    p = _well_p(screen, above, n_negative, pooled)
    null = _finite(screen.null())
    limit = np.quantile(null, _AGREES) if len(null) else np.nan

    shared, by_position, n_positions = _position_p(screen, treated)
    on_plates = np.bincount(
        cells["perturbation"], weights=n_negative[cells["plate"]], minlength=len(screen.names)
    ).astype(int)
    perturbations = screen.names.assign(
        p=np.where(known, _combined_p(screen, cells, treated, above, n_negative, pooled), np.nan),
        p_position=np.where(known, by_position, np.nan),
        shared=shared,
        n_controls=np.select([n_positions > 0, pooled], [n_positions, n_negative.sum()], on_plates),
        smallest_p=choice["smallest_p"].where(known).to_numpy(),
        null_kind=np.where(known, np.where(pooled, "pooled", "plate"), ""),
        n_agree=np.bincount(screen.perturbation[treated & (screen.z > limit)], minlength=len(screen.names)),
    )
    perturbations["uncorrected"] = (
        np.bincount(screen.perturbation[treated & screen.uncorrected], minlength=len(screen.names)) > 0
    )
    left_out = (screen.perturbation >= 0) & ~screen.usable[screen.plate]
    perturbations["withheld"] = False
    discovered = bool(part["phenotype"].isin(DISCOVERED).all())
    perturbations["explained_by"] = explained_by(screen, part, treated) if discovered else ""
    perturbations["n_left_out"] = np.bincount(screen.perturbation[left_out], minlength=len(screen.names))
    described = _describe(screen, part, treated, recall)
    return Calls(part.assign(used=screen.used, z=screen.z, p=p), pd.concat([perturbations, described], axis=1))


def _position_p(screen: Phenotype, treated: Mask) -> tuple[Mask, Array, Numbers]:
    """Return which perturbations share positions, their `p_position`, and the control positions behind it."""
    n, position = len(screen.names), screen.position
    shared = sharing(screen.perturbation[treated], position[treated], n)
    wells = pd.DataFrame(
        {"perturbation": screen.perturbation, "plate": screen.plate, "position": position, "z": screen.z}
    )
    own = wells[treated & np.append(shared, False)[screen.perturbation]]
    return (shared, *position_p(own, wells[screen.negative & screen.used], n))


def _calibration(screen: Phenotype) -> float:
    """Return the share of negative controls with p at most 0.05 among the other controls, combined as samples are.

    Controls at one position on several plates are taken together; where their positions differ between plates, the
    first of each plate, the second, and so on. NaN where none could reach 0.05.
    """
    own = screen.negative & screen.used
    wells = pd.DataFrame({"plate": screen.plate[own], "position": screen.position[own], "z": screen.z[own]})
    if wells.empty:
        return float("nan")
    in_order = wells.groupby("plate").cumcount()
    shared = wells["position"].nunique() <= len(wells) / 2
    wells["unit"] = pd.factorize(wells["position"] if shared else in_order)[0]
    of_plate = wells.groupby("plate")["z"]
    others = of_plate.transform("size").to_numpy() - 1
    above = of_plate.rank(method="max", ascending=False).to_numpy() - 1
    units, n = wells["unit"].to_numpy(), int(wells["unit"].max()) + 1
    strata = strata_of(units, others.astype(np.int64), np.ones(len(units), dtype=np.int64), n)
    reachable = np.array([np.exp(sum(log_smallest_p(np.array(k), np.array(r)) for k, r in unit)) for unit in strata])
    p = rank_sum_p(group_sum(above.astype(float), units, n), strata)
    if shared:
        by_position = control_position_p(wells)
        p[wells["unit"]] = np.fmax(p[wells["unit"]], by_position.loc[wells["position"]].to_numpy())
    able = reachable <= 0.05
    return float((p[able] <= 0.05).mean()) if able.any() else float("nan")


def _exceeding(screen: Phenotype, values: Array, size: Numbers, around: Numbers) -> tuple[Numbers, Numbers]:
    """Return how many null values are at least as large as each of `values`, and how many there are.

    Parameters
    ----------
    values
        (n,) means of `size` normalised wells of one plate.
    size, around
        (n,) wells in each mean; negative controls on its plate, by which it was normalised. The null of a value holds
        groups of the same size, normalised by no more controls.
    """
    exceeding, n_null = np.zeros(len(values), dtype=np.int64), np.zeros(len(values), dtype=np.int64)
    for each, most in np.unique(np.stack([size, around], axis=1), axis=0):
        mine = (size == each) & (around == most)
        # A single division of controls into groups would make calls a matter of chance, so several are averaged.
        counts = []
        for partition in range(_PARTITIONS if each > 1 else 1):
            null = np.sort(_finite(screen.null(int(each), int(most), partition)))
            n_null[mine] = len(null)
            counts.append(len(null) - np.searchsorted(null, values[mine], side="left"))
        exceeding[mine] = np.ceil(np.mean(counts, axis=0))
    return exceeding, n_null


def _well_p(screen: Phenotype, above: Numbers, n_negative: Numbers, pooled: Mask) -> Array:
    """Return each used well's p among negative controls: of its plate, or of all where its perturbation is `pooled`.

    A control is ranked among the others, held out; controls take the null that most perturbations take.
    """
    takes_pooled = np.append(pooled, pooled.sum() > len(pooled) / 2)[screen.perturbation] & screen.used
    treated, negative = takes_pooled & ~screen.negative, screen.negative & screen.used
    around = n_negative[screen.plate]
    with np.errstate(divide="ignore", invalid="ignore"):
        # A control is itself one of its plate's, so it is subtracted from both counts.
        p = np.where(around > negative, (above - negative + 1) / (around - negative + 1), np.nan)
        size = np.ones(int(treated.sum()), dtype=np.int64)
        exceeding, n_null = _exceeding(screen, screen.z[treated], size, around[treated])
        p[treated] = np.where(n_null > 0, (exceeding + 1) / (n_null + 1), np.nan)
    if takes_pooled[negative].any():
        groups = screen.null()
        held_out = groups[np.arange(groups.shape[1]) < n_negative[:, None]]
        order = np.flatnonzero(negative)[np.argsort(screen.plate[negative], kind="stable")]
        null = np.sort(_finite(groups))
        at_least = len(null) - np.searchsorted(null, held_out, side="left")
        p[order] = np.where(np.isfinite(held_out), at_least / max(len(null), 1), np.nan)
    p[~screen.used] = np.nan
    return p


def _combined_p(
    screen: Phenotype, cells: pd.DataFrame, treated: Mask, above: Numbers, n_negative: Numbers, pooled: Mask
) -> Array:
    """Return each perturbation's p: its wells' ranks summed, under its null."""
    n = len(screen.names)
    number, plate, size = (cells[name].to_numpy() for name in ("perturbation", "plate", "n"))
    u = group_sum(above[treated].astype(float), screen.perturbation[treated], n)
    strata = strata_of(number, n_negative[plate], size, n)
    if pooled.any():
        # A perturbation's wells on one plate share that plate's normalisation, so their mean is one value, ranked
        # among means of as many negative controls.
        of_well = np.searchsorted(
            number * len(screen.usable) + plate,
            screen.perturbation[treated] * len(screen.usable) + screen.plate[treated],
        )
        mean = group_mean(screen.z[treated], of_well, len(cells))
        exceeding, n_null = _exceeding(screen, mean, size, n_negative[plate])
        u = np.where(pooled, group_sum(exceeding.astype(float), number, n), u)
        by_size = cells.assign(n_null=n_null).groupby(["perturbation", "n", "n_null"]).size().reset_index(name="r")
        of, around, own = (by_size[name].to_numpy() for name in ("perturbation", "n_null", "r"))
        pooled_strata = strata_of(of, around, own, n)
        strata = [b if take else a for a, b, take in zip(strata, pooled_strata, pooled, strict=True)]
    return rank_sum_p(np.nan_to_num(u), strata)


def _describe(screen: Phenotype, part: pd.DataFrame, treated: Mask, recall: Recall) -> pd.DataFrame:
    """Return further figures of each perturbation: effect, agreement, objects and cells."""
    n, group, z = len(screen.names), screen.perturbation[treated], screen.z[treated]
    low, high = bootstrap_interval(z, group, n, screen.settings["seed"])
    of_plate = screen.plate[screen.negative & screen.used]
    control_z = screen.z[screen.negative & screen.used]
    n_plates = len(screen.usable)
    centre, variance = (f(control_z, of_plate, n_plates)[screen.plate[treated]] for f in (group_mean, group_variance))

    def column(name: str) -> Array:
        values = part[name] if name in part else pd.Series(np.nan, index=part.index)
        return np.asarray(values.to_numpy(dtype=float, na_value=np.nan), dtype=np.float64)

    fields, objects, cells = column("n_fields_used"), column("n_objects"), column("n_cells")
    control = screen.negative & screen.used
    rare, rare_low, rare_high = rare_fraction(
        objects[treated], cells[treated], group, n, objects[control], cells[control], recall
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        density = np.where(fields > 0, cells / fields, np.nan)
        relative = density / median(screen.controls(density, screen.negative & screen.used))[screen.plate]
        cell_percent = 100 * group_mean(relative[treated], group, n)
        return pd.DataFrame(
            {
                "effect": group_median(z, group, n),
                "effect_low": low,
                "effect_high": high,
                "effect_sd": np.sqrt(group_variance(z, group, n)),
                "n_wells": np.bincount(group, minlength=n),
                "n_plates": _cells(group, screen.plate[treated])
                .groupby("perturbation")
                .size()
                .reindex(range(n), fill_value=0),
                "ssmd": replicate_ssmd(z, group, n, centre, variance),
                "score_mean": group_mean(screen.score[treated], group, n),
                "model_sd": np.sqrt(group_mean(column("score_sd")[treated] ** 2, group, n)),
                "n_objects_per_field": group_sum(objects[treated], group, n) / group_sum(fields[treated], group, n),
                "rare_fraction": rare,
                "rare_fraction_low": rare_low,
                "rare_fraction_high": rare_high,
                "n_cells_per_field": group_mean(density[treated], group, n),
                "cell_percent": cell_percent,
                "cell_loss": cell_percent < 100 * (1 - screen.settings["cell_loss"]),
            }
        ).replace([np.inf, -np.inf], np.nan)


def _rank(called: pd.DataFrame, fdr: float) -> pd.DataFrame:
    """Return the perturbations with ``q, hit, rank``, sorted: samples first, the strongest evidence on top."""
    sample = called["role"].eq("sample")
    # Both must hold: p treats replicates as independent, p_position treats all wells at one position as one.
    taken = called[["p", "p_position"]].max(axis=1).where(called["p"].notna() & ~called["withheld"])
    # Trained phenotypes and discovered ones are corrected separately.
    family = called["phenotype"].isin(DISCOVERED)
    q = pd.Series(np.nan, index=called.index)
    for own in (family, ~family):
        q[own] = false_discovery_q(taken.where(sample)[own].to_numpy(dtype=float))
    called = called.assign(q=q, controls=~sample)
    called = called.assign(hit=called["q"].le(fdr), strength=-called["effect"], taken=taken)
    called["reason"] = call_reasons(called, fdr)
    called = called.sort_values(
        ["controls", "taken", "strength", "perturbation", "phenotype"], na_position="last", ignore_index=True
    )
    tested = called["q"].notna()
    return called.assign(rank=tested.cumsum().where(tested).astype("Int32")).drop(
        columns=["controls", "strength", "taken", "shared", "uncorrected", "n_left_out", "withheld"]
    )


def _quality(
    screen: Phenotype, part: pd.DataFrame, places: pd.DataFrame, plates: pd.Index, phenotype: str
) -> pd.DataFrame:
    """Return the quality of every plate, with ``status`` (ok, failed) and ``reasons``."""
    measured = plate_qc.measure(
        screen.controls(screen.score, screen.negative),
        screen.controls(screen.score, screen.positive),
        screen.grid(screen.sample),
        screen.border,
    )
    wanted = places[places["role"] != "exclude"].drop_duplicates(["plate", "well"])
    n_wells = wanted["plate"].value_counts().reindex(plates, fill_value=0)
    scored = part.loc[part["score"].notna() & (part["role"] != "exclude"), "plate"]
    n_scored = scored.value_counts().reindex(plates, fill_value=0)
    batch = places.drop_duplicates("plate").set_index("plate")["batch"].reindex(plates, fill_value="")
    quality = pd.DataFrame(
        {
            "screen": part["screen"].iloc[0],
            "plate": plates,
            "batch": batch.to_numpy(),
            "phenotype": phenotype,
            "status": "ok",
            "reasons": "",
            "n_wells": n_wells.to_numpy("int32"),
            "n_missing": (n_wells - n_scored).to_numpy("int32"),
        }
    )
    quality = pd.concat([quality, measured], axis=1)
    quality["reasons"] = plate_qc.failures(quality, screen.settings)
    normalised = np.bincount(screen.plate[screen.used], minlength=len(plates)) > 0
    quality.loc[(quality["reasons"] == "") & ~normalised, "reasons"] = plate_qc.NO_SCALE.get(screen.method, "")
    quality["status"] = np.where(quality["reasons"] == "", "ok", "failed")
    for plate, reasons in quality.loc[quality["status"] == "failed", ["plate", "reasons"]].itertuples(index=False):
        log(f"hits: plate '{plate}' is kept out of the calls of '{phenotype}': {reasons}")
    return quality


def _replicate_correlation(screen: Phenotype) -> Array:
    """Return each plate's rank correlation of its samples' z with the same perturbations' mean z on other plates."""
    used = screen.used & screen.sample
    z, number, plate = screen.z[used], screen.perturbation[used], screen.plate[used]
    cells = _cells(number, plate)
    cell = cells["perturbation"].to_numpy() * len(screen.usable) + cells["plate"].to_numpy()
    here = np.searchsorted(cell, number * len(screen.usable) + plate)
    own = np.bincount(here, weights=z, minlength=len(cells))
    count = cells["n"].to_numpy()
    of, n = cells["perturbation"].to_numpy(), len(screen.names)
    elsewhere = np.bincount(of, weights=count, minlength=n)[of] - count
    total = np.bincount(of, weights=own, minlength=n)[of] - own
    pairs = pd.DataFrame({"plate": cells["plate"], "own": own / count, "other": total / np.maximum(elsewhere, 1)})
    pairs = pairs[elsewhere > 0]
    ranks = pairs.groupby("plate")[["own", "other"]].rank()
    ranks -= ranks.groupby(pairs["plate"]).transform("mean")
    sums = pd.DataFrame(
        {"xy": ranks["own"] * ranks["other"], "xx": ranks["own"] ** 2, "yy": ranks["other"] ** 2}
    ).groupby(pairs["plate"])
    moments = sums.sum().reindex(range(len(screen.usable)))
    product = moments["xx"] * moments["yy"]
    return (moments["xy"] / product.where(product > 0) ** 0.5).to_numpy(dtype=float)


def _suspects(screen: Phenotype, part: pd.DataFrame) -> pd.DataFrame:
    """Return the control wells whose held-out score contradicts their label, and why."""
    negatives = screen.controls(screen.score, screen.negative)
    centre, scale = median(negatives), spread(negatives)
    height = median(screen.controls(screen.score, screen.positive)) - centre
    z = (screen.score - centre[screen.plate]) / scale[screen.plate]
    height[~(height > 0)] = np.nan
    position = 100 * (screen.score - centre[screen.plate]) / height[screen.plate]
    reason = plate_qc.suspects(z, position, screen.negative, screen.positive)
    found = part.assign(z=z, position=position, reason=reason)[reason != ""]
    return found[list(SUSPECTS)].astype(SUSPECTS)


def _constant(table: pd.DataFrame, extras: list[str]) -> pd.DataFrame:
    """Return the user's columns that are constant per perturbation: one row per perturbation and role."""
    groups = table[table["role"].isin(["sample", "positive"])].groupby(["perturbation", "role"])
    constant = [name for name in extras if name.lower() not in HITS and groups[name].nunique(dropna=False).le(1).all()]
    return groups[constant].first().reset_index() if constant else groups.size().reset_index()[["perturbation", "role"]]


def _arranged(wells: pd.DataFrame, extras: list[str]) -> pd.DataFrame:
    """Return the table of wells with its columns in order: position, treatment, scores, statistics, the user's."""
    known = {name: kind for name, kind in SCREEN_WELLS.items() if name in wells}
    return wells[[*known, *extras]].astype(known)


def _finite(values: Array) -> Array:
    return values[np.isfinite(values)]
