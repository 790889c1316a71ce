"""What `stage` costs beside reading alone: the same files, threads and machine, in one run.

Run by hand: ``python tests/benchmarks/bench_stage.py [--wells N] [folder]``. Files are in the page cache (the worst
case for the ratio: reading from a disk or over a network only makes the limit slower); each is one of nine images
under another name, together more than a processor's cache holds. First the steps of a field are timed one by one.
Nothing is asserted.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tifffile

from wscnn.acquisitions.index import index_plate
from wscnn.acquisitions.tiff import read_tiff
from wscnn.core.cluster import cpus
from wscnn.core.config import complete_config
from wscnn.core.wells import well_name
from wscnn.plates.shards import pack
from wscnn.simulate.cells import Nuclei
from wscnn.simulate.fields import compose, expose, optics
from wscnn.staging import field_qc as qc
from wscnn.staging.illumination import correct
from wscnn.staging.mosaic import block_sums
from wscnn.staging.nuclei import count_nuclei
from wscnn.staging.stage import stage_plate

SIZE, DOWNSAMPLE, FIELDS, ROUNDS = 2160, 4, 9, 3


def main(folder: Path, wells: int) -> None:
    """Print the steps, then MB/s of raw pixels, decode-only and staged, for three compressions and illuminations."""
    rng = np.random.default_rng(0)
    light = optics(rng, SIZE, 1.0)
    pictures = [expose(rng, compose(rng, Nuclei(), SIZE, 500, {}, "").signal, light, 1.0) for _ in range(FIELDS)]
    raw = wells * FIELDS * SIZE * SIZE * 2 / 1e6
    originals = {name: folder / name for name in ("uncompressed", "lzw", "zlib")}
    for name, original in originals.items():
        original.mkdir()
        for i, picture in enumerate(pictures):
            compression = None if name == "uncompressed" else name
            tifffile.imwrite(original / f"{i}.tif", picture, compression=compression)
    steps(originals)
    print(f"{wells} wells x {FIELDS} fields of {SIZE} x {SIZE} uint16 ({raw:.0f} MB), {cpus()} threads")
    for name, original in originals.items():
        images = folder / f"plate-{name}"
        images.mkdir()
        for well in range(wells):
            for field in range(FIELDS):
                (images / f"{well_name(*divmod(well, 24))}_s{field + 1}_w1.tif").hardlink_to(original / f"{field}.tif")
        files = sorted(images.iterdir())
        decode = min(timed(lambda files=files: read_all(files)) for _ in range(ROUNDS))
        for method in ("none", "retrospective"):
            config = configure(method)
            index_plate("p", images, config["acquisition"], folder / "index.parquet")
            staged = min(
                timed(lambda config=config, images=images: stage(config, images, folder)) for _ in range(ROUNDS)
            )
            ratio, by_cpu = (one / other for one, other in zip(decode, staged, strict=True))
            each = [1e3 * seconds[1] / len(files) for seconds in (decode, staged)]
            print(
                f"{name:12s} illumination {method:13s}: decode-only {raw / decode[0]:6.0f} MB/s, stage "
                f"{raw / staged[0]:6.0f} MB/s, ratio {ratio:.2f}; CPU {each[0]:5.1f} and {each[1]:5.1f} ms a field, "
                f"ratio {by_cpu:.2f}"
            )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    well = FIELDS * SIZE * SIZE * 2 / DOWNSAMPLE**2 / 2**20
    print(f"peak memory of this process {peak:.0f} MiB; a well is {well:.0f} MiB staged")


def steps(originals: dict[str, Path]) -> None:
    """Print what each step of a field costs one thread, in milliseconds of processor time, least of many runs."""
    images = {name: sorted(folder.iterdir()) for name, folder in originals.items()}
    # One image after the other, so that none waits in the processor's cache.
    raw = [read_tiff(path) for path in images["uncompressed"]]
    sums = [block_sums(image, DOWNSAMPLE) for image in raw]
    flat = [((part + 8) // 16).astype(np.uint16) for part in sums]
    gain = np.ones(flat[0].shape, np.float32)
    work: dict[str, list[Callable[[], object]]] = {
        f"read, {name}": [lambda path=path: read_tiff(path) for path in paths] for name, paths in images.items()
    }
    work["copy in memory (for comparison)"] = [lambda image=image: image.copy() for image in raw]
    work["block sums"] = [lambda image=image: block_sums(image, DOWNSAMPLE) for image in raw]
    work["saturation"] = [
        lambda some=image[::DOWNSAMPLE]: np.count_nonzero(some == some.max())  # as in `wscnn.staging.stage`
        for image in raw
    ]
    work["means of blocks"] = [lambda part=part: ((part + 8) // 16).astype(np.uint16) for part in sums]
    work["correction of illumination"] = [lambda part=part: correct(part, gain, 100.0) for part in sums]
    work["numbers of quality"] = [lambda field=field: qc.measure(field) for field in flat]
    work["packing"] = [lambda field=field: pack(field) for field in flat]
    work["nuclei (where asked for)"] = [lambda field=field: count_nuclei(field) for field in flat]
    for name, calls in work.items():
        rounds = [timed(lambda calls=calls: [call() for call in calls])[1] for _ in range(12)]
        print(f"{1e3 * min(rounds) / len(calls):7.2f} ms  {name}")


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds that `work` takes, by the clock and of processors (which a busy machine stretches less)."""
    start, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - used


def read_all(files: list[Path]) -> None:
    """Read every file and drop it."""
    with ThreadPoolExecutor(cpus()) as pool:
        for _ in pool.map(lambda path: read_tiff(path, 0).shape, files):
            pass


def configure(method: str) -> dict:
    """Return a config for the benchmark's files."""
    acquisition = {
        "pattern": r"(?P<well>[A-Z]\d\d)_s(?P<field>\d+)_w(?P<channel>\d)\.tif",
        "channels": {"1": "DNA"},
    }
    illumination = {"method": method, "max_fields": 32}
    given = {"screen": "bench", "plates": "p", "layout": "l", "acquisition": acquisition, "illumination": illumination}
    return complete_config(given | {"mosaic": {"downsample": DOWNSAMPLE}}, "bench")


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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", help="where the files are made (by default the system's)")
    parser.add_argument("--wells", type=int, default=96)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        main(Path(temporary), arguments.wells)
