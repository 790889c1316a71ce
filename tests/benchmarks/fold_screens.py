"""Hit calls on simulated screens through the real folds: how often they are false, and what they find.

``python tests/benchmarks/fold_screens.py run RESULTS [--seeds FIRST LAST] [--rows NAME ...]`` simulates screens and
appends a line per screen to RESULTS (TSV); seeds that are there are not simulated again. ``summary RESULTS`` prints
a line per row. Seeds below 10,000 were used to choose methods, seeds from 10,000 to report.

Each well has features; a linear classifier stands in for the network and learns from two thirds of the control wells
what separates both classes. Controls are scored by the fold that did not learn from them, samples by all three; then
the package aligns the folds, judges the plates and calls hits, with default settings unless a row says otherwise.
"""

import argparse
import json
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wscnn.core.config import section
from wscnn.core.wells import parse_well, well_name
from wscnn.scoring.summaries import align_folds
from wscnn.statistics import hits as hits_module
from wscnn.statistics.layout_positions import position_cautions
from wscnn.statistics.phenotype import Phenotype
from wscnn.statistics.roc import auc

COLUMNS = ["row", "seed", "fdp", "found", "above", "low", "called", "confounded", "auc"]


@dataclass(frozen=True)
class Row:
    """A kind of screen.

    Attributes
    ----------
    plates, shape, negatives, positives
        Plates, rows and columns of each, and its control wells.
    wells
        Wells of each perturbation on each plate.
    separation
        Distance of both classes over the standard deviation within them, along the direction that separates them.
    edge
        What the border, and a gradient over the columns, add along another direction, in standard deviations.
    spots
        Standard deviation of what each position adds, the same on all plates.
    columns
        Whether negatives fill the left and positives the right columns.
    redrawn
        Whether positions are drawn newly for each plate.
    acting
        Share of the perturbations that act.
    skewed
        Whether features are lognormal.
    features, chance
        Features of a well; and the length of the random direction that each fold's classifier has learned beside the
        one that separates the classes, over the length of that one.
    settings
        Of the config's section ``hits``.
    """

    plates: int = 3
    shape: tuple[int, int] = (8, 12)
    negatives: int = 16
    positives: int = 16
    wells: int = 1
    separation: float = 2.0
    edge: float = 0.0
    spots: float = 0.0
    columns: bool = False
    redrawn: bool = False
    acting: float = 0.0
    skewed: bool = False
    features: int = 6
    chance: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)


_SMALL = Row(plates=2, shape=(4, 6), negatives=6, positives=6, separation=0.9)
_NOISY = {"acting": 0.1, "redrawn": True, "features": 24, "chance": 1.5}

# The last two rows are as hard as screens in which 0.29 and 0.60 were found before the spreads of controls and samples
# were matched (mean over seeds 500 to 515 at commit b35300c^).
ROWS = {
    "24 wells x 2": _SMALL,
    "24 wells x 2, min_auc 0.7": Row(**{**vars(_SMALL), "settings": {"min_auc": 0.7}}),
    "24 wells x 2, min_auc 0.7, bscore": Row(**{**vars(_SMALL), "settings": {"min_auc": 0.7, "normalize": "bscore"}}),
    "3 plates, one map": Row(),
    "3 plates, one map, skewed": Row(skewed=True),
    "3 plates, one map, edge": Row(edge=1.5),
    "3 plates, one map, spots": Row(spots=0.7),
    "3 plates, redrawn, edge": Row(edge=1.5, redrawn=True),
    "3 plates, redrawn, edge and spots": Row(edge=1.5, spots=0.7, redrawn=True),
    "control columns": Row(columns=True),
    "control columns, edge": Row(columns=True, edge=1.5),
    "control columns, edge, redrawn": Row(columns=True, edge=1.5, redrawn=True),
    "control columns, strong edge, redrawn": Row(columns=True, edge=4.0, redrawn=True),
    "control columns, edge, 10 % act": Row(columns=True, edge=1.5, redrawn=True, acting=0.1),
    "4 negatives a plate": Row(negatives=4),
    "one plate": Row(plates=1),
    "one plate, skewed, 10 % act": Row(plates=1, skewed=True, acting=0.1),
    "2 plates, 8 negatives, 4 wells": Row(plates=2, negatives=8, positives=8, wells=2, redrawn=True),
    "2 plates, 8 negatives, 4 wells, pooled": Row(
        plates=2, negatives=8, positives=8, wells=2, redrawn=True, settings={"compare_with": "pooled"}
    ),
    "3 plates, one map, 10 % act": Row(acting=0.1),
    "3 plates, redrawn, edge, 10 % act": Row(acting=0.1, edge=1.5, redrawn=True),
    "3 plates, redrawn, skewed, 10 % act": Row(acting=0.1, skewed=True, redrawn=True),
    "power: 3 plates, 16 negatives, 10 % act": Row(separation=3.4, **_NOISY),
    "power: 2 plates, 8 negatives, 4 wells, 10 % act": Row(
        plates=2, negatives=8, positives=8, wells=2, separation=4.1, **_NOISY
    ),
}


def simulate(seed: int, row: Row) -> tuple[pd.DataFrame, float]:
    """Return a table of wells of one screen, with column ``true``, and the AUC of its held-out control wells."""
    rng = np.random.default_rng([seed, zlib.crc32(repr(row).encode())])
    rows, columns = row.shape
    at = np.arange(rows * columns)
    order = rng.permutation(at)
    if row.columns:
        left, right = at[np.argsort(at % columns, kind="stable")], at[np.argsort(-(at % columns), kind="stable")]
        controls = np.concatenate([left[: row.negatives], right[: row.positives]])
        order = np.concatenate([controls, rng.permutation(np.setdiff1d(at, controls))])
    n_controls = row.negatives + row.positives
    border = np.isin(at // columns, (0, rows - 1)) | np.isin(at % columns, (0, columns - 1))
    place = row.edge * (border + (at % columns) / (columns - 1) - 0.5)
    direction, shifted = rng.normal(size=(2, row.features))
    direction, shifted = direction / np.linalg.norm(direction), shifted / np.linalg.norm(shifted)
    spots = row.spots * rng.normal(size=(len(at), row.features))
    acts = rng.random(len(at)) < row.acting
    plates = []
    for plate in range(row.plates):
        mine = order.copy()
        if row.redrawn:
            free = n_controls if row.columns else 0
            mine[free:] = rng.permutation(mine[free:])
        role = np.full(len(at), "sample", dtype=object)
        role[mine[: row.negatives]], role[mine[row.negatives : n_controls]] = "negative", "positive"
        number = np.empty(len(at), dtype=int)
        number[mine] = np.maximum(np.arange(len(at)) - n_controls, 0) // row.wells
        true = (role == "sample") & acts[number]
        noise = rng.normal(size=(len(at), row.features))
        if row.skewed:
            noise = (np.exp(noise) - np.exp(0.5)) / np.sqrt(np.exp(2) - np.exp(1))
        x = noise + place[:, None] * shifted + spots + rng.normal(size=row.features)
        x += row.separation * ((role == "positive") | true)[:, None] * direction
        part = np.full(len(at), -1)
        for kind in ("negative", "positive"):
            wells = rng.permutation(np.flatnonzero(role == kind))
            part[wells] = np.arange(len(wells)) % 3
        name = np.where(role == "sample", [f"S{k}" for k in number], role)
        plates.append((f"P{plate}", role, name, true, x, part))
    weights = []
    for fold in range(3):
        weight = np.zeros(row.features)
        for _, role, _, _, x, part in plates:
            low, high = ((role == kind) & (part != fold) for kind in ("negative", "positive"))
            weight += x[high].mean(axis=0) - x[low].mean(axis=0)
        by_chance = rng.normal(size=row.features)
        weights.append(weight + row.chance * np.linalg.norm(weight) * by_chance / np.linalg.norm(by_chance))
    names = np.array([well_name(int(k) // columns, int(k) % columns) for k in at])
    tables = []
    for plate, role, name, true, x, part in plates:
        fold = np.concatenate([np.flatnonzero((part < 0) | (part == k)) for k in range(3)])
        of = np.repeat(range(3), [((part < 0) | (part == k)).sum() for k in range(3)])
        logit = np.einsum("nf,nf->n", x[fold], np.array(weights)[of])
        logits = pd.DataFrame({"well": names[fold], "phenotype": "a", "fold": of, "logit": logit})
        score = logits.assign(score=align_folds(logits)).groupby("well")["score"].mean().reindex(names).to_numpy()
        tables.append(
            pd.DataFrame(
                {"plate": plate, "well": names, "role": role, "perturbation": name, "true": true, "score": score}
            )
        )
    table = pd.concat(tables, ignore_index=True)
    of = {role: table["score"].where(table["role"] == role) for role in ("negative", "positive")}
    areas = [
        auc(*(values[rows].dropna().to_numpy() for values in of.values()))
        for rows in table.groupby("plate").indices.values()
    ]
    return table, float(np.mean(areas))


def call(screen: pd.DataFrame, settings: dict[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the table of samples and the wells as `analyse` does, without what only describes them.

    Of 0.3 s that `analyse` takes for a screen, this takes a third.
    """
    position = {well: parse_well(well) for well in screen["well"].unique()}
    row, column = np.array([position[well] for well in screen["well"]]).T
    part = screen.assign(screen="", well_row=row, well_column=column, control_phenotype="", phenotype="rare")
    plates = pd.Index(sorted(part["plate"].unique()), dtype="str")
    phenotype = Phenotype.of(part, "rare", plates, settings)
    if settings["min_auc"] is not None:
        quality = hits_module._quality(phenotype, part, part.assign(batch=""), plates, "rare")
        phenotype = replace(phenotype, usable=quality["status"].eq("ok").to_numpy())
    n_tests = part.loc[part["role"] == "sample", "perturbation"].nunique()
    calls = hits_module._call(phenotype, part, n_tests)
    ranked = hits_module._rank(calls.perturbations.assign(phenotype="rare"), settings["fdr"])
    return ranked[ranked["role"] == "sample"], calls.wells


def measure(name: str, seed: int) -> dict[str, Any]:
    """Return a line of the results: what the calls of one screen are."""
    screen, auc = simulate(seed, ROWS[name])
    hits, wells = call(screen, section("hits", json.dumps(ROWS[name].settings)))
    truth = dict(zip(screen["perturbation"], screen["true"], strict=True))
    true = np.array([truth[perturbation] for perturbation in hits["perturbation"]], dtype=bool)
    called = hits["hit"].to_numpy(dtype=bool)
    # What q uses.
    p = np.fmax(hits["p"].to_numpy(), hits["p_position"].to_numpy())[~true]
    z, plates, used = wells["z"].to_numpy(), wells["plate"].to_numpy(), wells["used"].to_numpy(dtype=bool)
    negative = used & wells["role"].eq("negative").to_numpy()
    inactive = used & wells["role"].eq("sample").to_numpy() & ~wells["true"].to_numpy(dtype=bool)
    above = [
        (z[inactive & (plates == plate), None] > z[negative & (plates == plate)]).mean()
        for plate in sorted(set(plates[used]))
    ]
    confounded = {caution.code for caution in position_cautions(wells)} & {"confounded"}
    return {
        "row": name,
        "seed": seed,
        "fdp": (called & ~true).sum() / max(called.sum(), 1),
        "found": (called & true).sum() / true.sum() if true.any() else np.nan,
        "above": np.mean(above) if above else np.nan,
        "low": (p <= 0.05).mean(),
        "called": called.sum(),
        "confounded": bool(confounded),
        "auc": auc,
    }


def run(results: Path, names: list[str], seeds: range) -> None:
    """Append the lines of screens that `results` lacks."""
    if not results.is_file():
        results.write_text("\t".join(COLUMNS) + "\n")
    done = set(pd.read_csv(results, sep="\t", usecols=["row", "seed"]).itertuples(index=False, name=None))
    for name in names:
        for seed in seeds:
            if (name, seed) not in done:
                line = measure(name, seed)
                with results.open("a") as file:
                    file.write(
                        "\t".join(
                            f"{line[key]:.4g}" if isinstance(line[key], float) else str(line[key]) for key in COLUMNS
                        )
                        + "\n"
                    )


def summary(results: Path) -> None:
    """Print a line per row: means over screens, and the upper end of the 95 % interval of the FDR."""
    table = pd.read_csv(results, sep="\t")
    print(f"{'':48}screens    FDR  upper  found  P(inactive > negative)  p <= 0.05  called  confounded   AUC")
    for name in ROWS:
        part = table[table["row"] == name]
        if part.empty:
            continue
        upper = part["fdp"].mean() + 1.96 * part["fdp"].std() / np.sqrt(len(part))
        means = part[["found", "above", "low", "called", "confounded", "auc"]].mean()
        print(
            f"{name:48}{len(part):7}{part['fdp'].mean():7.3f}{upper:7.3f}{means['found']:7.2f}{means['above']:24.3f}"
            f"{means['low']:11.3f}{means['called']:8.1f}{means['confounded']:12.2f}{means['auc']:6.2f}"
        )


def main() -> None:
    """Simulate, or print what was simulated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ways = parser.add_subparsers(dest="way", required=True)
    simulation, printing = ways.add_parser("run"), ways.add_parser("summary")
    for way in (simulation, printing):
        way.add_argument("results", type=Path)
    simulation.add_argument("--seeds", type=int, nargs=2, default=(10_000, 10_400), metavar=("FIRST", "LAST"))
    simulation.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME")
    arguments = parser.parse_args()
    if arguments.way == "run":
        run(arguments.results, arguments.rows, range(*arguments.seeds))
    else:
        summary(arguments.results)


if __name__ == "__main__":
    main()
