"""`stage` beside the obvious other ways to bring a plate's images into OME-Zarr, on the same files, in one run.

    python tests/benchmarks/bench_alternatives.py --wells 12 --fields 9 --size 1080

Reading and averaging: scikit-image (`imread`, `downscale_local_mean`). Writing a mosaic a well: ome-zarr-py with its
defaults, one resolution. Both a well at a time, on as many threads as `stage` has. Needs the extra `benchmark`.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np
import tifffile
import zarr
from skimage.io import imread
from skimage.transform import downscale_local_mean

from wscnn.acquisitions.index import index_plate
from wscnn.acquisitions.tiff import read_tiff
from wscnn.core.cluster import cpus
from wscnn.core.config import complete_config
from wscnn.core.wells import well_name
from wscnn.staging.stage import stage_plate

DOWNSAMPLE = 2


def write_images(folder: Path, wells: list[str], fields: int, size: int) -> list[list[Path]]:
    """Write noisy images; return the paths of each well's."""
    rng = np.random.default_rng(0)
    pictures = [rng.normal(600, 60, (size, size)).astype(np.uint16) for _ in range(fields)]
    paths = [[folder / f"{well}_s{field}_w1.tif" for field in range(1, fields + 1)] for well in wells]
    for well in paths:
        for path, picture in zip(well, pictures, strict=True):
            tifffile.imwrite(path, picture)
    return paths


def mosaic_of(paths: list[Path]) -> np.ndarray:
    """Return a well's fields side by side, read and averaged by scikit-image."""
    fields = [downscale_local_mean(imread(path), (DOWNSAMPLE, DOWNSAMPLE)).astype(np.uint16) for path in paths]
    columns = int(np.ceil(np.sqrt(len(fields))))
    blank = [np.zeros_like(fields[0])] * (-len(fields) % columns)
    tiles = [*fields, *blank]
    return np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds that `work` takes, by the clock and of processors."""
    start, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - used


def main() -> None:
    """Print MB/s of raw pixels for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wells", type=int, default=12)
    parser.add_argument("--fields", type=int, default=9)
    parser.add_argument("--size", type=int, default=1080)
    given = parser.parse_args()
    wells = [well_name(i // 12, i % 12) for i in range(given.wells)]
    raw = given.wells * given.fields * given.size**2 * 2 / 1e6
    config = complete_config(
        {
            "screen": "bench",
            "plates": "p",
            "layout": "l",
            "acquisition": {
                "pattern": r"(?P<well>[A-Z]\d\d)_s(?P<field>\d+)_w(?P<channel>\d)\.tif",
                "channels": {"1": "DNA"},
            },
            "mosaic": {"downsample": DOWNSAMPLE},
        },
        "bench",
    )
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(cpus()) as pool:
        folder = Path(name)
        (folder / "images").mkdir()
        paths = write_images(folder / "images", wells, given.fields, given.size)
        index_plate("p", folder / "images", config["acquisition"], folder / "index.parquet")
        outputs = [folder / "p.zarr", folder / "p.json", folder / "qc.parquet"]
        sections = {key: config[key] for key in ("acquisition", "mosaic", "illumination", "dask")}

        def stage() -> None:
            index = folder / "index.parquet"
            stage_plate("p", index, folder / "images", *outputs, **sections, quality=config["qc"])

        ways: dict[str, Callable[[], object]] = {
            "decode only": lambda: list(pool.map(lambda path: read_tiff(path, 0).shape, chain.from_iterable(paths))),
            "stage (reads, averages, measures, writes)": stage,
            "scikit-image (reads, averages)": lambda: list(pool.map(lambda well: mosaic_of(well).shape, paths)),
        }
        try:
            from ome_zarr.writer import write_image
        except ImportError:
            print("ome-zarr-py is not installed (pip install -e '.[benchmark]'): left out")
        else:

            def write(well: int) -> None:
                group = zarr.open_group(folder / "other.zarr" / str(well), mode="w")
                write_image(mosaic_of(paths[well])[None], group, axes="cyx", scaler=None)

            ways["scikit-image and ome-zarr-py (reads, averages, writes)"] = lambda: list(
                pool.map(write, range(len(paths)))
            )
        took = {way: min(timed(work) for _ in range(2)) for way, work in ways.items()}
    print(
        f"{given.wells} wells x {given.fields} fields of {given.size} x {given.size} ({raw:.0f} MB), {cpus()} threads"
    )
    stage_took = took["stage (reads, averages, measures, writes)"]
    for way, (clock, used) in took.items():
        ratio, by_cpu = clock / stage_took[0], used / stage_took[1]
        print(f"{way:58}{raw / clock:8.0f} MB/s; takes {ratio:.2f} of stage's time ({by_cpu:.2f} by processor)")


if __name__ == "__main__":
    main()
