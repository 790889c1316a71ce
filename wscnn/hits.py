"""Hit calls: well scores normalised, ranked among negative controls, combined over replicates, FDR controlled."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wscnn import plate_qc
from wscnn.card import read_cards
from wscnn.cautions import Caution, gather, in_short, of_models, tabulate
from wscnn.config import load_layout
from wscnn.conformal import choose_null, false_discovery_q, rank_sum_p, strata_of
from wscnn.effects import bootstrap_interval, group_mean, group_median, group_sum, group_variance, replicate_ssmd
from wscnn.errors import UserError, listed
from wscnn.normalize import Array, bscore, by_group, centre_and_scale, held_out_groups, median, smallest_rest, spread
from wscnn.progress import log
from wscnn.provenance import made_from
from wscnn.tables import HITS, PLATES, SCREEN_WELLS, SUSPECTS, WARNINGS, WELLS, conform, read_table, write_table
from wscnn.well_tables import LAYOUT, check_wells, join_layout, read_wells, well_tables
from wscnn.wells import plate_format

Mask = NDArray[np.bool_]
Numbers = NDArray[np.int64]

# Columns that the statistics add to the table of wells.
_MADE = ("used", "z", "p")
# A well agrees with a hit when it lies above this share of the screen's negative controls.
_AGREES = 0.95


def call_hits(
    wells: Sequence[Path],
    layout: Path | None,
    output: Path,
    *,
    hits: dict[str, Any],
    checked: Path | None = None,
    models: Path | None = None,
) -> None:
    """Call hits from tables of well scores.

    Parameters
    ----------
    wells
        Tables of well scores (Parquet, CSV or TSV), or folders of them, with at least ``plate, well, score``; several
        phenotypes are told apart by ``phenotype``.
    layout
        Table ``plate, well, perturbation, role, phenotype, batch`` and any further columns, as `check` or the user
        wrote it; None where the tables of wells hold ``perturbation`` and ``role`` themselves.
    output
        Folder for ``hits.parquet`` (one row per perturbation and phenotype), ``wells.parquet`` (one row per well and
        phenotype), ``plates.parquet`` (plate quality), ``suspects.parquet`` (controls that look mislabelled) and
        ``warnings.parquet`` (what all stages warn of).
    hits
        The config's section ``hits``, complete.
    checked
        Table of the warnings of `wscnn.check`; None: the layout is looked at here.
    models
        Folder of the model that gave the scores, whose folds are looked at; None where it is not known.

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
        weak_folds=[] if models is None else _weak_folds(models),
    )
    inputs = [("layout", layout)] if layout is not None else []
    notes = made_from({"hits": hits}, [*inputs, *((f"wells/{path.stem}", path) for path in files)])
    write_table(tables.hits, output / "hits.parquet", notes, kind="hits", searched=["perturbation"])
    write_table(tables.wells, output / "wells.parquet", notes, kind="screen_wells", searched=["plate", "perturbation"])
    write_table(tables.plates, output / "plates.parquet", notes, kind="plates")
    write_table(tables.suspects, output / "suspects.parquet", notes, kind="suspects")
    write_table(tables.warnings, output / "warnings.parquet", notes, kind="warnings")


def _read_warnings(path: Path) -> pd.DataFrame:
    return read_table(path, WARNINGS)


def _weak_folds(models: Path) -> list[Caution]:
    cards = read_cards(models)
    if not cards:
        raise UserError(f"{models}: holds no card of a fold (fold-*.json); correct --models, or leave it out")
    return of_models(cards)


@dataclass(frozen=True)
class Tables:
    """The tables of hit calling, as `call_hits` writes them."""

    hits: pd.DataFrame
    wells: pd.DataFrame
    plates: pd.DataFrame
    suspects: pd.DataFrame
    warnings: pd.DataFrame


def analyse(
    table: pd.DataFrame,
    layout: pd.DataFrame | None,
    *,
    source: str,
    hits: dict[str, Any],
    checked: pd.DataFrame | None = None,
    weak_folds: Sequence[Caution] = (),
) -> Tables:
    """Return the tables of hit calling for a table of well scores.

    Parameters
    ----------
    table
        A row a well and phenotype: ``plate, well, perturbation, role, score`` at least.
    layout
        The wells that should be there (``plate, well, role, batch``), or None: those of `table`.
    source
        What to call the table in errors.
    hits
        The config's section ``hits``, complete.
    checked
        The warnings of `wscnn.check`; None: those of the layout are found here, from `table`.
    weak_folds
        What `wscnn.cautions.of_models` says of the model that gave the scores.

    Raises
    ------
    UserError
        When a column is missing, a well is there twice, or a role does not exist.
    """
    place = ["plate", "well_row", "well_column", "phenotype"]
    # In one order whatever the order of files, so that sums, and so the tables' bytes, come out the same.
    table = check_wells(table, source).sort_values(place, ignore_index=True)
    if replaced := [name for name in table.columns if name.lower() in _MADE]:
        log(f"hits: column {', '.join(replaced)} of the tables of wells: replaced by what is computed here")
        table = table.drop(columns=replaced)
    places = table if layout is None else layout
    extras = [name for name in table.columns if name not in {*WELLS, *LAYOUT}]
    plates = pd.Index(sorted({*table["plate"], *places["plate"]}), dtype="str")
    n_tests = len(table.loc[table["role"] == "sample", ["perturbation", "phenotype"]].drop_duplicates())
    if checked is None:
        checked = tabulate("check", layout_cautions(_layout_of(table), hits))
    warnings = [checked, tabulate("train", weak_folds)]
    scored, called, qualities, suspects = [], [], [], []
    for phenotype, part in table.groupby("phenotype", sort=True):
        screen = Phenotype.of(part, str(phenotype), plates, hits)
        quality = _quality(screen, part, places, plates, str(phenotype))
        screen = replace(screen, usable=quality["status"].eq("ok").to_numpy())
        calls = _call(screen, part, n_tests)
        samples = calls.perturbations.query("role == 'sample'")
        above = samples["n_agree"].sum() / max(samples["n_wells"].sum(), 1)
        doubts = plate_qc.doubts(quality[screen.usable], above, corrected=screen.method == "bscore")
        for doubt in doubts:
            log(f"hits: '{phenotype}': {doubt.message}")
        found = [replace(caution, phenotype=str(phenotype)) for caution in [*doubts, *_failed(quality)]]
        warnings.append(tabulate("hits", found))
        cautions = _cautions(calls.perturbations, in_short(gather(warnings), str(phenotype)), hits["fdr"])
        scored.append(calls.wells)
        called.append(calls.perturbations.assign(phenotype=phenotype, caution=cautions).drop(columns="n_left_out"))
        qualities.append(quality.assign(replicate_correlation=_replicate_correlation(screen)))
        suspects.append(_suspects(screen, part))
    ranked = _rank(pd.concat(called, ignore_index=True), hits["fdr"])
    ranked = conform(ranked.merge(_constant(table, extras), on=["perturbation", "role"], how="left"), HITS)
    log(f"hits: {int(ranked['hit'].sum())} called in {n_tests} tests at a false discovery rate of {hits['fdr']:g}")
    return Tables(
        hits=ranked,
        wells=_arranged(pd.concat(scored), extras).sort_values(place, ignore_index=True),
        plates=conform(pd.concat(qualities), PLATES).sort_values(["plate", "phenotype"], ignore_index=True),
        suspects=pd.concat(suspects).sort_values(place, ignore_index=True),
        warnings=gather(warnings),
    )


def smallest_p(layout: pd.DataFrame, hits: dict[str, Any]) -> pd.Series:
    """Return the smallest p-value that each sample perturbation of a layout can reach, were every well scored.

    Parameters
    ----------
    layout
        ``plate, well, perturbation, role, phenotype``, a row a well.
    hits
        The config's section ``hits``, complete.

    Returns
    -------
    p
        Indexed by perturbation.
    """
    plate, plates = pd.factorize(layout["plate"], sort=True)
    n_negative = np.bincount(plate[layout["role"] == "negative"], minlength=len(plates))
    if smallest_rest(hits["normalize"]):
        n_negative[n_negative < hits["min_controls"]] = 0
    samples = (layout["role"] == "sample").to_numpy() & (
        (n_negative[plate] > 0) if smallest_rest(hits["normalize"]) else True
    )
    names = layout.loc[layout["role"] == "sample", "perturbation"].unique()
    number = pd.Index(names).get_indexer(layout["perturbation"])
    choice = choose_null(
        _cells(number[samples], plate[samples]),
        n_negative,
        smallest_rest(hits["normalize"]),
        len(names) * _n_phenotypes(layout),
        hits["fdr"],
        hits["compare_with"],
    )
    p = choice["smallest_p"].reindex(range(len(names))).fillna(1.0)
    return pd.Series(p.to_numpy(), index=pd.Index(names, name="perturbation"), name="smallest_p").sort_index()


def layout_cautions(layout: pd.DataFrame, hits: dict[str, Any]) -> list[Caution]:
    """Return what a layout makes hard to tell: what cannot be called, and what cannot be told from a hit.

    Parameters
    ----------
    layout
        ``plate, well, well_row, well_column, perturbation, role, phenotype``, one row per well.
    hits
        The config's section ``hits``, complete.
    """
    return [*reachable(layout, hits), *_alike(layout), *_few_replicates(layout), *_edge_controls(layout)]


def reachable(layout: pd.DataFrame, hits: dict[str, Any]) -> list[Caution]:
    """Return what a layout keeps the hit calls from reaching; nothing where it keeps them from nothing.

    Parameters
    ----------
    layout, hits
        As for `layout_cautions`.
    """
    warnings: list[Caution] = []
    p = smallest_p(layout, hits)
    tests = len(p) * _n_phenotypes(layout)
    if len(p) == 0:
        return [Caution("no_samples", "no perturbation can be called, because no well has role sample")]
    fdr = hits["fdr"]
    # With R hits at its smallest p, a perturbation is called when that p is at most fdr R / tests.
    needed = np.ceil(p / fdr * tests - 1e-9)
    if (needed > tests).all():
        warnings.append(
            Caution(
                "unreachable_p",
                f"no perturbation can be called at a false discovery rate of {fdr:g}, whatever the scores: the "
                f"smallest p-value that any can reach is {p.min():.2g}, in {tests} tests; add negative controls or "
                "replicates",
            )
        )
    elif (needed > tests).any():
        worst = p[needed > tests]
        warnings.append(
            Caution(
                "unreachable_p",
                f"{len(worst)} of {len(p)} perturbations can never be called at a false discovery rate of {fdr:g}: "
                f"their smallest p-value is {worst.min():.2g}; add negative controls or replicates",
            )
        )
    elif (needed > 1).any():
        warnings.append(
            Caution(
                "not_alone",
                f"{int((needed > 1).sum())} of {len(p)} perturbations cannot be called alone: their smallest p-value "
                f"is {p[needed > 1].min():.2g}, which in {tests} tests passes a false discovery rate of {fdr:g} only "
                f"where at least {int(needed.max())} are hits; more negative controls or replicates lower it",
            )
        )
    if smallest_rest(hits["normalize"]):
        warnings += _few_controls(layout, hits["min_controls"])
    if hits["normalize"] == "bscore":
        warnings += _uncorrected(layout)
    return warnings


def _few_controls(layout: pd.DataFrame, least: int) -> list[Caution]:
    """Return which plates have too few negative controls to count, however well they are scored."""
    negatives = (layout["role"] == "negative").groupby(layout["plate"]).sum()
    few = negatives[negatives < least]
    if few.empty:
        return []
    named = listed((f"'{plate}' ({n})" for plate, n in few.items()), 5)
    return [
        Caution(
            "few_controls",
            f"fewer negative controls than hits.min_controls ({least}) on plate {named}: its wells get scores "
            "but are kept out of the calls; add negative controls there",
        )
    ]


def _n_phenotypes(layout: pd.DataFrame) -> int:
    return max(layout.loc[layout["role"] == "positive", "phenotype"].nunique(), 1)


def _alike(layout: pd.DataFrame) -> list[Caution]:
    """Return which perturbations differ by case alone, and so are not taken for replicates."""
    names = pd.Series(layout["perturbation"].unique())
    groups = [group.tolist() for _, group in names.groupby(names.str.casefold()) if len(group) > 1]
    if not groups:
        return []
    pairs = listed((" and ".join(f"'{name}'" for name in group) for group in groups), 5)
    return [Caution("alike_names", f"perturbations {pairs} differ by case alone and count as different ones")]


def _few_replicates(layout: pd.DataFrame) -> list[Caution]:
    counts = layout.loc[layout["role"] == "sample", "perturbation"].value_counts()
    single = int((counts == 1).sum())
    if not single:
        return []
    return [
        Caution(
            "few_replicates",
            f"{single} of {len(counts)} perturbations have one well only; without replicates a bad well cannot be told "
            "from a hit",
        )
    ]


def _edge_controls(layout: pd.DataFrame) -> list[Caution]:
    """Return which classes of controls lie at the plate's left and right edges alone."""
    widths = {
        plate: plate_format(list(zip(rows["well_row"], rows["well_column"], strict=True)))[1]
        for plate, rows in layout.groupby("plate")
    }
    from_right = layout["plate"].map(widths) - 1 - layout["well_column"]
    at_edge = (layout["well_column"] < 2) | (from_right < 2)
    # Tables of a user need not say which phenotype their positive controls show.
    classes = layout["phenotype"].where((layout["role"] == "positive") & (layout["phenotype"] != ""), layout["role"])
    controls = layout["role"].isin(["negative", "positive"])
    return [
        Caution(
            "edge_controls",
            f"all control wells of class {name} lie in the two outermost columns of a side: what the plate's edge does "
            "to cells may pass for the phenotype; see the plate heat maps of the report",
            phenotype="" if name in ("negative", "positive") else str(name),
        )
        for name in sorted(set(classes[controls]))
        if at_edge[controls & (classes == name)].all()
    ]


def _uncorrected(layout: pd.DataFrame) -> list[Caution]:
    """Return that negative controls lie in columns without samples, whose effects a B-score cannot know."""
    samples = layout[layout["role"] == "sample"].groupby("plate")["well_column"].agg(set)
    negatives = layout[layout["role"] == "negative"]
    away = [
        column not in samples.get(plate, ())
        for plate, column in zip(negatives["plate"], negatives["well_column"], strict=True)
    ]
    if not any(away):
        return []
    return [
        Caution(
            "uncorrected_controls",
            f"{sum(away)} of {len(negatives)} negative controls lie in columns without a sample well, whose effect a "
            "B-score cannot know and takes as 0: if those columns differ, so do their p-values; spread the controls",
        )
    ]


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


def _cautions(perturbations: pd.DataFrame, general: Sequence[str], fdr: float) -> list[str]:
    """Return for each perturbation, in words with semicolons between, what speaks against trusting its row.

    Parameters
    ----------
    perturbations
        As `_call` returns them.
    general
        What speaks against all of them.
    fdr
        The false discovery rate at which hits are called.
    """
    own = {
        "no well counts": perturbations["n_wells"] == 0,
        "few replicates": perturbations["n_wells"] == 1,
        "p cannot reach the FDR": perturbations["smallest_p"] > fdr,
        "plates left out": perturbations["n_left_out"] > 0,
    }
    rows = zip(*own.values(), strict=True)
    return ["; ".join([*compress(own, row), *general]) for row in rows]


@dataclass(frozen=True)
class Phenotype:
    """The wells of one phenotype as arrays (wells,), and how they are normalised.

    Attributes
    ----------
    score
        Scores, NaN where missing.
    plate, row, column
        Number of the plate, and place on it from 0.
    perturbation
        Number of the perturbation and role; -1 for wells that are nobody's (negative controls, excluded wells).
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
        number[tested], names = pd.MultiIndex.from_frame(part.loc[tested, ["perturbation", "role"]]).factorize(
            sort=True
        )
        return cls(
            score=part["score"].to_numpy(dtype=float),
            plate=plates.get_indexer(pd.Index(part["plate"])),
            row=part["well_row"].to_numpy(dtype=np.int64),
            column=part["well_column"].to_numpy(dtype=np.int64),
            perturbation=number,
            names=pd.DataFrame(list(names), columns=["perturbation", "role"], dtype="str"),
            negative=role.eq("negative").to_numpy(),
            positive=(role.eq("positive") & part["control_phenotype"].isin(["", phenotype])).to_numpy(),
            sample=role.eq("sample").to_numpy(),
            usable=np.ones(len(plates), dtype=bool),
            settings=settings,
        )

    @property
    def method(self) -> str:
        return self.settings["normalize"]

    def controls(self, values: Array, wells: Mask) -> Array:
        """Return the finite `values` of `wells` as (plates, n), filled up with NaN."""
        wells = wells & np.isfinite(values)
        return by_group(values[wells], self.plate[wells], len(self.usable))

    def grid(self, wells: Mask) -> Array:
        """Return the scores of `wells` as whole plates (plates, R, C), NaN elsewhere."""
        grid = np.full((len(self.usable), self.row.max() + 1, self.column.max() + 1), np.nan)
        grid[self.plate[wells], self.row[wells], self.column[wells]] = self.score[wells]
        return grid

    @cached_property
    def base(self) -> Array:
        """What the controls normalise: the scores, or the B-scores."""
        if self.method != "bscore":
            return self.score
        values = bscore(self.grid(np.ones(len(self.score), dtype=bool)), np.isfinite(self.grid(self.sample)))
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

    def null(self, size: int = 1, most: int | None = None) -> Array:
        """Return (plates, n) held-out means of groups of `size` negative controls, NaN where there is none."""
        negatives = self.controls(self.base, self.negative & self.used)
        return held_out_groups(negatives, self.positive_median, self.method, size, most, self.settings["seed"])


@dataclass(frozen=True)
class Calls:
    """What the statistics say of one phenotype: a row a well, a row a perturbation and role."""

    wells: pd.DataFrame
    perturbations: pd.DataFrame


def _call(screen: Phenotype, part: pd.DataFrame, n_tests: int) -> Calls:
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

    perturbations = screen.names.assign(
        p=np.where(known, _combined_p(screen, cells, treated, above, n_negative, pooled), np.nan),
        smallest_p=choice["smallest_p"].where(known).to_numpy(),
        null_kind=np.where(known, np.where(pooled, "pooled", "plate"), ""),
        n_agree=np.bincount(screen.perturbation[treated & (screen.z > limit)], minlength=len(screen.names)),
    )
    left_out = (screen.perturbation >= 0) & ~screen.usable[screen.plate]
    perturbations["n_left_out"] = np.bincount(screen.perturbation[left_out], minlength=len(screen.names))
    described = _describe(screen, part, treated)
    return Calls(part.assign(used=screen.used, z=screen.z, p=p), pd.concat([perturbations, described], axis=1))


def _cells(perturbation: Numbers, plate: Numbers) -> pd.DataFrame:
    """Return how many wells a perturbation has on a plate: ``perturbation, plate, n``, sorted."""
    wells = pd.DataFrame({"perturbation": perturbation, "plate": plate})
    return wells.groupby(["perturbation", "plate"]).size().rename("n").reset_index()


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
        null = np.sort(_finite(screen.null(int(each), int(most))))
        mine = (size == each) & (around == most)
        n_null[mine] = len(null)
        exceeding[mine] = len(null) - np.searchsorted(null, values[mine], side="left")
    return exceeding, n_null


def _well_p(screen: Phenotype, above: Numbers, n_negative: Numbers, pooled: Mask) -> Array:
    """Return each used well's p among negative controls: of its plate, or of all where its perturbation is `pooled`.

    A control is ranked among the others, held out; controls take the null that most perturbations take.
    """
    takes_pooled = np.append(pooled, pooled.sum() > len(pooled) / 2)[screen.perturbation] & screen.used
    treated, negative = takes_pooled & ~screen.negative, screen.negative & screen.used
    around = n_negative[screen.plate]
    with np.errstate(divide="ignore", invalid="ignore"):
        # A control is itself one of its plate's: taken off both counts.
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


def _describe(screen: Phenotype, part: pd.DataFrame, treated: Mask) -> pd.DataFrame:
    """Return what else is told of each perturbation: effect, agreement, objects and cells."""
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
    with np.errstate(divide="ignore", invalid="ignore"):
        density = np.where(fields > 0, cells / fields, np.nan)
        relative = density / median(screen.controls(density, screen.negative & screen.used))[screen.plate]
        cell_percent = 100 * group_mean(relative[treated], group, n)
        counted = np.where(np.isfinite(cells), objects, np.nan)
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
                "rare_fraction": group_sum(counted[treated], group, n) / group_sum(cells[treated], group, n),
                "n_cells_per_field": group_mean(density[treated], group, n),
                "cell_percent": cell_percent,
                "cell_loss": cell_percent < 100 * (1 - screen.settings["cell_loss"]),
            }
        ).replace([np.inf, -np.inf], np.nan)


def _rank(called: pd.DataFrame, fdr: float) -> pd.DataFrame:
    """Return the perturbations with ``q, hit, rank``, sorted: samples first, the strongest evidence on top."""
    sample = called["role"].eq("sample")
    called = called.assign(q=false_discovery_q(called["p"].where(sample).to_numpy(dtype=float)), controls=~sample)
    called = called.assign(hit=called["q"].le(fdr), strength=-called["effect"])
    called = called.sort_values(
        ["controls", "p", "strength", "perturbation", "phenotype"], na_position="last", ignore_index=True
    )
    tested = called["q"].notna()
    return called.assign(rank=tested.cumsum().where(tested).astype("Int32")).drop(columns=["controls", "strength"])


def _quality(
    screen: Phenotype, part: pd.DataFrame, places: pd.DataFrame, plates: pd.Index, phenotype: str
) -> pd.DataFrame:
    """Return the quality of every plate, with ``status`` (ok, failed) and ``reasons``."""
    measured = plate_qc.measure(
        screen.controls(screen.score, screen.negative),
        screen.controls(screen.score, screen.positive),
        screen.grid(screen.sample),
        _border(screen),
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


def _border(screen: Phenotype) -> Mask:
    """Return the outermost wells of each plate (plates, R, C)."""
    last = np.zeros((2, len(screen.usable)), dtype=np.int64)
    np.maximum.at(last[0], screen.plate, screen.row)
    np.maximum.at(last[1], screen.plate, screen.column)
    border = np.zeros((len(screen.usable), screen.row.max() + 1, screen.column.max() + 1), dtype=bool)
    border[:, 0, :] = border[:, :, 0] = True
    for plate, (row, column) in enumerate(last.T):
        rows, columns = plate_format([(int(row), int(column))])
        border[plate, rows - 1 :, :] = border[plate, :, columns - 1 :] = True
    return border


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
    """Return the user's columns that say one thing of each perturbation: a row a perturbation and role."""
    groups = table[table["role"].isin(["sample", "positive"])].groupby(["perturbation", "role"])
    constant = [name for name in extras if name.lower() not in HITS and groups[name].nunique(dropna=False).le(1).all()]
    return groups[constant].first().reset_index() if constant else groups.size().reset_index()[["perturbation", "role"]]


def _arranged(wells: pd.DataFrame, extras: list[str]) -> pd.DataFrame:
    """Return the table of wells with its columns in order: place, what was done, scores, statistics, the user's."""
    known = {name: kind for name, kind in SCREEN_WELLS.items() if name in wells}
    return wells[[*known, *extras]].astype(known)


def _finite(values: Array) -> Array:
    return values[np.isfinite(values)]
