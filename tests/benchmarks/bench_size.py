"""Peak memory and time of each stage over plates of 24, 96 and 384 wells, and over 1 and 2 workers.

    python tests/benchmarks/bench_size.py --fields 9 --size 1080 --downsample 4

Each is a process of its own, as a job is: memory is the highest resident memory of that process, time by the clock
with starting. Per worker memory must stay flat; what grows with wells is rows of tables.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
import torch

from wscnn.core.wells import PLATE_FORMATS, well_name
from wscnn.network.card import Card
from wscnn.network.model import WSCNN
from wscnn.network.weights import save_model
from wscnn.simulate.cells import Nuclei
from wscnn.simulate.fields import compose, expose, optics

ACQUISITION = {"pattern": r"(?P<well>[A-Z]\d\d)_s(?P<field>\d+)\.tif", "channels": {"1": "DNA"}}


def measure(*arguments: object) -> tuple[float, float]:
    """Run a verb; return its seconds and its peak of memory in MiB."""
    start = time.perf_counter()
    job = subprocess.Popen(
        [str(Path(sys.executable).parent / "wscnn"), *map(str, arguments)], stderr=subprocess.PIPE, text=True
    )
    said = job.stderr.read() if job.stderr else ""
    _, status, used = os.wait4(job.pid, 0)
    if status:
        sys.exit(said)
    return time.perf_counter() - start, used.ru_maxrss / 1024


def write_images(folder: Path, fields: int, size: int) -> list[Path]:
    """Write the fields of one well of real nuclei; return their files."""
    rng = np.random.default_rng(0)
    light = optics(rng, size, 1.0)
    files = [folder / f"{field}.tif" for field in range(1, fields + 1)]
    for file in files:
        scene = compose(rng, Nuclei(), size, (size // 90) ** 2, {"mitotic": 0.02}, "")
        tifffile.imwrite(file, expose(rng, scene.signal, light, 1.0))
    return files


def link_plate(folder: Path, files: list[Path], wells: int) -> None:
    """Make a plate of which every well has the same fields."""
    folder.mkdir()
    for well in range(wells):
        name = well_name(*divmod(well, PLATE_FORMATS[wells][1]))
        for field, file in enumerate(files, 1):
            (folder / f"{name}_s{field}.tif").hardlink_to(file)


def write_model(folder: Path) -> None:
    """Write a network with random weights."""
    torch.manual_seed(0)
    thresholds = {"rare": {"field": 0.0, "place": 0.0}}
    card = Card(
        architecture="compact", pool="noisy_or", score_pool="topk", channels=["DNA"], pixel_size_um=None,
        classes=["negative", "rare"], screen="bench", fold=0, parts={}, thresholds=thresholds,
    )  # fmt: skip
    save_model(folder / "fold-0.safetensors", WSCNN("compact", "noisy_or", 1, 2).eval(), card)


def main() -> None:
    """Print a row a plate, number of workers and stage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wells", type=int, nargs="+", choices=list(PLATE_FORMATS), default=[24, 96, 384])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--fields", type=int, default=9)
    parser.add_argument("--size", type=int, default=1080)
    parser.add_argument("--downsample", type=int, default=4)
    given = parser.parse_args()
    what = f"{given.fields} fields of {given.size} x {given.size} a well, one channel"
    print(f"{what}, downsample {given.downsample}, one fold")
    print(f"{'wells':>6}{'workers':>9}  {'stage':8}{'seconds':>9}{'wells/s':>9}{'peak MiB':>10}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model")
        files = write_images(folder, given.fields, given.size)
        for wells in given.wells:
            images, index = folder / f"images-{wells}", folder / "index.parquet"
            link_plate(images, files, wells)
            plate = ["--plate", "p", "--images", images, "--acquisition", json.dumps(ACQUISITION)]
            measure("index", *plate, "--output", index)
            for workers in given.workers:
                store, quality = folder / f"{wells}-{workers}.zarr", folder / "qc.parquet"
                dask = ["--dask", json.dumps({"workers": workers})]
                outputs = ["--store", store, "--manifest", folder / "p.json", "--quality", quality]
                mosaic = ["--mosaic", json.dumps({"downsample": given.downsample})]
                tables = [part for key in ("wells", "fields", "objects") for part in (f"--{key}", folder / key)]
                models = ["--models", folder / "model", "--screen", "bench"]
                jobs = {
                    "stage": measure("stage", *plate, "--index", index, *outputs, *mosaic, *dask),
                    "score": measure("score", "--store", store, "--quality", quality, *models, *tables, *dask),
                }
                for stage, (seconds, peak) in jobs.items():
                    print(
                        f"{wells:6}{workers:9}  {stage:8}{seconds:9.1f}{wells / seconds:9.1f}{peak:10.0f}", flush=True
                    )


if __name__ == "__main__":
    main()
