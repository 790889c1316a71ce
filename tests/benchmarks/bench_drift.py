"""Drift: how often ordinary plates of real nuclei are flagged, and plates whose images were changed.

Plates are composed in memory (`wscnn.simulate`), each of the nuclei of one acquisition date or source, with gain,
background, crowding and vignetting of their own. Some plates train, the others are compared with them by the measures
of the image alone, without features of a network.

    python tests/benchmarks/bench_drift.py [KIND] [PLATES] [FIRST_SEED]
"""

import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import ndimage

from wscnn.encoder.appearance import measure_field
from wscnn.simulate.fields import compose, expose, optics
from wscnn.simulate.screen import KINDS
from wscnn.statistics.drift import drift_of, summarise_plates

#: Wells of a plate, fields of a well, and draws of training plates.
WELLS, FIELDS, DRAWS = 8, 2, 60


def images(kind: str, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the images of a plate (wells, fields, y, x), as they are and changed."""
    rng = np.random.default_rng(seed)
    groups = KINDS[kind].bank.groups
    bank = KINDS[kind].bank(groups[seed % len(groups)])
    phenotype = next(iter(KINDS[kind].phenotypes))
    size, fold = (400, 2) if kind == "nuclei" else (230, 1)
    light = optics(rng, size, 1.0)
    brighter = light._replace(background=2 * light.background)
    plain: list[np.ndarray] = []
    other: dict[str, list[np.ndarray]] = {
        "light of the background doubled": [],
        "blurred by 1 px, before the camera": [],
    }
    for _ in range(WELLS):
        edge = rng.random() < 0.3
        crowd, gain = rng.lognormal(0, 0.12) * (1 - 0.2 * edge), rng.lognormal(0, 0.06) * (1 + 0.12 * edge)
        for _ in range(FIELDS):
            n = max(rng.poisson((size / bank.spacing) ** 2 * crowd * rng.lognormal(0, 0.25)), 1)
            signal = compose(rng, bank, size, n, {phenotype: 0.003}, "").signal
            plain.append(expose(rng, signal, light, gain))
            other["light of the background doubled"].append(expose(rng, signal, brighter, gain))
            blurred = ndimage.gaussian_filter(signal, 1)
            other["blurred by 1 px, before the camera"].append(expose(rng, blurred, light, gain))

    def finished(fields: np.ndarray | list[np.ndarray]) -> np.ndarray:
        even = np.asarray(fields, np.float32) / (light.flat / light.flat.mean())
        side = size // fold
        return even.reshape(WELLS, FIELDS, side, fold, side, fold).mean((3, 5))

    fields = np.asarray(plain, np.float32)
    top = np.percentile(fields, 99.9)
    yield "none", finished(fields)
    yield "gamma 0.6", finished(top * (fields / top) ** 0.6)
    yield "background added once more", finished(fields + np.quantile(fields, 0.2))
    yield "blurred by 1 px", finished(ndimage.gaussian_filter(fields, (0, 1, 1)))
    for name, changed in other.items():
        yield name, finished(changed)


def main(kind: str = "micronuclei", plates: str = "20", first: str = "200") -> None:
    seeds = range(int(first), int(first) + int(plates))
    # A constant feature, of which every plate has the same.
    found = {
        (seed, change): np.column_stack(
            [np.array([[measure_field(f) for f in well] for well in wells]).mean(1), np.ones(WELLS)]
        )
        for seed in seeds
        for change, wells in images(kind, seed)
    }
    rng = np.random.default_rng(0)
    n_groups = len(KINDS[kind].bank.groups)
    rows = []
    for n_training in (1, 2, 3, 5, 8):
        for draw in range(DRAWS):
            # Every second time, training plates are of some of the dates or sources only.
            kept = rng.permutation(n_groups)[: max(1, n_groups - 1)] if draw % 2 else range(n_groups)
            pool = [seed for seed in seeds if seed % n_groups in kept]
            training = rng.choice(pool, n_training, replace=False)
            summary = summarise_plates({str(seed): found[seed, "none"] for seed in training})
            for (seed, change), wells in found.items():
                if seed not in training:
                    drift = drift_of(wells, summary, ["DNA"])
                    rows.append((n_training, change, drift.value > drift.threshold))
    table = pd.DataFrame(rows, columns=["training plates", "change", "flagged"])
    shares = table.pivot_table(index="change", columns="training plates", values="flagged", sort=False)
    print(f"{kind}: share of plates flagged, seeds {seeds[0]} to {seeds[-1]}")
    print(shares.round(3).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
