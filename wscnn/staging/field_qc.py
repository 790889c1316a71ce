"""Quality of each field and channel: numbers first, flags by thresholds afterwards.

Numbers are taken from the field as it is staged (corrected and downsampled). Where no absolute limit exists, flags
compare a field with its plate, leniently: a strong phenotype must not be flagged.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from scipy import fft, ndimage

from wscnn.core.robust import MAD_TO_SD
from wscnn.core.tables import TABLES
from wscnn.staging.mosaic import block_means

#: Numbers of a field and channel; their columns in the table of quality are ``<number>_<channel>``.
NUMBERS = tuple(name.removesuffix("_*") for name in TABLES["qc"] if name.endswith("_*"))

#: What may be wrong with a field, in the order in which flags are listed.
FLAGS = ("blurred", "saturated", "empty", "debris", "lines", "staining")
#: Flag of the good fields of a well that has too few of them.
FEW_FIELDS = "few_fields"

# Lines of pixels that are measured along each axis: more add nothing about a field as a whole.
_LINES = 135
# Side of the coarse copy of a field on which bright objects are measured.
_COARSE = 96


def measure(field: np.ndarray) -> dict[str, float]:
    """Return the numbers of one channel of a field except ``saturated``, which needs the raw image.

    - ``mean, median, low, high``: intensities; low and high are the 1st and 99.5th percentile
    - ``focus_slope``: slope of the power spectrum over spatial frequency, both logarithmic (steeper, more negative:
      less fine detail)
    - ``focus_gradient``: mean square difference of neighbouring pixels over the variance
    - ``contrast``: 99.9th percentile minus median of a coarse copy of the field, about 100 x 100 blocks
    - ``bright``: highest value of that coarse copy minus its median
    - ``extent``: longest side of the largest object brighter than a third of ``bright``, as a fraction of the field's
    side
    - ``line_jumps``: rows and columns at which the whole line is darker or brighter than the one before
    """
    sample = _thinned(field, _LINES, _LINES).ravel()
    low, median, high = _ranked(sample, *(int(q * (sample.size - 1)) for q in (0.01, 0.5, 0.995)))
    slope, noise = _spectrum(field)
    small = block_means(field, max(1, min(field.shape) // _COARSE))
    last = small.size - 1
    *halves, bright, top = _ranked(small.ravel(), last // 2, small.size // 2, last - small.size // 1000, last)
    middle = sum(halves) / 2
    return {
        "mean": float(field.mean(dtype=np.float64)),
        "median": median,
        "low": low,
        "high": high,
        "focus_slope": slope,
        "focus_gradient": _gradient(field, noise),
        "contrast": bright - middle,
        "bright": top - middle,
        "extent": _extent(small, middle + (top - middle) / 3),
        "line_jumps": float(_line_jumps(field) + _line_jumps(field.T)),
    }


def at_limit(highest: pd.Series, low: pd.Series) -> pd.Series:
    """Return for each field of a plate whether the highest raw value of a channel is the camera's limit.

    The plate's highest value counts as the camera's saturation level only if it equals the limit of a bit depth (255,
    1023, ...) or is many grey levels above the dark level; otherwise it is merely the brightest value. With few grey
    levels each of them has many pixels, the highest included.

    Parameters
    ----------
    highest
        Each field's highest raw value.
    low
        Each field's number ``low``.
    """
    limit = highest.max()
    clips = limit in _BIT_DEPTHS or limit - low.median() >= _LEVELS
    return (highest == limit) & clips


def flag(numbers: pd.DataFrame, channels: Sequence[str], settings: Mapping[str, Any]) -> pd.DataFrame:
    """Return ``used`` (bool) and ``flags`` (names separated by commas) for each row of a plate's numbers.

    Flags are those of `FLAGS`; good fields of a well that has fewer than ``min_fields`` get `FEW_FIELDS`.

    Parameters
    ----------
    numbers
        Columns ``well`` and ``<number>_<channel>``, one row per field of the plate.
    channels
        The plate's channels.
    settings
        The config's section ``qc``.
    """
    found = {name: np.zeros(len(numbers), dtype=bool) for name in FLAGS}
    empty = np.ones(len(numbers), dtype=bool)
    for channel in channels:
        of = {name: numbers[f"{name}_{channel}"].to_numpy() for name in NUMBERS}
        typical = {name: float(np.median(values)) for name, values in of.items()}
        found["blurred"] |= typical["focus_slope"] - of["focus_slope"] > settings["blur_slope"]
        found["blurred"] |= of["focus_gradient"] < settings["blur_gradient"] * typical["focus_gradient"]
        saturated = of["saturated"] > settings["saturation"]
        found["saturated"] |= saturated
        # A channel that shows nothing on the whole plate is no reason to flag its fields.
        empty &= of["contrast"] <= settings["empty"] * typical["contrast"]
        long = of["extent"] > _LONG * typical["extent"]
        found["debris"] |= long & (of["bright"] > settings["debris"] * typical["bright"])
        found["lines"] |= of["line_jumps"] > typical["line_jumps"]
        # Saturation does not depend on the stain alone.
        found["staining"] |= (_outlying(np.log2(np.maximum(of["mean"], 1e-3))) > settings["staining"]) & ~saturated
    found["empty"] = empty
    # An empty field has no focus to measure.
    found["blurred"] &= ~empty
    flags = pd.Series(
        [",".join(name for name in FLAGS if found[name][row]) for row in range(len(numbers))], numbers.index, dtype=str
    )
    good = flags == ""
    few = good.groupby(numbers["well"]).transform("sum") < settings["min_fields"]
    return pd.DataFrame({"used": good & ~few, "flags": flags.mask(good & few, FEW_FIELDS)})


# At a dead line the fractions of pixels that become darker and brighter differ by this much, the step is at least this
# fraction of the field's mean, and this many robust standard deviations of the steps between all lines.
_AGREE, _JUMP, _STANDS_OUT = 0.8, 0.05, 6.0
# The highest values of cameras of 8, 10, 12, 14 and 16 bits.
_BIT_DEPTHS = (255, 1023, 4095, 16383, 65535)
# In a field of at least this many grey levels, fewer pixels than the usual limit of `saturation` have the highest
# value, unless the camera saturates.
_LEVELS = 100
# The spectrum of a field with fewer pixels along a side is not measured.
_LEAST_SIDE = 32
# Power below this fraction of the noise is indistinguishable from zero.
_FLOOR = 0.05
# Fibres and clumps of dye are usually this many times longer than a plate's largest cells.
_LONG = 2.5


def _outlying(values: np.ndarray) -> np.ndarray:
    """Return the distance of each value from the median in robust standard deviations, taken to be at least 0.25."""
    away = np.abs(values - np.median(values))
    return away / max(MAD_TO_SD * float(np.median(away)), 0.25)


def _ranked(values: np.ndarray, *ranks: int) -> list[float]:
    """Return the values of these ranks, counted from 0 for the lowest."""
    return [float(value) for value in np.partition(values, ranks)[list(ranks)]]


def _thinned(field: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return equally spaced rows and columns of `field`, about `_LINES` of each."""
    return field[:: max(1, field.shape[0] // rows), :: max(1, field.shape[1] // columns)]


def _spectrum(field: np.ndarray) -> tuple[float, float]:
    """Return the slope of log power over log frequency, 1/32 to 1/4 cycles per pixel, and the variance of the noise.

    Along rows and columns. The camera's noise, estimated by the power of the highest frequencies, is subtracted first:
    it would look like detail in a blurred field.
    """
    n = min(field.shape)
    if n < _LEAST_SIDE:
        return 0.0, 0.0
    window, bands, frequencies = _bands(n)
    power = np.zeros(n // 2 + 1)
    for lines in (_thinned(field, 32, n)[:, :n], _thinned(field, n, 32).T[:, :n]):
        centred = lines - lines.mean(axis=1, keepdims=True, dtype=np.float32)
        transformed = fft.rfft(centred * window, axis=1)
        power += (transformed.real**2 + transformed.imag**2).mean(axis=0)
    noise = float(power[math.ceil(0.45 * n) :].mean())
    variance = noise / (2 * float((window**2).sum()))
    if len(bands) < 3:
        return 0.0, variance
    y = np.log([max(float(power[low:high].mean()) - noise, _FLOOR * noise) + 1e-6 for low, high in bands])
    x = frequencies - frequencies.mean()
    return float(x @ y / (x @ x)), variance


@cache
def _bands(n: int) -> tuple[np.ndarray, list[tuple[int, int]], np.ndarray]:
    """Return the window for lines of n pixels, the bands of their spectrum and the logarithms of their frequencies."""
    edges = [math.ceil(n * edge) for edge in np.geomspace(1 / 32, 1 / 4, 7)]
    bands = [(low, high) for low, high in pairwise(edges) if high > low]
    middles = np.log([(low + high - 1) / 2 / n for low, high in bands])
    return np.hanning(n).astype(np.float32), bands, middles


def _gradient(field: np.ndarray, noise: float) -> float:
    """Return the mean square difference of neighbours in a row over the variance, both without the noise's part."""
    rows = _thinned(field, _LINES, field.shape[1]).astype(np.float32)
    variance = float(rows.var()) - noise
    return max(float((np.diff(rows, axis=1) ** 2).mean()) - 2 * noise, 0.0) / variance if variance > 0 else 0.0


def _extent(image: np.ndarray, threshold: float) -> float:
    labels, n = ndimage.label(image > threshold)
    if n == 0:
        return 0.0
    sides = [max(box[0].stop - box[0].start, box[1].stop - box[1].start) for box in ndimage.find_objects(labels)]
    return max(sides) / max(image.shape)


def _line_jumps(field: np.ndarray) -> int:
    """Return at how many rows nearly every pixel is darker, or brighter, than in the row before.

    The step must stand out from those between other rows and be at least a twentieth of the field's mean. The outermost
    rows do not count: many cameras leave one dark in every image.
    """
    part = _thinned(field, field.shape[0], _LINES)[1:-1]
    if len(part) < 3:
        return 0
    sums = part.sum(axis=1, dtype=np.int64)
    at = np.flatnonzero(np.abs(np.diff(sums)) > _JUMP * float(sums.mean()))
    there = part[at + 1].astype(np.int32) - part[at]
    at = at[np.abs((there > 0).mean(axis=1) - (there < 0).mean(axis=1)) > _AGREE]
    if not len(at):  # as in most fields
        return 0
    steps = np.diff(part.astype(np.int32), axis=0)
    # Borders of cells are steps, too: each is clipped to a few times the typical pixel's step.
    most = 4 * max(int(np.median(np.abs(steps[::4]))), 1)
    size = np.abs(steps.clip(-most, most).mean(axis=1))
    return int((size[at] > _STANDS_OUT * MAD_TO_SD * float(np.median(size))).sum())
