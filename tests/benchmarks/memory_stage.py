"""Peak memory of `wscnn stage` for plates of 24, 96 and 384 wells: it should not grow with the plate.

Run by hand: ``python tests/benchmarks/memory_stage.py [--wells 24 96 384] [--fields 9] [--size 1080] [--workers 2]
[folder]``. Each plate is staged by a process of its own; its files are nine images under other names. Nothing is
asserted.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile

from wscnn.simulate.cells import Nuclei
from wscnn.simulate.fields import compose, expose, optics
from wscnn.wells import PLATE_FORMATS, well_name

ACQUISITION = {
    "pattern": r"(?P<well>[A-Z]\d\d)_s(?P<field>\d+)_w(?P<channel>\d)\.tif",
    "channels": {"1": "DNA"},
    "nuclei": "DNA",
}


def main(folder: Path, wells: list[int], fields: int, size: int, workers: int) -> None:
    """Print a line a plate and method of illumination."""
    rng = np.random.default_rng(0)
    shading = optics(rng, size, 1.0)
    for i in range(fields):
        scene = compose(rng, Nuclei("all"), size, (size // 90) ** 2, {}, "")
        tifffile.imwrite(folder / f"{i}.tif", expose(rng, scene.signal, shading, 1.0))
    print(f"{fields} fields of {size} x {size} uint16 a well ({fields * size * size * 2 / 2**20:.0f} MiB raw)")
    for count in wells:
        images = folder / f"plate{count}"
        images.mkdir()
        for well in range(count):
            name = well_name(*divmod(well, PLATE_FORMATS[count][1]))
            for field in range(fields):
                (images / f"{name}_s{field + 1}_w1.tif").hardlink_to(folder / f"{field}.tif")
        index = folder / f"{count}.parquet"
        acquisition = ["--acquisition", json.dumps(ACQUISITION)]
        run("index", "--plate", "p", "--images", str(images), "--output", str(index), *acquisition)
        for method in ("none", "retrospective"):
            outputs = {"store": "zarr", "manifest": "json", "quality": "qc.parquet"}
            options = [part for name, end in outputs.items() for part in (f"--{name}", str(folder / f"p.{end}"))]
            options += ["--illumination", json.dumps({"method": method}), "--dask", json.dumps({"workers": workers})]
            peak = run("stage", "--plate", "p", "--images", str(images), "--index", str(index), *options, *acquisition)
            print(f"{count:4d} wells, illumination {method:13s}: peak {peak:5.0f} MiB", flush=True)


def run(*options: str) -> float:
    """Run a verb; return the most memory that it held, MiB."""
    process = subprocess.Popen([str(Path(sys.executable).parent / "wscnn"), *options], stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"wscnn {' '.join(options)}: ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / 1024


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help="where the files are made (by default the system's)")
    parser.add_argument("--wells", type=int, nargs="+", choices=list(PLATE_FORMATS), default=[24, 96, 384])
    parser.add_argument("--fields", type=int, default=9)
    parser.add_argument("--size", type=int, default=1080)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        main(Path(temporary), arguments.wells, arguments.fields, arguments.size, arguments.workers)
