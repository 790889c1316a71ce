"""Novelty on made-up screens without positive controls, judged by their truth: one line of JSON per seed.

    python tests/benchmarks/bench_discovery.py FOLDER --screens classes --seeds 0 1 2

Each screen runs through the whole workflow at default settings but ``discovery.method: novelty``. A seed whose figures
are in FOLDER/<screens>.jsonl is not run again, so a table fills over several sittings.

demo: the screen of `make demo`, its positive controls excluded. classes: real nuclei, three perturbations each with a
class of mitosis of its own in about 10 % of the cells, 24 negative controls per plate, 15 inactive perturbations.
micronuclei_05, micronuclei_15: nuclei with micronuclei in about 5 or 15 % of the cells of three perturbations.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from scipy.spatial import KDTree

from wscnn.plates.store import Plate
from wscnn.preflight.jobs import read_jobs
from wscnn.reporting.gallery import top_cells
from wscnn.statistics.roc import auc

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
#: Options of `wscnn simulate screen` for each kind of screen.
_EXPLORED = ["--positives", "0", "--negatives", "24", "--strong", "3", "--weak", "0"]
_MITOSIS = ["--phenotype", "prometaphase", "--phenotype", "metaphase", "--phenotype", "anaphase"]
_MICRONUCLEI = ["--cells", "micronuclei", *_EXPLORED, "--prevalence"]
SCREENS = {
    "demo": [],
    "classes": [*_EXPLORED, *_MITOSIS, "--prevalence", "0.1"],
    "micronuclei_05": [*_MICRONUCLEI, "0.05"],
    "micronuclei_15": [*_MICRONUCLEI, "0.15"],
}


def run(folder: Path, screens: str, seed: int) -> tuple[Path, Path]:
    """Make and run a screen; return its results and its truth."""
    name = f"{screens}_{seed}"
    if not (folder / name).exists():
        options = ["--seed", str(seed), *SCREENS[screens]]
        subprocess.run([BIN / "wscnn", "simulate", "screen", name, *options], cwd=folder, check=True)
    layout = folder / name / "layout.tsv"
    layout.write_text(layout.read_text().replace("\tpositive\t", "\texclude\t"))
    config = yaml.safe_load((folder / name / "config.yaml").read_text())
    config |= {"discovery": {"method": "novelty"}, "baseline": {"methods": []}}
    (folder / name / "config.yaml").write_text(yaml.safe_dump(config))
    line = ["--snakefile", ROOT / "Snakefile", "--configfile", f"{name}/config.yaml", "--cores", "all"]
    subprocess.run([BIN / "snakemake", *line, "--quiet", "all"], cwd=folder, check=True)
    return folder / "results" / name, folder / name / "truth"


def judge(results: Path, truth: Path) -> dict[str, object]:
    """Return the figures of a finished screen."""
    known = pd.read_csv(truth / "hits.tsv", sep="\t", keep_default_na=False).set_index("perturbation")
    hits = pd.read_parquet(results / "hits.parquet").query("role == 'sample'").set_index("perturbation")
    strength = known["hit"].reindex(hits.index)
    figures: dict[str, object] = {
        f"called_{kind}": [int(hits.loc[strength == kind, "hit"].sum()), int((strength == kind).sum())]
        for kind in ("strong", "weak", "none")
    }
    wells = pd.read_parquet(results / "wells.parquet")
    wells = wells[wells["z"].notna()]
    negative = wells.loc[wells["role"] == "negative", "z"].to_numpy()
    of = wells["perturbation"].map(known["hit"]).where(wells["role"] == "sample")
    for kind in ("strong", "weak", "none"):
        if (of == kind).any():
            figures[f"well_auc_{kind}"] = round(auc(negative, wells.loc[of == kind, "z"].to_numpy()), 3)
    figures["q"] = hits.loc[strength != "none", "q"].round(5).to_dict()
    figures["gallery_right"] = _gallery(results, truth, hits, known)
    jobs = read_jobs(results).set_index("stage")["core_seconds"]
    figures["core_seconds"] = {stage: round(float(jobs.loc[[stage]].sum())) for stage in ("encode", "novelty", "score")}
    return figures


def _gallery(results: Path, truth: Path, hits: pd.DataFrame, known: pd.DataFrame) -> dict[str, float]:
    """Return, for each perturbation that is rightly called, the share of its gallery's cells that truly are rare."""
    cells = pd.read_parquet(truth / "cells.parquet")
    wells = pd.read_parquet(results / "wells.parquet")
    objects = pd.concat(map(pd.read_parquet, sorted((results / "objects").glob("*.parquet"))))
    objects = objects.merge(wells[["plate", "well", "perturbation"]], on=["plate", "well"])
    shares = {}
    for perturbation in hits.index[hits["hit"].astype(bool) & (known["hit"].reindex(hits.index) != "none")]:
        right = []
        for row in top_cells(objects[objects["perturbation"] == perturbation], 8).itertuples():
            plate = Plate(results / "plates" / f"{row.plate}.zarr")
            field = plate.fields(row.well).set_index("field").loc[row.field]
            own = cells.query("plate == @row.plate and well == @row.well and field == @row.field")
            scale = round(_raw_side(truth) / field["height"])
            _, nearest = KDTree(own[["y", "x"]] / scale).query([row.y - field["y"], row.x - field["x"]])
            right.append(bool(own["rare"].iloc[nearest]))
        shares[perturbation] = round(float(np.mean(right)), 3) if right else 0.0
    return shares


def _raw_side(truth: Path) -> int:
    """Return the side of a raw image."""
    import tifffile

    return int(tifffile.imread(next((truth.parent / "images").rglob("*.tif"))).shape[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(tempfile.gettempdir()) / "bench_discovery")
    parser.add_argument("--screens", choices=list(SCREENS), default="classes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--keep", action="store_true", help="keep each seed's screen and results")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    path = given.folder / f"{given.screens}.jsonl"
    done = [json.loads(line)["seed"] for line in path.read_text().splitlines()] if path.exists() else []
    for seed in given.seeds:
        if seed in done:
            continue
        results, truth = run(given.folder, given.screens, seed)
        line = json.dumps({"seed": seed, **judge(results, truth)})
        print(line, flush=True)
        with path.open("a") as file:
            file.write(line + "\n")
        if not given.keep:
            shutil.rmtree(results)
            shutil.rmtree(truth.parent)


if __name__ == "__main__":
    main()
