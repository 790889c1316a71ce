"""Rate of `score_plate` beside the bare network's forward and backward pass over the same fields, in one run.

    python tests/benchmarks/bench_score.py --wells 96 --fields 4 --size 270

The plate is made up (noise and bright spots), the network's weights are random but for its last bias, which is chosen
so that about a third of the fields hold a detection: those alone cost a backward pass, so that scoring may be faster
than the bare passes over all fields. Torch is imported where it is used: worker processes (``--cluster local``) import
this file too, and do without.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wscnn.core.config import section
from wscnn.core.tables import write_table
from wscnn.core.wells import well_name
from wscnn.plates.fields import read_fields
from wscnn.plates.store import BOX, Channel, Plate, PlateWriter


def make_plate(folder: Path, n_wells: int, n_fields: int, size: int) -> Plate:
    """Write a plate of noise with bright spots, and its table of quality."""
    rng = np.random.default_rng(0)
    wells = [well_name(k // 24, k % 24) for k in range(n_wells)]
    writer = PlateWriter(folder / "P.zarr", "P", wells, [Channel("DNA", "FFFFFF", (100.0, 1100.0))], 0.65)
    columns = int(np.ceil(np.sqrt(n_fields)))
    rows = int(np.ceil(n_fields / columns))
    y, x = np.divmod(np.arange(n_fields), columns) * np.array([[size]])
    fields = pd.DataFrame({"field": np.arange(1, n_fields + 1), "y": y, "x": x, "height": size, "width": size})
    for well in wells:
        mosaic = rng.normal(300, 60, (1, rows * size, columns * size))
        for top, left in rng.integers(0, np.array(mosaic.shape[1:]) - 12, (n_fields * size * size // 8000, 2)):
            mosaic[0, top : top + 12, left : left + 12] += 500
        writer.write_well(well, mosaic.clip(0, 65535).astype(np.uint16), fields, (size, size))
    quality = pd.DataFrame([(well, field) for well in wells for field in fields["field"]], columns=["well", "field"])
    write_table(quality.assign(plate="P", used=True, flags="", n_cells=np.nan), folder / "qc.parquet")
    return Plate(folder / "P.zarr")


def bare(networks: list[Any], fields: list[np.ndarray], device: Any) -> float:
    """Return the seconds that one forward and one backward pass of each network over all fields take."""
    import torch

    from wscnn.network.model import score_fields

    start = time.perf_counter()
    for images in fields:
        for network in networks:
            for image in images:
                x = torch.from_numpy(image[None]).to(device).requires_grad_(True)
                score_fields(network, x)[1].sum().backward()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Print one table a size of fields."""
    from wscnn.network.model import ARCHITECTURES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wells", type=int, default=48)
    parser.add_argument("--fields", type=int, default=9)
    parser.add_argument("--size", type=int, nargs="+", default=[270, 540])
    parser.add_argument("--folds", type=int, default=1)
    parser.add_argument("--architecture", choices=list(ARCHITECTURES), default="compact")
    parser.add_argument("--cluster", default="threads")
    parser.add_argument("--workers", type=int)
    given = parser.parse_args()
    for size in given.size:
        measure(given, size)


def measure(given: argparse.Namespace, size: int) -> None:
    """Print the table of one size."""
    import torch

    from wscnn.network.card import Card
    from wscnn.network.device import pick_device
    from wscnn.network.model import WSCNN, score_fields
    from wscnn.network.weights import save_model
    from wscnn.scoring.score import score_plate

    device = pick_device("auto")
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plate = make_plate(folder, given.wells, given.fields, size)
        networks = [WSCNN(given.architecture, "noisy_or", 1, 2).eval() for _ in range(given.folds)]
        start = time.perf_counter()
        fields = [read_fields(plate, well, ["DNA"], plate.fields(well)[BOX].to_numpy()) for well in plate.wells]
        read = time.perf_counter() - start
        for k, network in enumerate(networks):
            with torch.no_grad():
                maps = score_fields(network, torch.from_numpy(fields[0]))[1]
            third = maps.amax((1, 2, 3)).quantile(0.67).item()
            card = Card(
                architecture=given.architecture,
                pool="noisy_or",
                score_pool="same",
                channels=["DNA"],
                pixel_size_um=0.65,
                classes=["negative", "rare"],
                screen="bench",
                fold=k,
                parts={},
                thresholds={"rare": {"field": 0.0, "place": third}},
            )
            save_model(folder / "model" / f"fold-{k}.safetensors", network, card)
        networks = [network.to(device, memory_format=torch.channels_last).requires_grad_(False) for network in networks]
        bare(networks, fields[:1], device)
        limit = bare(networks, fields, device)
        paths = {key: folder / f"{key}.parquet" for key in ("wells", "fields", "objects")}
        dask = section("dask", "{}") | {"cluster": given.cluster, "workers": given.workers}
        start = time.perf_counter()
        score_plate(
            folder / "P.zarr",
            folder / "qc.parquet",
            folder / "model",
            **paths,
            screen="bench",
            score=section("score", "{}"),
            dask=dask,
        )
        took = time.perf_counter() - start
        table = pd.read_parquet(paths["fields"])
    n = given.wells * given.fields
    print(f"{device}, {torch.get_num_threads()} threads of torch, {given.architecture}, {given.folds} folds")
    print(f"{n} fields of {size} x {size}; {(table['n_objects'] > 0).mean():.0%} hold a detection")
    print(f"reading alone                {n / read:8.1f} fields/s")
    print(f"bare forward and backward    {n / limit:8.1f} fields/s")
    print(f"score_plate                  {n / took:8.1f} fields/s ({limit / took:.2f} of the bare network)")
    print(f"peak memory                  {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:8.2f} GiB")


if __name__ == "__main__":
    main()
