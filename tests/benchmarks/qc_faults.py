"""How well quality control finds the faults that are planted in a simulated screen.

Run by hand: ``python tests/benchmarks/qc_faults.py [--seed N] [--wells N] [--fields N] [--faults N]``. For both kinds
of cells it prints which flags each planted fault got, then precision and recall of each flag. The thresholds were
chosen on other seeds and other compositions of fields. Nothing is asserted.
"""

import argparse
import tempfile
from pathlib import Path

import pandas as pd

from wscnn.acquisitions.index import index_plate
from wscnn.core.config import load_config
from wscnn.core.tables import read_table
from wscnn.simulate.screen import simulate_screen
from wscnn.staging.field_qc import FLAGS
from wscnn.staging.stage import stage_plate

#: The flag that each planted fault should get.
MEANT = {
    "blurred": "blurred",
    "saturated": "saturated",
    "empty": "empty",
    "fibre": "debris",
    "line": "lines",
    "stained": "staining",
}


def judged(screen: Path, out: Path, downsample: int = 2) -> pd.DataFrame:
    """Stage a simulated screen into `out`; return its table of quality with the planted `fault` (``none`` for good)."""
    config = load_config(screen / "config.yaml")
    tables = []
    for plate, images in pd.read_csv(screen / "plates.tsv", sep="\t")[["plate", "images"]].to_numpy():
        index_plate(plate, Path(images), config["acquisition"], out / f"{plate}.index.parquet")
        stage_plate(
            plate,
            out / f"{plate}.index.parquet",
            Path(images),
            out / f"{plate}.zarr",
            out / f"{plate}.json",
            out / f"{plate}.parquet",
            acquisition=config["acquisition"],
            mosaic=config["mosaic"] | {"downsample": downsample},
            illumination=config["illumination"],
            quality=config["qc"],
            dask=config["dask"],
        )
        tables.append(read_table(out / f"{plate}.parquet"))
    truth = pd.read_csv(screen / "truth" / "faults.tsv", sep="\t")
    return pd.concat(tables).merge(truth, on=["plate", "well", "field"], how="left").fillna({"fault": "none"})


def flags_by_fault(table: pd.DataFrame) -> pd.DataFrame:
    """Return how many fields of each fault (rows) have each flag, any flag, and how many there are."""
    has = pd.DataFrame({flag: table["flags"].str.split(",").map(lambda found, f=flag: f in found) for flag in FLAGS})
    has["any"] = ~table["used"]
    counts = has.groupby(table["fault"]).sum()
    counts["fields"] = table["fault"].value_counts()
    return counts.reindex([*MEANT, "none"], fill_value=0)


def scores(counts: pd.DataFrame) -> pd.DataFrame:
    """Return recall and precision of each flag; `sound`: the part of the fields it marks that have some fault."""
    rows = {
        flag: {
            "recall": counts.loc[fault, flag] / max(counts.loc[fault, "fields"], 1),
            "precision": counts.loc[fault, flag] / max(counts[flag].sum(), 1),
            "sound": 1 - counts.loc["none", flag] / max(counts[flag].sum(), 1),
        }
        for fault, flag in MEANT.items()
    }
    return pd.DataFrame(rows).T


def main(arguments: argparse.Namespace) -> None:
    """Print the tables."""
    for cells in ("nuclei", "multinucleate"):
        with tempfile.TemporaryDirectory() as folder:
            screen = Path(folder) / "screen"
            settings = {
                name: getattr(arguments, name) for name in ("plates", "wells", "fields", "size", "faults", "seed")
            }
            simulate_screen(screen, cells=cells, **settings)
            table = judged(screen, Path(folder) / "out", arguments.downsample)
        counts = flags_by_fault(table)
        print(f"\n{cells}: {len(table)} fields, seed {arguments.seed}; fields with each planted fault (rows) by flag")
        print(counts.to_string(), "\n")
        print(scores(counts).to_string(float_format="{:.2f}".format), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = {"plates": 2, "wells": 96, "fields": 4, "size": 540, "faults": 120, "seed": 11, "downsample": 2}
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    main(parser.parse_args())
