"""What `stage` costs beside reading alone: the same files, threads and machine, in one run.

Run by hand: ``python tests/benchmarks/bench_stage.py [folder]``. Files are in the page cache (the worst case for the
ratio: reading from a disk or over a network only makes the limit slower). Nothing is asserted.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tifffile

from wscnn.acquisitions.tiff import read_tiff
from wscnn.cluster import cpus
from wscnn.config import complete_config
from wscnn.index import index_plate
from wscnn.simulate.cells import Nuclei
from wscnn.simulate.fields import compose, expose, optics
from wscnn.stage import stage_plate

SIZE, DOWNSAMPLE, WELLS, FIELDS, ROUNDS = 2160, 4, 12, 9, 2


def main(folder: Path) -> None:
    """Print MB/s of raw pixels, decode-only and staged, for three compressions and illumination on and off."""
    rng = np.random.default_rng(0)
    light = optics(rng, SIZE, 1.0)
    pictures = [expose(rng, compose(rng, Nuclei("all"), SIZE, 500, {}, "").signal, light, 1.0) for _ in range(FIELDS)]
    raw = WELLS * FIELDS * SIZE * SIZE * 2 / 1e6
    print(f"{WELLS} wells x {FIELDS} fields of {SIZE} x {SIZE} uint16 ({raw:.0f} MB), {cpus()} threads")
    for compression in (None, "lzw", "zlib"):
        images = folder / str(compression)
        images.mkdir()
        for well in range(WELLS):
            for field, picture in enumerate(pictures, 1):
                name = f"{chr(65 + well // 12)}{well % 12 + 1:02d}_s{field}_w1.tif"
                tifffile.imwrite(images / name, picture, compression=compression)
        files = sorted(images.iterdir())
        decode = min(timed(lambda files=files: read_all(files)) for _ in range(ROUNDS))
        for method in ("none", "retrospective"):
            config = complete_config(
                {
                    "screen": "bench",
                    "plates": "",
                    "layout": "",
                    "acquisition": {
                        "pattern": r"(?P<well>[A-Z]\d\d)_s(?P<field>\d+)_w(?P<channel>\d)\.tif",
                        "channels": {"1": "DNA"},
                    },
                    "mosaic": {"downsample": DOWNSAMPLE},
                    "illumination": {"method": method, "max_fields": 32},
                },
                "bench",
            )
            index_plate("p", images, config["acquisition"], folder / "index.parquet")
            staged = min(
                timed(lambda config=config, images=images: stage(config, images, folder)) for _ in range(ROUNDS)
            )
            ratio, by_cpu = (one / other for one, other in zip(decode, staged, strict=True))
            print(
                f"{compression or 'uncompressed':12s} illumination {method:13s}: decode-only {raw / decode[0]:6.0f} "
                f"MB/s, stage {raw / staged[0]:6.0f} MB/s, ratio {ratio:.2f} ({by_cpu:.2f} by CPU)"
            )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    well = FIELDS * SIZE * SIZE * 2 / DOWNSAMPLE**2 / 2**20
    print(f"peak memory of this process {peak:.0f} MiB; a well is {well:.0f} MiB staged")


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Return the seconds that `work` takes, by the clock and of processors (which a busy machine does not stretch)."""
    start, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - used


def read_all(files: list[Path]) -> None:
    """Read every file and drop it."""
    with ThreadPoolExecutor(cpus()) as pool:
        for _ in pool.map(lambda path: read_tiff(path, 0).shape, files):
            pass


def stage(config: dict, images: Path, folder: Path) -> None:
    """Stage the files as a plate."""
    stage_plate(
        "p",
        folder / "index.parquet",
        images,
        folder / "p.zarr",
        folder / "p.json",
        folder / "qc.parquet",
        acquisition=config["acquisition"],
        mosaic=config["mosaic"],
        illumination=config["illumination"],
        quality=config["qc"],
        dask=config["dask"],
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as temporary:
        main(Path(temporary))
