"""How well the detector does on made-up screens of real nuclei, by truth: one line of JSON per seed.

    python tests/benchmarks/bench_detector.py FOLDER --cells micronuclei --seeds 0 1 2

Each screen has 2 plates of 96 wells of 4 fields, 24 negative and 12 positive controls per plate, and runs through the
whole workflow at default settings. A seed whose figures are in FOLDER/<cells>.jsonl is not run again, so a table fills
over several sittings. Control and sample wells show nuclei of different sources.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from wscnn.network.model import score_fields
from wscnn.network.weights import load_folds
from wscnn.plates.fields import read_fields
from wscnn.plates.store import BOX, Plate
from wscnn.statistics.roc import auc

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]


def run(folder: Path, cells: str, seed: int, more: list[str]) -> tuple[Path, Path, float]:
    """Make and run a screen; return its results, its truth and the seconds that the workflow took."""
    name = f"{cells}_{seed}"
    if not (folder / name).exists():
        options = ["--negatives", "24", "--positives", "12", "--prevalence", "0.05", "--seed", str(seed), *more]
        subprocess.run([BIN / "wscnn", "simulate", "screen", name, "--cells", cells, *options], cwd=folder, check=True)
    began = time.monotonic()
    line = [
        "--snakefile",
        ROOT / "Snakefile",
        "--configfile",
        f"{name}/config.yaml",
        "--cores",
        "all",
        "--quiet",
        "all",
    ]
    subprocess.run([BIN / "snakemake", *line], cwd=folder, check=True)
    return folder / "results" / name, folder / name / "truth", time.monotonic() - began


def judge(results: Path, truth: Path) -> dict[str, object]:
    """Return the figures of a finished screen with one phenotype."""
    folds = load_folds(results / "model")
    phenotype = folds[0][1].phenotypes[0]
    layout = pd.read_parquet(results / "layout.parquet")[["plate", "well", "role", "perturbation"]]
    cells = pd.read_parquet(truth / "cells.parquet").merge(layout, on=["plate", "well"]).query("role == 'sample'")
    scored = pd.concat(_score(results, plate, own, folds) for plate, own in cells.groupby("plate"))
    inside = scored[scored["score"].notna()].sort_values("score", ascending=False)
    precision = inside["rare"].cumsum() / np.arange(1, len(inside) + 1)
    found = inside["rare"].cumsum()[precision >= 0.95].max() / inside["rare"].sum()
    objects = pd.concat(map(pd.read_parquet, sorted((results / "objects").glob("*.parquet"))))
    n_objects = len(objects.merge(layout.query("role == 'sample'"), on=["plate", "well"]))
    rare = scored[scored["rare"]]
    hits = pd.read_parquet(results / "hits.parquet").query("role == 'sample'")
    hits = hits.merge(pd.read_csv(truth / "hits.tsv", sep="\t"), on="perturbation", suffixes=("", "_truth"))
    share = hits["perturbation"].map(scored.groupby("perturbation")["rare"].mean())
    strong = hits["hit_truth"] == "strong"
    figures: dict[str, object] = {
        "held_out_wells": [card.metrics["test"][phenotype]["well_auc"] for _, card in folds],
        "learned": [card.learned.get(phenotype) for _, card in folds],
        "single_cells": auc(
            inside.loc[~inside["rare"], "score"].to_numpy(), inside.loc[inside["rare"], "score"].to_numpy()
        ),
        "recall_at_precision_0.95": 0.0 if np.isnan(found) else float(found),
        "objects": n_objects,
        "objects_right": float(rare["object"].notna().sum() / max(n_objects, 1)),
        "rare_found": float(rare["object"].notna().mean()),
        "box_iou": float(rare["iou"].median()),
        "rare_fraction_over_truth": (hits["rare_fraction"] / share)[strong].tolist(),
        "found_by_class": rare.groupby("class")["object"].apply(lambda own: float(own.notna().mean())).to_dict(),
    }
    if "rare_fraction_low" in hits:
        figures["interval_covers"] = (
            hits["rare_fraction_low"].le(share)[strong].mul(hits["rare_fraction_high"].ge(share)[strong]).tolist()
        )
    for truth_of, own in hits.groupby("hit_truth"):
        figures[f"called_{truth_of}"] = [int(own["hit"].sum()), len(own)]
    return figures


def _score(results: Path, plate: str, cells: pd.DataFrame, folds: list) -> pd.DataFrame:
    """Return cells of sample wells with the mean map's highest position in their box, and the object on them."""
    store = Plate(results / "plates" / f"{plate}.zarr")
    objects = pd.read_parquet(results / "objects" / f"{plate}.parquet")
    channels, stride = folds[0][1].channels, folds[0][0].stride
    parts = []
    for well, own in cells.groupby("well"):
        fields = store.fields(str(well))
        scale = json.loads((results / "plates" / f"{plate}.json").read_text()).get("downsample") or round(
            own[["y1", "x1"]].max().max() / fields["height"].iloc[0]
        )
        images = torch.from_numpy(read_fields(store, str(well), channels, fields[BOX].to_numpy()))
        with torch.no_grad():
            maps = np.mean([score_fields(network, images)[1][:, 0].numpy() for network, _ in folds], 0)
        for (number, rows), detector in zip(own.groupby("field"), maps, strict=True):
            field = fields[fields["field"] == number].iloc[0]
            boxes = rows[["y0", "x0", "y1", "x1"]].to_numpy() / scale
            there = objects[(objects["well"] == well) & (objects["field"] == number)]
            outlines = there[["y0", "x0", "y1", "x1"]].to_numpy(float) - np.tile([field["y"], field["x"]], 2)
            low, high = np.floor(boxes[:, :2] / stride).astype(int), np.ceil(boxes[:, 2:] / stride).astype(int)
            inside = [detector[y0:y1, x0:x1] for (y0, x0), (y1, x1) in zip(low, high, strict=True)]
            ious = _ious(boxes, outlines)
            best = ious.max(1, initial=0)
            parts.append(
                rows.assign(
                    score=[own.max() if own.size else np.nan for own in inside],
                    iou=np.where(best > 0.1, best, np.nan),
                    object=np.where(best > 0.1, ious.argmax(1) if ious.size else 0, np.nan),
                )
            )
    return pd.concat(parts)


def _ious(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the intersection over union of boxes (n, 4) and (m, 4), shape (n, m)."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    both = (high - low).clip(0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (one, other)]
    return both / (areas[0][:, None] + areas[1] - both)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(tempfile.gettempdir()) / "bench_detector")
    parser.add_argument("--cells", choices=["nuclei", "micronuclei"], default="nuclei")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--keep", action="store_true", help="keep each seed's screen and results")
    given, more = parser.parse_known_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    path = given.folder / f"{given.cells}.jsonl"
    done = [json.loads(line)["seed"] for line in path.read_text().splitlines()] if path.exists() else []
    for seed in given.seeds:
        if seed in done:
            continue
        results, truth, seconds = run(given.folder, given.cells, seed, more)
        figures = {"seed": seed, "seconds": round(seconds), **judge(results, truth)}
        with path.open("a") as file:
            file.write(json.dumps(figures) + "\n")
        print(json.dumps(figures), flush=True)
        if not given.keep:
            for folder in (results, truth.parent):
                shutil.rmtree(folder)


if __name__ == "__main__":
    main()
