"""Hit calls on real plates with known nulls, and on simulated screens that disturb scores as real plates do.

``python tests/benchmarks/real_plates.py lincs FILE`` turns DMSO positions of LINCS plates into samples (FILE:
lincs_cell_counts.tsv.gz, score: minus the nuclei). Of each plate map, four disjoint sixes of the 24 DMSO positions are
nulls once, at which the other 18 are negative controls. Printed are the share of nulls with a p of at most 0.05 (p, and
the larger of p and p_position, which q uses), the runs with a false call, and the share called of the positions whose
median count is below half of their plates' DMSO. ``--maps even`` or ``odd`` takes every other map: choose on
one half, report on the other.

``python tests/benchmarks/real_plates.py folds [SCREENS]`` makes up screens in which nothing acts: every well has
features, of which a weak classifier learns from two thirds of the control wells what separates both classes. Controls
are scored by the fold that did not learn from them, samples by all three; then folds are aligned and hits called.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from wscnn.core.config import section
from wscnn.core.wells import well_name
from wscnn.scoring.summaries import align_folds
from wscnn.statistics.hits import analyse

SIXES = 4
ROWS, COLUMNS, FEATURES = 8, 12, 6


def lincs(path: Path, maps: str, settings: str) -> None:
    """Print how often DMSO positions are called."""
    table = pd.read_csv(path, sep="\t", keep_default_na=False, na_values={"nuclei": [""]})
    table = table.assign(score=-table["nuclei"].astype(float))
    nulls, taken, wrong, acting, runs = [], [], 0, [], 0
    names = sorted(table["plate_map"].unique())
    names = {"all": names, "even": names[::2], "odd": names[1::2]}[maps]
    for name in names:
        wells = table[table["plate_map"] == name].copy()
        dmso = np.array(sorted(wells.loc[wells["negative"].astype(str) == "True", "well"].unique()))
        centre = wells[wells["well"].isin(dmso)].groupby("plate")["score"].median()
        ratio = (wells["score"] / wells["plate"].map(centre)).groupby(wells["well"]).median()
        dying = set(ratio.index[ratio < 0.5]) - set(dmso)
        for six in range(SIXES):
            held = set(dmso[six::SIXES])
            role = np.where(wells["well"].isin(set(dmso) - held), "negative", "sample")
            perturbation = np.where(role == "negative", "DMSO", wells["well"])
            given = wells[["plate", "well", "score"]].assign(role=role, perturbation=perturbation)
            hits = analyse(given, None, source="LINCS", hits=section("hits", settings)).hits.set_index("perturbation")
            own = hits.loc[sorted(held)]
            nulls.append(own["p"].to_numpy())
            taken.append(own[["p", "p_position"]].max(axis=1).to_numpy())
            wrong += bool(own["hit"].any())
            acting.append(hits.loc[sorted(dying), "hit"].to_numpy())
            runs += 1
    p, both = np.concatenate(nulls), np.concatenate(taken)
    print(f"{len(p)} nulls: p <= 0.05 {np.mean(p <= 0.05):.1%}; as q uses it {np.mean(both <= 0.05):.1%}")
    print(f"runs with a false call: {wrong} of {runs}; cell loss called: {np.concatenate(acting).mean():.1%}")


#: Rows of the fold benchmark: plates, negatives a plate, separation, effect of position, whether controls have columns
#: of their own, whether positions are drawn anew for each plate, share of perturbations that act.
FOLD_ROWS = {
    "2 plates, weak classifier": (2, 8, 0.4, 0.0, False, False, 0.0),
    "3 plates": (3, 16, 2.0, 0.0, False, False, 0.0),
    "3 plates, edge": (3, 16, 2.0, 1.5, False, False, 0.0),
    "3 plates, edge, positions drawn anew": (3, 16, 2.0, 1.5, False, True, 0.0),
    "3 plates, control columns, edge": (3, 16, 2.0, 1.5, True, False, 0.0),
    "3 plates, 10 % act, positions drawn anew": (3, 16, 2.0, 0.0, False, True, 0.1),
}


def fold_screen(seed: int, row: tuple[int, int, float, float, bool, bool, float]) -> pd.DataFrame:
    """Return a table of wells of one screen, with column ``true``."""
    plates, n, separation, edge, own_columns, anew, acting = row
    rng = np.random.default_rng(seed)
    at = np.arange(ROWS * COLUMNS)
    order = rng.permutation(at)
    if own_columns:
        order = np.concatenate([at[at % COLUMNS == 0], at[at % COLUMNS == 1], at[at % COLUMNS >= 10]])
        order = np.concatenate([order, np.setdiff1d(at, order)])
    border = np.isin(at // COLUMNS, (0, ROWS - 1)) | np.isin(at % COLUMNS, (0, COLUMNS - 1))
    place = edge * (border + (at % COLUMNS) / (COLUMNS - 1) - 0.5)
    direction, shifted = rng.normal(size=(2, FEATURES)) / np.sqrt(FEATURES)
    acts = rng.random(len(at)) < acting
    parts = []
    for plate in range(plates):
        mine = rng.permutation(order) if anew else order
        role, name = np.full(len(at), "sample", dtype=object), np.full(len(at), "", dtype=object)
        role[mine[:n]], role[mine[n : 2 * n]] = "negative", "positive"
        name[mine] = [f"S{k}" for k in range(len(at))]
        true = (role == "sample") & acts[[int(k[1:]) for k in name]]
        x = rng.normal(size=(len(at), FEATURES)) + place[:, None] * shifted + rng.normal(size=FEATURES)
        x += separation * ((role == "positive") | true)[:, None] * direction * np.sqrt(FEATURES) / 2
        part = np.full(len(at), -1)
        for kind in ("negative", "positive"):
            wells = rng.permutation(np.flatnonzero(role == kind))
            part[wells] = np.arange(len(wells)) % 3
        name = np.where(role == "sample", name, role)
        parts.append((f"P{plate}", role, name, true, x, part))
    weights = []
    for fold in range(3):
        weight = np.zeros(FEATURES)
        for _, role, _, _, x, part in parts:
            low, high = ((role == kind) & (part != fold) for kind in ("negative", "positive"))
            weight += x[high].mean(axis=0) - x[low].mean(axis=0)
        weights.append(weight)
    tables = []
    names = np.array([well_name(int(k) // COLUMNS, int(k) % COLUMNS) for k in at])
    for plate, role, name, true, x, part in parts:
        logits = pd.concat(
            pd.DataFrame({"well": names, "phenotype": "a", "fold": k, "logit": x @ weights[k]})[
                (part < 0) | (part == k)
            ]
            for k in range(3)
        ).reset_index(drop=True)
        score = logits.assign(score=align_folds(logits)).groupby("well")["score"].mean().reindex(names).to_numpy()
        tables.append(
            pd.DataFrame(
                {"plate": plate, "well": names, "role": role, "perturbation": name, "true": true, "score": score}
            )
        )
    return pd.concat(tables, ignore_index=True)


def folds(screens: int, settings: str) -> None:
    """Print calibration and power through the folds."""
    for title, row in FOLD_ROWS.items():
        false, found, above, low = [], [], [], []
        for seed in range(screens):
            screen = fold_screen(seed, row)
            tables = analyse(screen, None, source="screen", hits=section("hits", settings))
            hits = tables.hits[tables.hits["role"] == "sample"]
            true = hits["perturbation"].map(screen.groupby("perturbation")["true"].any()).to_numpy(dtype=bool)
            called = hits["hit"].to_numpy(dtype=bool)
            false.append((called & ~true).sum() / max(called.sum(), 1))
            found.append((called & true).sum() / max(true.sum(), 1))
            low.append((hits.loc[~true, "p"] <= 0.05).mean())
            wells = tables.wells[tables.wells["used"]]
            for _, plate in wells.groupby("plate"):
                inactive = plate.loc[(plate["role"] == "sample") & ~plate["true"].astype(bool), "z"].to_numpy()
                above.append((inactive[:, None] > plate.loc[plate["role"] == "negative", "z"].to_numpy()).mean())
        error = np.std(false) / np.sqrt(len(false))
        print(
            f"{title:42} FDR {np.mean(false):.3f} (upper {np.mean(false) + 1.645 * error:.3f})  found "
            f"{np.mean(found):.2f}  P(inactive > negative) {np.mean(above):.3f}  p <= 0.05 {np.mean(low):.3f}",
            flush=True,
        )


def main() -> None:
    """Print one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ways = parser.add_subparsers(dest="way", required=True)
    real = ways.add_parser("lincs")
    real.add_argument("file", type=Path)
    real.add_argument("--maps", choices=["all", "even", "odd"], default="all")
    made = ways.add_parser("folds")
    made.add_argument("screens", type=int, nargs="?", default=400)
    for way in (real, made):
        way.add_argument("--settings", default="{}", help="The config's section hits, as JSON.")
    arguments = parser.parse_args()
    if arguments.way == "lincs":
        lincs(arguments.file, arguments.maps, arguments.settings)
    else:
        folds(arguments.screens, arguments.settings)


if __name__ == "__main__":
    main()
