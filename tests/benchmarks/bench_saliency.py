"""CPU time of saliency: forward pass alone, backward pass of whole fields, and by windows, paired in one process.

    python tests/benchmarks/bench_saliency.py --size 270 540 --cells 1 4
    python tests/benchmarks/bench_saliency.py --results results/nuclei --fields 60

Without results, the network is set by hand to see bright spots, of which each field holds some; with those of a
finished screen, its folds see fields of its first plate. Beside it stands the smoothing of the gradients: whole fields,
and only their rows and columns that are not empty.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).parents[1]))
from matched import matched_filter

from wscnn.network.model import WSCNN, score_fields
from wscnn.network.saliency import saliency
from wscnn.network.weights import load_folds
from wscnn.plates.fields import read_fields
from wscnn.plates.store import BOX, Plate
from wscnn.scoring.masks import _smoothed


def whole_fields(models: Sequence[WSCNN], images: torch.Tensor, threshold: float) -> torch.Tensor:
    """Return the gradient of the detector's positions above a threshold by a backward pass of whole fields."""
    images = images.clone().requires_grad_(True)
    maps = torch.stack([score_fields(model, images)[1] for model in models]).mean(0)
    if not bool((maps > threshold).any()):
        return torch.zeros_like(images[:, 0])
    return torch.autograd.grad(maps[maps > threshold].sum(), images)[0].norm(dim=1)


def milliseconds(*timed: Callable[[], object]) -> np.ndarray:
    """Return the least CPU milliseconds of each function, called in turn."""
    taken = np.empty((3, len(timed)))
    for row in taken:
        for k, function in enumerate(timed):
            start = time.process_time()
            function()
            row[k] = 1e3 * (time.process_time() - start)
    return taken.min(0)


def measure(name: str, models: Sequence[WSCNN], fields: torch.Tensor, threshold: float) -> None:
    """Print one line: means over fields, each in a pass of its own."""
    total, apart, cells = np.zeros(5), 0.0, 0
    for k in range(len(fields)):
        image = fields[k : k + 1]
        _, maps, gradients = saliency(models, image, [threshold])
        gradient = gradients[0, 0].numpy()
        cells += int((maps > threshold).any())
        apart = max(apart, np.abs(whole_fields(models, image, threshold)[0].numpy() - gradient).max())
        total += milliseconds(
            lambda: torch.no_grad()(lambda: [score_fields(model, image) for model in models])(),  # noqa: B023
            lambda: whole_fields(models, image, threshold),  # noqa: B023
            lambda: saliency(models, image, [threshold]),  # noqa: B023
            lambda: ndimage.gaussian_filter(gradient, 2.0),  # noqa: B023
            lambda: _smoothed(gradient, 2.0),  # noqa: B023
        )
    forward, whole, windows, smooth, part = total / len(fields)
    print(
        f"{name:24} {fields.shape[-1]:5} {cells / len(fields):6.0%} {forward:8.1f} {whole:8.1f} {windows:8.1f} "
        f"{whole / windows:6.2f} {apart:6.0e} {smooth:9.2f} {part:7.2f} {smooth / part:6.2f}"
    )


def made_up(size: int, cells: int) -> None:
    """Print the line of fields with so many bright spots."""
    torch.manual_seed(0)
    fields = 0.2 * torch.rand(4, 1, size, size)
    for field in fields:
        for y, x in torch.randint(8, size - 24, (cells, 2)).tolist():
            field[0, y : y + 9, x : x + 9] = 1
    measure(f"{cells} spots", [matched_filter().requires_grad_(False)], fields, 0.0)


def of_screen(results: Path, n_fields: int) -> None:
    """Print the line of fields of a finished screen."""
    folds = load_folds(results / "model")
    plate = Plate(sorted((results / "plates").iterdir())[0])
    wells = plate.wells[:: max(1, len(plate.wells) // n_fields)][:n_fields]
    fields = [read_fields(plate, well, folds[0][1].channels, plate.fields(well)[BOX].to_numpy()[:1]) for well in wells]
    threshold = float(np.mean([next(iter(card.thresholds.values()))["place"] for _, card in folds]))
    models = [model.requires_grad_(False).to(memory_format=torch.channels_last) for model, _ in folds]
    measure(f"{results.name}, {len(models)} folds", models, torch.from_numpy(np.concatenate(fields)), threshold)


def main() -> None:
    """Print a line for each size and number of cells, or that of a finished screen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[270, 540])
    parser.add_argument("--cells", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--results", type=Path)
    parser.add_argument("--fields", type=int, default=40)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("CPU milliseconds per field, one thread; ratios are whole over part")
    print("fields                    size firing  forward    whole  windows  ratio  apart smoothing    part  ratio")
    if given.results:
        of_screen(given.results, given.fields)
        return
    for size in given.size:
        for cells in given.cells:
            made_up(size, cells)


if __name__ == "__main__":
    main()
