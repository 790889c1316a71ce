"""One field of a simulated screen: cells are placed, then imaged by a microscope and its camera."""

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from wscnn.simulate.cells import CellBank, Drawn

#: Faults of a field: out of focus, over the camera's range, without cells, crossed by a fibre, stained twelve times too
#: strongly, a row or column of the camera dead.
FAULTS = ("blurred", "saturated", "empty", "fibre", "stained", "line")

# Camera units: a typical nucleus is about 26 times as bright as its noise, and the brightest stay below the limit.
_LEVEL = 1500.0
_OFFSET = 100.0
_UNITS_PER_ELECTRON = 2.0
_READ_NOISE = 6.0
_FULL_SCALE = 65535


class Optics(NamedTuple):
    """Illumination and staining of one plate."""

    flat: np.ndarray  # (size, size) float32, brightness over the field; 1 at its brightest
    gain: float  # brightness of the cells, usually 1
    background: float  # camera units of the medium


class Composed(NamedTuple):
    """Cells of one field before they are imaged."""

    signal: np.ndarray  # (size, size) float32
    cells: list[dict[str, object]]


def optics(rng: np.random.Generator, size: int, nuisance: float) -> Optics:
    """Draw a plate's illumination: vignetting about a point off the centre, its own gain and background."""
    middle = 0.5 + 0.08 * nuisance * rng.normal(size=2)
    along = (np.arange(size, dtype=np.float32) + 0.5) / size
    distance = np.add.outer((along - middle[0]) ** 2, (along - middle[1]) ** 2) / 0.5
    flat = 1 / (1 + 0.35 * nuisance * distance)
    return Optics(
        (flat / flat.max()).astype(np.float32),
        rng.lognormal(0, 0.15 * nuisance),
        200 * rng.lognormal(0, 0.2 * nuisance),
    )


def compose(
    rng: np.random.Generator, bank: CellBank, size: int, n_cells: int, prevalence: Mapping[str, float], planted: str
) -> Composed:
    """Place cells in a field: mostly without overlaps, at varying density.

    Parameters
    ----------
    rng
        Source of all random draws.
    bank
        Kind of cells.
    size
        Side of the field, pixels.
    n_cells
        Number of cells.
    prevalence
        Probability that a cell shows each phenotype.
    planted
        A phenotype that the first cell shows with certainty, far enough inside the field to be seen; empty for none.
    """
    names = ["", *prevalence]
    chances = np.array([0.0, *prevalence.values()])
    chances[0] = 1 - chances.sum()
    shown = [names[i] for i in rng.choice(len(names), n_cells, p=chances)]
    if planted:
        shown[:1] = [planted]
    density = _density(rng, size)
    signal = np.zeros((size, size), np.float32)
    cells: list[dict[str, object]] = []
    positions = np.zeros((len(shown), 2))
    radii = np.zeros(len(shown))
    for i, phenotype in enumerate(shown):
        drawn = bank.draw(rng, phenotype)
        radii[i] = np.sqrt(drawn.mask.sum() / np.pi)
        keep = bank.distance * (radii[:i] + radii[i])
        inset = min(radii[i], size / 2) if planted and i == 0 else 0.0
        # In a full field, a cell may overlap others after some tries, as real cells do.
        for attempt in range(30):
            y, x = positions[i] = rng.uniform(inset, size - inset, 2)
            free = ((positions[:i] - positions[i]) ** 2).sum(1) >= (keep * (1 - attempt / 60)) ** 2
            if free.all() and rng.random() < density[int(y), int(x)]:
                break
        box = _paste(signal, drawn, positions[i], bank.merge)
        cells.append(
            {"class": drawn.kind, "phenotype": phenotype, "rare": bool(phenotype), "y": y, "x": x}
            | dict(zip(("y0", "x0", "y1", "x1"), box, strict=True))
            | {"source": drawn.source}
        )
    return Composed(signal, cells)


def _paste(signal: np.ndarray, drawn: Drawn, position: np.ndarray, merge: np.ufunc) -> tuple[int, int, int, int]:
    """Add a cell's light, centred at `position`, to `signal`; return its box: y0, x0, y1, x1, half open."""
    height, width = drawn.mask.shape
    top, left = round(float(position[0])) - height // 2, round(float(position[1])) - width // 2
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + height, signal.shape[0]), min(left + width, signal.shape[1])
    there = signal[y0:y1, x0:x1]
    merge(there, drawn.signal[y0 - top : y1 - top, x0 - left : x1 - left], out=there)
    rows, columns = np.flatnonzero(drawn.mask.any(1)), np.flatnonzero(drawn.mask.any(0))
    box_y = np.clip([top + rows[0], top + rows[-1] + 1], 0, signal.shape[0])
    box_x = np.clip([left + columns[0], left + columns[-1] + 1], 0, signal.shape[1])
    return int(box_y[0]), int(box_x[0]), int(box_y[1]), int(box_x[1])


def expose(rng: np.random.Generator, signal: np.ndarray, light: Optics, gain: float, fault: str = "") -> np.ndarray:
    """Return the camera's image of a field.

    Parameters
    ----------
    rng
        Source of the noise.
    signal
        (size, size) float32 as `compose` makes it.
    light
        The plate's.
    gain
        The well's own brightness.
    fault
        One of `FAULTS`, or empty.

    Returns
    -------
    np.ndarray
        (size, size) uint16: shot noise (normal, as for many electrons) and read noise over an offset.
    """
    if fault == "blurred":
        signal = ndimage.gaussian_filter(signal, 8)
    elif fault == "fibre":
        signal = signal + fibre(rng, signal.shape[0])
    # Light from above and below the plane of focus makes a faint haze around cells.
    haze = _haze(signal)
    picture = (signal + haze) * np.float32(_LEVEL * light.gain * gain)
    picture += np.float32(light.background)
    picture *= light.flat
    if fault == "saturated":
        picture *= 80
    elif fault == "stained":
        picture *= 12
    noise = rng.standard_normal(picture.shape, dtype=np.float32)
    noise *= np.sqrt(picture * np.float32(_UNITS_PER_ELECTRON) + np.float32(_READ_NOISE**2))
    picture += noise
    picture += np.float32(_OFFSET + 0.5)
    if fault == "line":
        lines = picture if rng.random() < 0.5 else picture.T
        lines[rng.integers(1, len(lines) - 1)] = 0
    return np.clip(picture, 0, _FULL_SCALE, out=picture).astype(np.uint16)


def fibre(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return a bright fibre across a field: (size, size) float32, brightness as of cells."""
    along = np.linspace(-0.1, 1.1, 40)
    bend = sum(rng.normal(0, 0.12 / k) * np.sin(k * np.pi * along + rng.uniform(0, 6.3)) for k in (1, 2, 3))
    points = np.stack([rng.uniform(0.25, 0.75) + bend, along], 1) * size
    angle = rng.uniform(0, np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (points - size / 2) @ turn + size / 2
    dense = np.concatenate([np.linspace(a, b, size // 8) for a, b in pairwise(points)])
    inside = dense[((dense >= 0) & (dense < size)).all(1)].astype(int)
    drawn = np.zeros((size, size), np.float32)
    drawn[inside[:, 0], inside[:, 1]] = 1
    width = rng.uniform(3, 5)
    return ndimage.gaussian_filter(drawn, width) * np.float32(20 * width)


def _density(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return the local density of cells at each position: (size, size) float32 in (0, 1], smooth."""
    along = np.arange(size, dtype=np.float32) / size
    waves = [
        np.cos(np.float32(np.pi) * (np.float32(rng.uniform(0, 2.5)) * along + np.float32(rng.uniform(0, 2))))
        for _ in range(4)
    ]
    hills = np.multiply.outer(waves[0], waves[1]) + np.multiply.outer(waves[2], waves[3])
    return np.exp(np.float32(0.6) * (hills - hills.max()))


def _haze(signal: np.ndarray) -> np.ndarray:
    """Return a faint wide glow around bright regions, computed on a grid of 8 x 8 pixels."""
    size = signal.shape[0]
    coarse = -(-size // 8)
    padded = np.pad(signal, (0, coarse * 8 - size))
    small = padded.reshape(coarse, 8, coarse, 8).mean((1, 3))
    small = ndimage.gaussian_filter(small, 3, mode="nearest") * np.float32(0.25)
    at = (np.arange(size) + 0.5) / 8 - 0.5
    low = np.clip(np.floor(at).astype(int), 0, coarse - 2)
    part = np.clip(at - low, 0, 1).astype(np.float32)
    wide = small[:, low] * (1 - part) + small[:, low + 1] * part
    return wide[low] * (1 - part)[:, None] + wide[low + 1] * part[:, None]
