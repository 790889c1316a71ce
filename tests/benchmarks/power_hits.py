"""Power of hit calling beside simpler ways, and its calibration.

``python tests/benchmarks/power_hits.py [screens]`` makes up screens of 96-well plates with plate shifts and scales; a
tenth of the perturbations act, at effect 0 none. On the same normalised wells: this package's q, the mean z above
3, and the Mann-Whitney and Student's t tests of a perturbation's wells against all negative controls, with
Benjamini-Hochberg at 0.05. "found" is the share of true hits that are called, "false" the share of calls that are
false (a screen without calls has none), averaged over screens.

With ``--null`` nothing acts, and plate, edge and row effects disturb the scores: how often p falls below levels.
"""

import argparse
import itertools
import json
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, kstest, mannwhitneyu, ttest_ind

from wscnn.core.config import section
from wscnn.core.wells import well_name
from wscnn.statistics.arrays import Array
from wscnn.statistics.hits import analyse

ROWS, COLUMNS, POSITIVES, SETS = 8, 12, 4, 4
FDR = 0.05


def made_up_screen(
    replicates: int, n_negative: int, effect: float, acting: float, seed: int, noise: str = "normal", edge: float = 0.0
) -> pd.DataFrame:
    """Return a table of wells: `SETS` sets of perturbations, each on `replicates` plates, with column ``true``.

    Controls lie anywhere; `effect` and `edge` (added to wells on the border, and as a gradient over rows) are in
    standard deviations of the noise, which is normal or lognormal.
    """
    rng = np.random.default_rng(seed)
    row, column = (index.ravel() for index in np.indices((ROWS, COLUMNS)))
    order = np.random.default_rng(1).permutation(row.size)
    role = np.full(row.size, "sample", dtype=object)
    role[order[:n_negative]] = "negative"
    role[order[n_negative : n_negative + POSITIVES]] = "positive"
    border = np.isin(row, (0, ROWS - 1)) | np.isin(column, (0, COLUMNS - 1))
    place = edge * (border + row / (ROWS - 1) - 0.5)
    names = np.array([well_name(r, c) for r, c in zip(row, column, strict=True)])
    plates = []
    for group in range(SETS):
        true = (rng.random(row.size) < acting) & (role == "sample")
        for replicate in range(replicates):
            own = rng.normal(size=row.size) if noise == "normal" else np.exp(rng.normal(size=row.size)) / 2.16
            score = own + place + effect * true + 8 * (role == "positive")
            plate = {"plate": f"{group}-{replicate}", "well": names, "role": role, "true": true}
            names_of = np.where(role == "sample", np.char.add(f"{group}-", names), role.astype(str))
            score = rng.normal() + np.exp(0.3 * rng.normal()) * score
            plates.append(pd.DataFrame({**plate, "perturbation": names_of, "score": score}))
    return pd.concat(plates, ignore_index=True)


def compare(screen: pd.DataFrame, normalize: str = "robust_z") -> dict[str, tuple[float, float]]:
    """Return for each way the share of true hits found, and of false ones among those called."""
    tables = analyse(screen, None, source="screen", hits=section("hits", f'{{"normalize": "{normalize}"}}'))
    hits = tables.hits[tables.hits["role"] == "sample"].set_index("perturbation")
    wells = tables.wells[tables.wells["role"] == "sample"]
    own = np.stack([group.to_numpy() for _, group in wells.groupby("perturbation")["z"]])
    hits = hits.sort_index()
    true = screen.groupby("perturbation")["true"].any().reindex(hits.index).to_numpy()
    null = tables.wells.loc[tables.wells["role"] == "negative", "z"].to_numpy()
    u = mannwhitneyu(own, null[None, :], alternative="greater", axis=1).pvalue
    t = ttest_ind(own, null[None, :], alternative="greater", axis=1).pvalue
    calls = {
        "wscnn": hits["hit"].to_numpy(),
        "z > 3": own.mean(axis=1) > 3,
        "Mann-Whitney": false_discovery_control(u) <= FDR,
        "Student's t": false_discovery_control(t) <= FDR,
    }
    return {
        name: ((called & true).sum() / max(true.sum(), 1), (called & ~true).sum() / max(called.sum(), 1))
        for name, called in calls.items()
    }


#: Screens in which nothing acts: settings, and what disturbs the scores.
NULLS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "plate effects, null: plate": ({"compare_with": "plate"}, {}),
    "plate effects, null: pooled": ({"compare_with": "pooled"}, {}),
    "plate effects, lognormal, pooled": ({"compare_with": "pooled"}, {"noise": "lognormal"}),
    "edge, row, bscore, null: plate": ({"normalize": "bscore", "compare_with": "plate"}, {"edge": 1.5}),
    "edge, row, bscore, null: pooled": ({"normalize": "bscore", "compare_with": "pooled"}, {"edge": 1.5}),
    "edge, row, robust_z (uncorrected)": ({}, {"edge": 1.5}),
}


def null_p(keys: dict[str, str], kinds: dict[str, Any], screens: int) -> tuple[Array, Array]:
    """Return the p-values (screens, perturbations) of screens without hits, and which screens call one."""
    p, called = [], []
    for seed in range(screens):
        screen = made_up_screen(3, 16, 0.0, 0.0, seed, **kinds)
        hits = analyse(screen, None, source="screen", hits=section("hits", json.dumps(keys))).hits
        samples = hits[hits["role"] == "sample"].sort_values("perturbation")
        p.append(samples["p"].to_numpy())
        called.append(samples["hit"].any())
    return np.stack(p), np.array(called)


def independent(p: Array) -> Array:
    """Return one perturbation's p of each of the sets: they share no plate, so they are nearly independent."""
    return p[:, :: p.shape[1] // SETS][:, :SETS].ravel()


def calibrate(screens: int) -> None:
    """Print how p-values lie where nothing acts."""
    levels = (0.5, 0.1, 0.05, 0.01, 0.001)
    print(f"{screens} screens of {3 * SETS} plates without a hit; KS: that p is not smaller than uniform")
    print(f"{'':36}" + "".join(f"p<={level:<7g}" for level in levels) + "    KS   realised FDR")
    for name, (keys, kinds) in NULLS.items():
        p, called = null_p(keys, kinds, screens)
        shares = "".join(f"{(p <= level).mean():<10.4f}" for level in levels)
        test = kstest(independent(p), "uniform", alternative="greater").pvalue
        error = np.sqrt(called.mean() * (1 - called.mean()) / screens)
        print(f"{name:36}{shares}{test:>6.2f}{called.mean():>9.3f} +- {error:.3f}", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("screens", type=int, nargs="?", default=20)
    parser.add_argument("--null", action="store_true", help="Print the calibration instead.")
    arguments = parser.parse_args()
    if arguments.null:
        calibrate(arguments.screens)
        return
    ways = ["wscnn", "z > 3", "Mann-Whitney", "Student's t"]
    print(f"{'':34}" + "".join(f"{way:>16}" for way in ways))
    print(f"{'noise':10}{'replicates':>11}{'controls':>9}{'SD':>4}" + f"{'found':>9}{'false':>7}" * len(ways))
    for noise, replicates, controls, effect in itertools.product(
        ("normal", "lognormal"), (1, 2, 3, 4), (8, 16), (0, 2, 4, 6)
    ):
        runs = [
            compare(made_up_screen(replicates, controls, effect, 0.1 if effect else 0.0, seed, noise))
            for seed in range(arguments.screens)
        ]
        cells = ""
        for way in ways:
            found, false = np.mean([run[way] for run in runs], axis=0)
            cells += f"{found:>9.2f}{false:>7.2f}"
        print(f"{noise:10}{replicates:>11}{controls:>9}{effect:>4}{cells}", flush=True)


if __name__ == "__main__":
    main()
