"""The cells of a field, and what is measured on each: textbook features of shape, brightness and texture.

All cells are measured together, by sums over their labels, which is many times as fast as one by one.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull

from wscnn.staging.regions import REACH, outline, regions

Floats = NDArray[np.float64]

#: Lower bound of denominators.
LEAST = 1e-6
#: Directions of pairs of adjacent pixels.
ANGLES = ((0, 1), (1, 1), (1, 0), (1, -1))

#: Names of the measures of shape, and of those of each channel, in the order of `cell_measures`.
OF_SHAPE = ("log_area", "log_aspect", "solidity", "form_factor")
OF_CHANNEL = ("mean", "cv", "q05", "q95", "skewness", "gradient", "mass_displacement")


def n_measures(n_channels: int) -> int:
    """Return how many values `cell_measures` gives per cell."""
    return len(OF_SHAPE) + len(OF_CHANNEL) * n_channels


class OutlinedCells(NamedTuple):
    """The cells of a field.

    Attributes
    ----------
    outlines
        Shape (h, w): 0, or the number of the cell; cells are 1 to n without a gap.
    regions
        The cell of each position of a network's map, 0 where there is none, (h', w').
    measures
        As `cell_measures` gives them, (n, M).
    """

    outlines: np.ndarray
    regions: np.ndarray
    measures: NDArray[np.float32]


def find_cells(image: np.ndarray, stride: int, nuclear: int | None = None) -> OutlinedCells:
    """Return the cells of a field.

    Parameters
    ----------
    image
        Shape (C, h, w).
    stride
        Pixels between two positions of the network's map.
    nuclear
        The channel that shows nuclei, as from `wscnn.staging.regions.nuclear_channel`.
    """
    outlines = outline(image, nuclear)
    reach = REACH if nuclear is None or len(image) == 1 else 2 * REACH
    return OutlinedCells(outlines, regions(outlines, stride, reach), cell_measures(image, outlines))


def cell_measures(image: np.ndarray, labels: np.ndarray) -> NDArray[np.float32]:
    """Return shape, brightness and texture of the cells of a field.

    Intensities are relative: 0 is the median pixel outside cells, 1 the mean of the median cell. So they depend neither
    on the staining of a well nor on its background.

    Parameters
    ----------
    image
        Shape (C, y, x).
    labels
        Shape (y, x): 0 is background, cells are 1 to n without a gap.

    Returns
    -------
    np.ndarray
        Shape (n, `n_measures` (C)): `OF_SHAPE`, then `OF_CHANNEL` for each channel, in the order of the labels.
    """
    n = int(labels.max(initial=0))
    if n == 0:
        return np.empty((0, n_measures(len(image))), np.float32)
    sums = LabelSums(labels, n)
    shape, centre = shape_of(labels, sums)
    columns = [
        np.log(shape["area"]),
        np.log(shape["major_axis"] / np.maximum(shape["minor_axis"], 1)),
        shape["solidity"],
        shape["form_factor"],
    ]
    outside = labels == 0
    for channel in image:
        pixels = channel.astype(float)
        background = float(np.median(pixels[outside] if outside.any() else pixels))
        level = float(np.median(sums.mean(pixels))) - background
        measured = intensity_of((pixels - background) / (level if level > 0 else 1.0), sums, centre)
        columns += [measured[name] for name in OF_CHANNEL]
    return np.nan_to_num(np.stack(columns, axis=1), posinf=0, neginf=0).astype(np.float32)


class LabelSums:
    """The pixels of each label, in the order of the labels, for sums and extremes over them.

    Parameters
    ----------
    labels
        Shape (y, x); a label from 1 to `n` may have no pixel, and then its figures are NaN.
    n
        How many labels there are.
    """

    def __init__(self, labels: np.ndarray, n: int) -> None:
        flat = labels.ravel()
        inside = np.flatnonzero(flat)
        self.pixels = inside[np.argsort(flat[inside], kind="stable")]
        self.of = flat[self.pixels]
        self.size: NDArray[np.int64] = np.bincount(self.of, minlength=n + 1)[1:]
        self.there = self.size > 0
        # Row and column of each pixel.
        self.y, self.x = np.divmod(self.pixels, labels.shape[1])
        self._start = (np.cumsum(self.size) - self.size)[self.there]

    def of_pixels(self, image: np.ndarray) -> Floats:
        """Return the values of an image at the pixels, which figures of several kinds are made of."""
        return image.ravel()[self.pixels].astype(float)

    def _reduced(self, how: np.ufunc, values: Floats) -> Floats:
        found = np.full(len(self.size), np.nan)
        if self.there.any():
            found[self.there] = how.reduceat(values, self._start)
        return found

    def sum_of(self, values: Floats) -> Floats:
        """Return the sum over each label of `values` of the pixels."""
        return self._reduced(np.add, values)

    def mean_of(self, values: Floats) -> Floats:
        """Return the mean over each label of `values` of the pixels."""
        return self.sum_of(values) / np.where(self.there, self.size, 1)

    def sum(self, image: np.ndarray) -> Floats:
        """Return the sum of an image over each label."""
        return self.sum_of(self.of_pixels(image))

    def mean(self, image: np.ndarray) -> Floats:
        """Return the mean of an image over each label."""
        return self.mean_of(self.of_pixels(image))

    def max(self, image: np.ndarray) -> Floats:
        """Return the highest value of an image in each label."""
        return self._reduced(np.maximum, self.of_pixels(image))

    def min(self, image: np.ndarray) -> Floats:
        """Return the lowest value of an image in each label."""
        return self._reduced(np.minimum, self.of_pixels(image))


def share(part: Floats, whole: Floats) -> Floats:
    """Return `part` over `whole`, which is bounded away from 0."""
    return part / np.maximum(np.abs(whole), LEAST)


def shape_of(labels: np.ndarray, sums: LabelSums) -> tuple[dict[str, Floats], Floats]:
    """Return features of the shape of each label, in pixels, and the centres, shape (n, 2)."""
    y, x = sums.y.astype(float), sums.x.astype(float)
    area = sums.size.astype(float)
    cy, cx = sums.mean_of(y), sums.mean_of(x)
    yy = sums.mean_of(y**2) - cy**2
    xx = sums.mean_of(x**2) - cx**2
    xy = sums.mean_of(y * x) - cy * cx
    half = np.sqrt(((yy - xx) / 2) ** 2 + xy**2)
    large, small = np.maximum((yy + xx) / 2 + half, LEAST), np.maximum((yy + xx) / 2 - half, 0)
    boxes = ndimage.find_objects(labels)
    sides = np.array([[box[0].stop - box[0].start, box[1].stop - box[1].start] for box in boxes])
    perimeter = _perimeter(labels, len(area))
    hull = np.array([_hull_area(labels[box] == i + 1) for i, box in enumerate(boxes)])
    found = {
        "area": area,
        "major_axis": 4 * np.sqrt(large),
        "minor_axis": 4 * np.sqrt(small),
        "eccentricity": np.sqrt(1 - small / large),
        "extent": area / sides.prod(axis=1),
        "solidity": area / hull,
        "perimeter": perimeter,
        "form_factor": 4 * np.pi * area / perimeter**2,
        "compactness": 2 * np.pi * (yy + xx) / area,
    }
    return found, np.stack([cy, cx], axis=1)


def _perimeter(labels: np.ndarray, n: int) -> Floats:
    """Return the length of each border, from the changes of label in four directions (Crofton's formula)."""
    padded = np.pad(labels, 1)
    total = np.zeros(n + 1)
    for (dy, dx), weight in zip(ANGLES, (1, np.sqrt(0.5), 1, np.sqrt(0.5)), strict=True):
        one, other = pair(padded, dy, dx)
        changed = one != other
        for side in (one, other):
            total += weight * np.bincount(side[changed], minlength=n + 1)
    return np.pi / 8 * total[1:]


def pair(array: np.ndarray, dy: int, dx: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels that have a partner `dy` below and `dx` right of them, and these partners."""
    height, width = array.shape
    left, right = max(0, -dx), max(0, dx)
    return array[: height - dy, left : width - right], array[dy:, right : width - left]


def _hull_area(mask: np.ndarray) -> float:
    """Return the area of the convex hull of a mask's pixels, treated as squares."""
    rows = np.flatnonzero(mask.any(axis=1))
    first = mask[rows].argmax(axis=1)
    last = mask.shape[1] - mask[rows, ::-1].argmax(axis=1)
    ends = np.concatenate([np.stack([rows + d, side], axis=1) for d in (0, 1) for side in (first, last)])
    return float(ConvexHull(ends).volume)


def intensity_of(
    pixels: Floats, sums: LabelSums, centre: Floats, quantiles: tuple[float, ...] = (0.05, 0.95)
) -> dict[str, Floats]:
    """Return features of the brightness of each label; all labels have pixels.

    Parameters
    ----------
    pixels
        Shape (y, x).
    sums
        The labels.
    centre
        Their centres, (n, 2), as from `shape_of`.
    quantiles
        Which ones to take, as ``q05`` and so on.
    """
    inside = sums.of_pixels(pixels)
    values = inside[np.lexsort((inside, sums.of))]
    start = np.cumsum(sums.size) - sums.size
    mean = sums.mean_of(inside)
    sd = np.sqrt(np.maximum(sums.mean_of(inside**2) - mean**2, 0))
    found = {"mean": mean, "sd": sd, "cv": share(sd, mean), "sum": sums.sum_of(inside)}
    found |= {"min": values[start], "max": values[start + sums.size - 1]}
    for q in quantiles:
        found[f"q{100 * q:02.0f}"] = values[start + np.round(q * (sums.size - 1)).astype(int)]
    third = np.add.reduceat((values - np.repeat(mean, sums.size)) ** 3, start) / sums.size
    found["skewness"] = third / np.maximum(sd, LEAST) ** 3
    positive = np.maximum(inside, 0)
    weight = np.maximum(sums.sum_of(positive), LEAST)
    shift = [sums.sum_of(positive * axis) / weight - own for axis, own in zip((sums.y, sums.x), centre.T, strict=True)]
    found["mass_displacement"] = np.hypot(*shift) / np.sqrt(sums.size)
    gradient = np.hypot(ndimage.sobel(pixels, 0), ndimage.sobel(pixels, 1)) / 8
    found["gradient"] = share(sums.mean(gradient), mean)
    return found
