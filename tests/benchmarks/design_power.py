"""The power that `wscnn design` predicts beside that of simulated screens: ``python tests/benchmarks/design_power.py``.

Screens are laid out by the package, cells are counted by chance, plates shift and scale the scores, and hits are called
with default settings. Printed is the share of acting perturbations that is called, for each of twelve designs.
"""

import argparse

import numpy as np
import pandas as pd
from fold_screens import call

from wscnn.core.config import section
from wscnn.design.maps import Design, make_layout
from wscnn.design.power import Assumptions, predicted_power

CONTROLS = pd.DataFrame(
    {"perturbation": ["DMSO", "taxol"], "role": ["negative", "positive"], "phenotype": ["", "rare"]}
)


def assumed(prevalence: float, well_sd: float = 0.003, acting: float = 0.1) -> Assumptions:
    return Assumptions(prevalence, acting, cells_per_field=60, recall=0.7, background=0.004, well_sd=well_sd)


#: What is assumed, the design, and the number of perturbations.
DESIGNS = [
    (assumed(0.040), Design(96, 2, 8, 4, 4), 72),
    (assumed(0.040), Design(96, 2, 16, 8, 4), 72),
    (assumed(0.022), Design(96, 3, 16, 8, 4), 72),
    (assumed(0.020), Design(96, 3, 16, 8, 9), 72),
    (assumed(0.014), Design(96, 4, 16, 8, 9), 140),
    (assumed(0.030, well_sd=0.008), Design(96, 4, 16, 8, 9), 72),
    (assumed(0.045, well_sd=0.008), Design(96, 3, 12, 6, 4), 140),
    (assumed(0.028), Design(384, 2, 32, 16, 4), 300),
    (assumed(0.028, acting=0.03), Design(384, 2, 32, 16, 9), 300),
    (assumed(0.014), Design(384, 3, 32, 16, 9), 300),
    (assumed(0.050), Design(384, 2, 16, 8, 2), 300),
    (assumed(0.025, acting=0.2), Design(384, 2, 24, 12, 4), 300),
]


def library(n: int) -> pd.DataFrame:
    """Return a table of `n` perturbations, with a further column."""
    return pd.DataFrame({"perturbation": [f"gene {k}" for k in range(n)], "vendor": "V1"})


def simulated(assumed: Assumptions, design: Design, n: int, screens: int) -> float:
    """Return the power of screens that are laid out, disturbed by plate and called as real ones are."""
    found = []
    for seed in range(screens):
        rng = np.random.default_rng([8, seed])
        table = library(n)
        layout = make_layout(table, design, CONTROLS, seed)
        acting = set(table["perturbation"][rng.random(n) < assumed.acting])
        if not acting:
            continue
        acts = (layout["perturbation"].isin(acting) | (layout["role"] == "positive")).to_numpy(float)
        share = assumed.draw(acts, design.fields, rng)
        plate, names = pd.factorize(layout["plate"])
        score = rng.normal(size=len(names))[plate] + np.exp(0.2 * rng.normal(size=len(names)))[plate] * share
        hits, _ = call(layout.assign(score=score), section("hits", "{}"))
        found.append(hits.loc[hits["perturbation"].isin(acting), "hit"].mean())
    return float(np.mean(found))


def main() -> None:
    """Print a line per design."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("screens", type=int, nargs="?", default=150)
    arguments = parser.parse_args()
    print("wells replicates negatives fields perturbations prevalence  predicted  simulated  difference")
    for assumptions, design, n in DESIGNS:
        expected = predicted_power(assumptions, design, n, fdr=0.05, seed=1, screens=400)
        reached = simulated(assumptions, design, n, arguments.screens)
        print(
            f"{design.wells:5}{design.replicates:11}{design.negatives:10}{design.fields:7}{n:14}"
            f"{assumptions.prevalence:11.3f}{expected:11.2f}{reached:11.2f}{reached - expected:+12.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
