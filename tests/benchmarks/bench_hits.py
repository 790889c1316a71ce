"""Time and memory of hit calling on a large made-up screen: ``python tests/benchmarks/bench_hits.py [plates]``.

Plates of 384 wells, 16 negative and 8 positive controls each, every perturbation on three plates; tables as `score`
writes them, a file a plate. The limit it is set against is the reading of the same files alone; beside it stands
pycytominer's robust normalisation of the same scores by the same negative controls (the extra `benchmark`), which is
one of the steps of calling hits.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from wscnn.core.config import section
from wscnn.core.tables import WELLS, conform, write_table
from wscnn.core.wells import well_name
from wscnn.statistics.hits import call_hits
from wscnn.statistics.normalize import by_group, centre_and_scale

ROWS, COLUMNS, REPLICATES = 16, 24, 3


def write_screen(folder: Path, n_plates: int) -> tuple[list[Path], Path]:
    """Write tables of wells and the layout; return their paths."""
    rng = np.random.default_rng(0)
    row, column = (index.ravel() for index in np.indices((ROWS, COLUMNS)))
    role = np.full(ROWS * COLUMNS, "sample", dtype=object)
    role[column == 0] = "negative"
    role[(column == COLUMNS - 1) & (row < 8)] = "positive"
    names = [well_name(r, c) for r, c in zip(row, column, strict=True)]
    paths, layouts = [], []
    for plate in range(n_plates):
        score = rng.normal(rng.normal(), np.exp(rng.normal() / 3), len(role)) + 6.0 * (role == "positive")
        library = plate // REPLICATES
        perturbation = [f"L{library}-{well}" if r == "sample" else r for well, r in zip(names, role, strict=True)]
        wells = pd.DataFrame(
            {"screen": "bench", "plate": f"P{plate:04d}", "well": names, "well_row": row, "well_column": column}
        )
        scores = {"phenotype": "rare", "n_fields": 9, "n_fields_used": 9, "score": score, "score_sd": 0.1}
        counts = {"score_max": score + 1, "fraction_positive_fields": 0.1, "n_objects": rng.poisson(3, len(role))}
        cells = {"n_cells": rng.poisson(900, len(role)), "cell_intensity": rng.normal(100, 5, len(role))}
        rest = {"object_area_fraction": 0.01, **cells, "fold": pd.NA, "why_no_score": ""}
        paths.append(folder / f"P{plate:04d}.parquet")
        write_table(conform(wells.assign(**scores, **counts, **rest), WELLS), paths[-1])
        phenotype = np.where(role == "positive", "rare", "")
        layouts.append(wells.drop(columns="screen").assign(perturbation=perturbation, role=role, phenotype=phenotype))
    layout = folder / "layout"
    write_table(pd.concat(layouts), layout)
    return paths, layout


def by_pycytominer(paths: list[Path], layout: Path) -> float | None:
    """Return the seconds that `mad_robustize` takes, a plate at a time, files read before; None where not installed."""
    try:
        from pycytominer import normalize
    except ImportError:
        return None
    roles = pq.read_table(layout).to_pandas()[["plate", "well", "role"]]
    plates = [pq.read_table(path).to_pandas().merge(roles, on=["plate", "well"]) for path in paths]
    start = time.perf_counter()
    for plate in plates:
        normalize(
            plate,
            features=["score"],
            meta_features=["plate", "well", "role"],
            samples="role == 'negative'",
            method="mad_robustize",
            mad_robustize_epsilon=0,
        )
    return time.perf_counter() - start


def by_wscnn(paths: list[Path], layout: Path) -> float:
    """Return the seconds that the same normalisation takes here, all plates at once."""
    roles = pq.read_table(layout).to_pandas()[["plate", "well", "role"]]
    table = pd.concat([pq.read_table(path).to_pandas() for path in paths]).merge(roles, on=["plate", "well"])
    start = time.perf_counter()
    plate, names = pd.factorize(table["plate"])
    negative = (table["role"] == "negative").to_numpy()
    negatives = by_group(table["score"].to_numpy()[negative], plate[negative], len(names))
    centre, scale = centre_and_scale(negatives, np.full(len(names), np.nan), "robust_z")
    table["z"] = (table["score"] - centre[plate]) / scale[plate]
    return time.perf_counter() - start


def main() -> None:
    """Print seconds and the peak of memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plates", type=int, nargs="?", default=1000)
    parser.add_argument("--normalize", default="robust_z")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths, layout = write_screen(folder, arguments.plates)
        start = time.perf_counter()
        for path in paths:
            pq.read_table(path)
        reading = time.perf_counter() - start
        start, busy = time.perf_counter(), time.process_time()
        settings = section("hits", f'{{"normalize": "{arguments.normalize}"}}')
        call_hits(paths, layout, folder / "out", hits=settings)
        took, busy = time.perf_counter() - start, time.process_time() - busy
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        ours, theirs = by_wscnn(paths, layout), by_pycytominer(paths, layout)
        sizes = {path.name: path.stat().st_size for path in sorted((folder / "out").iterdir())}
    print(f"{arguments.plates} plates, {arguments.plates * ROWS * COLUMNS} wells, {arguments.normalize}")
    print(f"  {took:.1f} s, {busy:.1f} s of processor (reading the files alone: {reading:.1f} s), peak {peak:.2f} GiB")
    said = "pycytominer is not installed" if theirs is None else f"{theirs:.2f} s by pycytominer (mad_robustize)"
    print(f"  robust normalisation alone: {ours:.2f} s here, {said}")
    print("  " + ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in sizes.items()))


if __name__ == "__main__":
    main()
