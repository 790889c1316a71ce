"""Comparison with simpler methods on the same wells, with the same folds and hit calls as the network."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from wscnn.baselines.measure import feature_names
from wscnn.baselines.methods import (
    Array,
    Cells,
    Novelty,
    Scale,
    even_sample,
    forest_scores,
    profile,
    tails_of,
)
from wscnn.core.cluster import cpus
from wscnn.core.errors import UserError
from wscnn.core.progress import log, progress
from wscnn.core.provenance import folds_in, made_from
from wscnn.core.screen_folder import ScreenFolder
from wscnn.core.tables import (
    BASELINE,
    BASELINE_FOLDS,
    BASELINE_WELLS,
    CELLS,
    HITS,
    SCREEN_WELLS,
    read_table,
    write_table,
)
from wscnn.core.wells import DISCOVERED
from wscnn.network.card import PARTS, Card, read_cards
from wscnn.statistics.hits import analyse
from wscnn.statistics.roc import auc

#: Name of the network's rows in the tables.
NETWORK = "network"

# Number of control cells by which features are compared, and of each plate's negative control cells that standardise
# them.
_MOST_CELLS = 40_000
_MOST_REFERENCE = 5_000
# With fewer cells in a plate's negative controls, all its cells standardise the features.
_FEW_REFERENCE = 50
# Minimum number of training wells of each class per fold.
_FEWEST_WELLS = 2
# Minimum number of common wells to bring folds to one scale.
_FEWEST_COMMON = 8
# Columns that hit calling adds.
_CALLED = ["used", "z", "p"]


def run_baselines(
    cells: Sequence[Path],
    wells: Path,
    hits: Path,
    models: Path,
    output: Path,
    *,
    baseline: Mapping[str, Any],
    calling: dict[str, Any],
) -> None:
    """Score all wells by simpler methods, call hits as for the network, and write both side by side.

    Parameters
    ----------
    cells
        Tables of nuclei (`wscnn.baselines.measure.measure_plate`), one for each plate.
    wells, hits
        The network's tables of wells and hits.
    models
        Folder of the model that scored the screen: its cards say which fold tests which control well. Where they name
        no well of this screen, the control wells are assigned to folds again.
    output
        Folder for ``baseline.parquet`` (one row per method, phenotype and perturbation), ``baseline_wells.parquet``
        (one row per method, phenotype and well) and ``baseline_folds.parquet`` (one row per method, phenotype and
        fold). A method that cannot be used, for lack of nuclei or controls, has no row; the log says why.
    baseline, calling
        The config's sections ``baseline`` and ``hits``, complete.

    Raises
    ------
    UserError
        When a table is missing or damaged, or is not of this screen.
    """
    # Simpler methods are compared where positive controls say what is right.
    network_wells, network_hits = (
        table[~table["phenotype"].isin(DISCOVERED)]
        for table in (read_table(wells, SCREEN_WELLS), read_table(hits, HITS))
    )
    plates = {path.stem: path for path in cells}
    if strange := sorted(set(network_wells["plate"]) - set(plates)):
        raise UserError(f"{wells}: has wells of plate '{strange[0]}', of which no table of nuclei is given; add it")
    contest = network_wells[network_wells["role"].ne("exclude")].drop(columns=_CALLED).reset_index(drop=True)
    folds = _folds(contest, read_cards(models), baseline["seed"])
    # One thread: several may add up in another order.
    with threadpool_limits(1):
        scored = _scores(plates, contest, folds, baseline)
    parts = [network_wells.assign(method=NETWORK)]
    called = [network_hits.assign(method=NETWORK)]
    for method in baseline["methods"]:
        if method not in scored or scored[method].empty:
            continue
        log(f"baseline: {method}")
        tables = analyse(scored[method], None, source=f"scores of {method}", hits=calling)
        parts.append(tables.wells.assign(method=method))
        called.append(tables.hits.assign(method=method))
    every = pd.concat([part[list(BASELINE_WELLS)].astype(BASELINE_WELLS) for part in parts], ignore_index=True)
    notes = made_from(
        {"baseline": baseline, "hits": calling},
        [
            *((f"cells/{name}", path) for name, path in sorted(plates.items())),
            ("wells", wells),
            ("hits", hits),
            *folds_in(models),
        ],
    )
    by_fold = _fold_auc(every)
    for row in by_fold.groupby(["method", "phenotype"], sort=False)["auc"].mean().reset_index().itertuples():
        log(f"baseline: {row.method}, {row.phenotype}: AUC of held-out control wells {row.auc:.3f}, mean of the folds")
    screen = ScreenFolder(output)
    write_table(by_fold, screen.table("baseline_folds"), notes, kind="baseline_folds")
    write_table(every, screen.table("baseline_wells"), notes, kind="baseline_wells")
    table = pd.concat([part[list(BASELINE)].astype(BASELINE) for part in called], ignore_index=True)
    write_table(table, screen.table("baseline"), notes, kind="baseline")


def _folds(wells: pd.DataFrame, cards: Sequence[Card], seed: int) -> pd.Series:
    """Return which fold tests each well, by ``plate/well``: control wells, or all wells of plates that are held out.

    Wells of a fold that was left out are missing.
    """
    rows = wells.drop_duplicates(["plate", "well"])
    keys = rows["plate"] + "/" + rows["well"]
    tested = {card.unit(well): card.fold for card in cards for well in card.parts.get("test", [])}
    folds = keys.map(cards[0].unit).map(tested) if cards else pd.Series(np.nan, index=keys.index)
    if folds.isna().all():
        from wscnn.training.parts import assign_parts

        own = rows.loc[rows["role"].isin(["negative", "positive"])]
        labelled = own[["plate", "well", "role"]].assign(phenotype=own["control_phenotype"])
        try:
            # Fold k is tested on part k + 2.
            folds = ((assign_parts(labelled, seed) + 1) % len(PARTS)).reindex(keys.index)
        except UserError as error:
            log(f"baseline: the control wells cannot be assigned to folds: {'; '.join(error.problems)}")
    return pd.Series(folds.to_numpy(float), keys.to_numpy()).dropna()


@dataclass(frozen=True)
class _Plate:
    """The nuclei of a plate: features, the index of each one's well among the compared wells, -1 for none."""

    cells: Cells
    of: NDArray[np.int64]


class _Tables:
    """The tables of nuclei, read one at a time, in one order."""

    def __init__(self, paths: Mapping[str, Path], keys: pd.Index) -> None:
        self.paths = [paths[name] for name in sorted(paths)]
        self.keys = keys
        self.features: list[str] = []

    def __iter__(self) -> Iterator[_Plate]:
        for path in self.paths:
            table = read_table(path, CELLS)
            names = feature_names(list(table.columns))
            if not len(table):
                continue
            if self.features and names != self.features:
                raise UserError(f"{path}: has other features than the plates before it; measure the plates again")
            self.features = names
            of = self.keys.get_indexer(pd.Index(table["plate"] + "/" + table["well"]))
            inside = of >= 0
            yield _Plate(table.loc[inside, names].to_numpy(np.float32), of[inside])


def _scores(
    paths: Mapping[str, Path], contest: pd.DataFrame, folds: pd.Series, baseline: Mapping[str, Any]
) -> dict[str, pd.DataFrame]:
    """Return for each method the table of wells with its scores, as hit calling takes it."""
    rows = contest.drop_duplicates(["plate", "well"]).sort_values(["plate", "well"], ignore_index=True)
    keys = pd.Index(rows["plate"] + "/" + rows["well"])
    fold = folds.reindex(keys).fillna(-1).to_numpy(int)
    wells = _Wells(rows, fold, sorted(set(fold) - {-1}))
    if not wells.numbers:
        log("baseline: no control well has a test fold; only the network is shown")
        return {}
    seen = _look(_Tables(paths, keys), wells, baseline)
    if seen is None:
        log("baseline: no nucleus was found on any plate; only the network is shown")
        return {}
    found: dict[str, pd.DataFrame] = {}
    for method in baseline["methods"]:
        scored = [
            rows.drop(columns=["score", "score_sd", "score_max", "fold"]).merge(
                scores, on=["plate", "well"], how="left"
            )
            for phenotype, rows in contest.groupby("phenotype", sort=True)
            if (scores := _score(method, str(phenotype), seen, wells, baseline["seed"])) is not None
        ]
        if scored:
            found[method] = pd.concat(scored, ignore_index=True)
    return found


@dataclass(frozen=True)
class _Wells:
    """The compared wells, once each: their rows, the test fold of each (-1: none), and the folds."""

    rows: pd.DataFrame
    fold: NDArray[np.int64]
    numbers: list[int]

    @property
    def negative(self) -> NDArray[np.bool_]:
        return self.rows["role"].eq("negative").to_numpy()

    def positive(self, phenotype: str | None = None) -> NDArray[np.bool_]:
        """Return which wells are positive controls, of one phenotype or of any."""
        is_positive = self.rows["role"].eq("positive")
        if phenotype is not None:
            is_positive &= self.rows["control_phenotype"].eq(phenotype)
        return is_positive.to_numpy()


@dataclass(frozen=True)
class _Seen:
    """What was measured of the nuclei of each well: their number per field, and by fold their profile and novelty."""

    density: Array
    profiles: dict[int, Array]
    novelty: dict[int, Array]


def _look(tables: _Tables, wells: _Wells, baseline: Mapping[str, Any]) -> _Seen | None:
    """Return what the tables of nuclei show, each read twice; None where they hold no nucleus."""
    n = len(wells.rows)
    control = wells.negative | wells.positive()
    random = np.random.default_rng(baseline["seed"])
    counted = np.zeros(n)
    samples: list[_Plate] = []
    scales: list[dict[int, Scale]] = []
    for plate in tables:
        counted += np.bincount(plate.of, minlength=n)
        kept = np.flatnonzero(control[plate.of])
        kept = kept[even_sample(plate.of[kept], _MOST_CELLS // len(tables.paths), random)]
        samples.append(_Plate(plate.cells[kept], plate.of[kept]))
        scales.append({k: _scale(plate, wells.negative & (wells.fold != k), random) for k in wells.numbers})
    if not samples:
        return None
    judges = {
        k: _Judge.of(samples, [scale[k] for scale in scales], wells, k, baseline["methods"], random)
        for k in wells.numbers
    }
    profiles: dict[int, list[tuple[int, Array]]] = {k: [] for k in wells.numbers}
    novelty = {k: np.full(n, np.nan) for k in wells.numbers}
    for plate, scale in progress(zip(tables, scales, strict=True), len(samples), "plates compared"):
        present = np.unique(plate.of)
        for k, judge in judges.items():
            cells = scale[k](plate.cells)
            if judge.tails is not None:
                profiles[k] += [(well, profile(cells[plate.of == well], judge.tails)) for well in present]
            if judge.novelty is not None:
                new = np.bincount(plate.of, weights=judge.novelty.distance(cells) > judge.limit, minlength=n)
                novelty[k][present] = (new / np.maximum(np.bincount(plate.of, minlength=n), 1))[present]
    fields = wells.rows["n_fields_used"].astype("float64").to_numpy()
    return _Seen(
        density=np.divide(counted, fields, out=np.full(n, np.nan), where=fields > 0),
        profiles={k: _stacked(own, n) for k, own in profiles.items()},
        novelty=novelty,
    )


def _stacked(profiles: Sequence[tuple[int, Array]], n: int) -> Array:
    """Return profiles of some wells as an array of all wells, NaN for the others."""
    table = np.full((n, len(profiles[0][1]) if profiles else 1), np.nan)
    for well, values in profiles:
        table[well] = values
    return table


def _scale(plate: _Plate, reference: NDArray[np.bool_], random: np.random.Generator) -> Scale:
    """Return the scale of a plate's cells: by those of `reference` wells, or of all where these have few."""
    own = np.flatnonzero(reference[plate.of])
    chosen = own if len(own) >= _FEW_REFERENCE else np.arange(len(plate.of))
    return Scale.of(plate.cells[chosen[even_sample(plate.of[chosen], _MOST_REFERENCE, random)]])


@dataclass(frozen=True)
class _Judge:
    """What a fold has learned about cells: the tails of features among negative controls, and what is novel."""

    tails: Cells | None
    novelty: Novelty | None
    limit: float

    @classmethod
    def of(
        cls,
        samples: Sequence[_Plate],
        scales: Sequence[Scale],
        wells: _Wells,
        fold: int,
        methods: Sequence[str],
        random: np.random.Generator,
    ) -> "_Judge":
        cells = np.concatenate([scale(sample.cells) for sample, scale in zip(samples, scales, strict=True)])
        of = np.concatenate([sample.of for sample in samples])
        tested = wells.fold[of] == fold
        known = np.flatnonzero(wells.negative[of] & ~tested)
        held_out = np.flatnonzero(wells.negative[of] & tested)
        tails = tails_of(cells[known]) if "forest" in methods and len(known) else None
        if "novelty" not in methods or not len(known) or not len(held_out):
            return cls(tails, None, np.nan)
        novelty = Novelty(cells[known[even_sample(of[known], _MOST_REFERENCE, random)]])
        return cls(tails, novelty, Novelty.limit(novelty.distance(cells[held_out])))


def _score(method: str, phenotype: str, seen: _Seen, wells: _Wells, seed: int) -> pd.DataFrame | None:
    """Return ``plate, well, score, score_sd, score_max, fold`` by a method, None where it cannot be used."""
    negative, positive = wells.negative, wells.positive(phenotype)
    by_fold: dict[int, Array] = {}
    for k in wells.numbers:
        train = (negative | positive) & (wells.fold != k)
        if method == "count":
            by_fold[k] = _count_scores(seen.density, train & positive, train & negative)
        elif method == "novelty":
            by_fold[k] = seen.novelty[k]
        else:
            known = np.asarray(np.isfinite(seen.profiles[k]).all(axis=1))
            fewest = min(int((train & known & side).sum()) for side in (negative, positive))
            if fewest < _FEWEST_WELLS:
                log(
                    f"baseline: {method}, {phenotype}: fold {k} is left out: one class has {fewest} training wells "
                    f"with nuclei, {_FEWEST_WELLS} are needed"
                )
                continue
            by_fold[k] = np.full(len(known), np.nan)
            profiles = seen.profiles[k][known]
            by_fold[k][known] = forest_scores(profiles, train[known], positive[known], seed + k, cpus())
    scores = [values for values in by_fold.values() if np.isfinite(values).any()]
    if not scores:
        log(f"baseline: {method}, {phenotype}: left out: no well can be scored, for lack of nuclei or control wells")
        return None
    return _combined(by_fold, wells)


def _count_scores(density: Array, positive: NDArray[np.bool_], negative: NDArray[np.bool_]) -> Array:
    """Return nuclei per field, negated unless positive training controls have more of them than negative ones."""
    known = np.isfinite(density)
    return density if auc(density[negative & known], density[positive & known]) > 0.5 else -density


def _combined(by_fold: Mapping[int, Array], wells: _Wells) -> pd.DataFrame:
    """Return the scores of wells: of those that a fold tests by this fold, of other samples the mean of the folds.

    Before that the folds are scaled to one median and median absolute deviation over the wells that all may score.
    """
    single = wells.negative | wells.positive() | (wells.fold >= 0)
    table = np.stack(list(by_fold.values()), axis=1)
    common = np.isfinite(table).all(axis=1) & ~single
    if common.sum() >= _FEWEST_COMMON:
        centre = np.median(table[common], axis=0)
        spread = np.median(np.abs(table[common] - centre), axis=0)
        if (spread > 0).all():
            table = (table - centre) / spread * spread.mean() + centre.mean()
    columns = {k: i for i, k in enumerate(by_fold)}
    own = np.array([columns.get(int(k), -1) for k in wells.fold])
    tested = table[np.arange(len(table)), own]
    score = np.where(single, np.where(own >= 0, tested, np.nan), table.mean(axis=1))
    spread_of_folds = table.std(axis=1, ddof=1) if table.shape[1] > 1 else np.full(len(table), np.nan)
    return pd.DataFrame(
        {
            "plate": wells.rows["plate"],
            "well": wells.rows["well"],
            "score": score,
            "score_sd": np.where(single, np.nan, spread_of_folds),
            "score_max": np.nan,
            "fold": pd.Series(wells.fold).where(pd.Series(single & (own >= 0))).astype("Int8"),
        }
    )


def _fold_auc(wells: pd.DataFrame) -> pd.DataFrame:
    """Return how well each method separates held-out control wells, by fold."""
    shows = wells["role"].eq("positive") & wells["control_phenotype"].eq(wells["phenotype"])
    own = wells[(wells["role"].eq("negative") | shows) & wells["score"].notna()]
    rows = []
    for (method, phenotype, fold), part in own.groupby(["method", "phenotype", "fold"], sort=False, dropna=False):
        positive = part["role"].eq("positive").to_numpy()
        score = part["score"].to_numpy()
        rows.append(
            (method, phenotype, fold, auc(score[~positive], score[positive]), (~positive).sum(), positive.sum())
        )
    table = pd.DataFrame(rows, columns=list(BASELINE_FOLDS)).astype(BASELINE_FOLDS)
    return table.sort_values(["phenotype", "method", "fold"], kind="stable", ignore_index=True)
