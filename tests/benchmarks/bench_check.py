"""CPU time of `check` per plate, and what of it the listing of names alone takes, paired in one process.

    python tests/benchmarks/bench_check.py --plates 4 --fields 9 --channels 5

Plates of 384 wells; every file is a link to one small image.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
import yaml

from wscnn.acquisitions.base import walk
from wscnn.core.wells import well_name
from wscnn.preflight.check import check_screen

WELLS = [well_name(row, column) for row in range(16) for column in range(24)]


def write_screen(folder: Path, n_plates: int, n_fields: int, n_channels: int) -> Path:
    """Write a screen of plates of 384 wells; return its config."""
    image = folder / "image.tif"
    tifffile.imwrite(image, np.zeros((512, 512), np.uint16), compression="zlib")
    for plate in range(n_plates):
        images = folder / "images" / f"P{plate}"
        images.mkdir(parents=True)
        for well in WELLS:
            for field in range(1, n_fields + 1):
                for channel in range(1, n_channels + 1):
                    os.link(image, images / f"{well}_s{field}_w{channel}.tif")
    rows = [f"P{plate}\t{folder}/images/P{plate}" for plate in range(n_plates)]
    (folder / "plates.tsv").write_text("\n".join(["plate\timages", *rows]) + "\n")
    roles = ["negative", "positive", *["sample"] * 10]
    lines = [f"{well}\tg{i}\t{roles[i % 12]}\trare" for i, well in enumerate(WELLS)]
    lines = [line if "\tpositive\t" in line else line.removesuffix("rare") for line in lines]
    (folder / "layout.tsv").write_text("\n".join(["well\tperturbation\trole\tphenotype", *lines]) + "\n")
    acquisition = {
        "pattern": r"(?P<well>[A-Z]\d+)_s(?P<field>\d+)_w(?P<channel>\d)\.tif",
        "channels": {str(k): f"C{k}" for k in range(1, n_channels + 1)},
    }
    config = {"screen": "large", "acquisition": acquisition, "mosaic": {"downsample": 1}}
    config |= {name: str(folder / f"{name}.tsv") for name in ("plates", "layout")} | {
        "results": str(folder / "results")
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder / "config.yaml"


def seconds(function: object) -> float:
    """Return the CPU seconds of a call."""
    start = time.process_time()
    function()  # type: ignore[operator]
    return time.process_time() - start


def main() -> None:
    """Print seconds per plate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plates", type=int, default=4)
    parser.add_argument("--fields", type=int, default=9)
    parser.add_argument("--channels", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one = write_screen(folder, 1, 1, given.channels)
        check_screen(one)  # imports
        (more := folder / "more").mkdir()
        config = write_screen(more, given.plates, given.fields, given.channels)
        listing = seconds(lambda: [len(list(walk(plate))) for plate in (more / "images").iterdir()]) / given.plates
        overhead = seconds(lambda: check_screen(one))
        first = (seconds(lambda: check_screen(config)) - overhead) / (given.plates - 1)
    n = len(WELLS) * given.fields * given.channels
    print(f"plates of {n} files, CPU seconds per plate: check {first:.3f}, listing the names {listing:.3f}")


if __name__ == "__main__":
    main()
