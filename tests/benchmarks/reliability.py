"""How far the scores of a simulated screen are to be believed: by its truth, which no stage has seen.

``python tests/benchmarks/reliability.py results/demo demo`` after ``make demo``. Fields of treated wells are scored by
all folds, which never saw them. First table: the predicted probability beside the share of fields that hold a rare
cell. Second: the spread over folds, as the chance that the score lies on the other side of the threshold (normal),
beside the share of calls that are wrong.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

from wscnn.core.tables import read_table
from wscnn.reporting.results import read_results
from wscnn.statistics.calibration import reliability


def main() -> None:
    """Print both tables for each phenotype."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="Results of the screen.")
    parser.add_argument("screen", type=Path, help="Folder that `wscnn simulate screen` made.")
    given = parser.parse_args()
    results = read_results(given.results)
    fields = pd.concat([read_table(path) for path in sorted((given.results / "fields").glob("*.parquet"))])
    wells = results.wells.loc[results.wells["fold"].isna(), ["plate", "well", "phenotype"]]
    fields = fields[fields["used"]].merge(wells, on=["plate", "well", "phenotype"])
    cells = read_table(given.screen / "truth" / "cells.parquet")
    for phenotype, own in fields.groupby("phenotype"):
        rare = cells[cells["phenotype"] == phenotype][["plate", "well", "field"]].drop_duplicates().assign(truth=True)
        truth = own.merge(rare, on=["plate", "well", "field"], how="left")["truth"].notna().to_numpy()
        score, spread = own["score"].to_numpy(), own["score_sd"].to_numpy()
        threshold = np.mean([card["thresholds"][phenotype]["field"] for card in results.cards])
        print(f"{phenotype}: {len(own)} fields, {truth.mean():.1%} hold a rare cell")
        print("probability that the field is of a positive well, and share that hold a rare cell")
        _show(reliability(own["probability"].to_numpy(), truth))
        print("chance, by the spread over folds, that a call is wrong, and share that are wrong")
        _show(reliability(norm.sf(np.abs(score - threshold) / spread), (score > threshold) != truth))


def _show(table: pd.DataFrame) -> None:
    print(table.to_string(index=False, float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
