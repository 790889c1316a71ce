"""Cells outlined in a field: fast and classical, for cell counts, the size of cells and the outlines of detections."""

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import convex_hull_image
from skimage.segmentation import watershed

from wscnn.core.robust import MAD_TO_SD
from wscnn.staging.mosaic import block_means

# A cell stands out from its surroundings by more than this many times the noise of a pixel.
_MIN_CONTRAST = 2.0
# A cell is at least this bright, as a fraction of the brightness of the typical cell.
_MIN_LEVEL = 0.15
# A cell's edge is where its brightness falls to this fraction of that of its own bright parts.
_EDGE = 0.35
# Pieces smaller than this fraction of the typical cell are debris.
_MIN_PART = 0.2
# Objects whose typical size is smaller than this (pixels) are noise.
_MIN_AREA = 9
# Larger cells (typical radius, pixels) are outlined in a smaller copy: as accurate and several times faster.
_MAX_RADIUS = 10.0
# Width of the smoothing that leaves one peak per cell, and the least distance of two peaks, in typical radii.
_PEAK_WIDTH = 0.25
_MIN_DISTANCE = 0.7
# Upper bound of the typical radius over the mean depth of bright regions; a disc has 3.
_MAX_DEPTH = 4.0
# Cells of a smaller typical radius (pixels) are smoothed less before their edge is found.
_SMALL_RADIUS = 5.0
# Daughters of an anaphase: area over that of the typical cell, length over width, distance of their centres in typical
# radii, cosine between that line and their length, and the ratio of their areas and of their brightness.
_MAX_DAUGHTER = 0.5
_MIN_LENGTH = 1.2
_MAX_APART = 2.2
_MAX_SKEW = 0.5
_MIN_ALIKE = 0.6


def count_nuclei(image: np.ndarray) -> int:
    """Return how many nuclei a field shows, including those cut by its border.

    Parameters
    ----------
    image
        Shape (y, x), any numeric type.
    """
    return int(label_cells(image).max(initial=0))


def label_cells(image: np.ndarray) -> np.ndarray:
    """Return the outline of every cell or nucleus of a field, as a label image.

    Cells are brighter than their surroundings. What varies slowly over the field is subtracted as background, and seeds
    are the peaks of smoothed brightness and depth combined; a watershed gives each seed its surroundings, in which the
    cell reaches to a fixed fraction of its own brightness, so that a bright cell does not hide a dim one. The typical
    cell, the median of the pieces by area, sets every length.

    Parameters
    ----------
    image
        Shape (y, x), any numeric type.

    Returns
    -------
    np.ndarray
        (y, x) uint32: 0 for background, 1 to n for the cells.
    """
    none = np.zeros(image.shape, np.uint32)
    if min(image.shape) < 8:
        return none
    pixels = _without_bright_pixels(image.astype(np.float32))
    smooth = ndimage.gaussian_filter(pixels, 1.0, truncate=3.0)
    some = slice(None, None, 3), slice(None, None, 3)
    noise = MAD_TO_SD * float(np.median(np.abs(pixels[some] - smooth[some])))
    if np.issubdtype(image.dtype, np.integer):
        noise = max(noise, 1.0)  # rounding
    signal = smooth - _background(smooth)
    if signal.max() <= _MIN_CONTRAST * noise:
        return none
    # The square root reduces the difference between dim and bright cells.
    root = np.sqrt(np.maximum(signal, 0))
    mask = _filled(signal > max(threshold_otsu(root[some]) ** 2, _MIN_CONTRAST * noise / 2))
    pieces, n = ndimage.label(mask)
    if n == 0:
        return none
    areas = np.sort(np.bincount(pieces.ravel())[1:])
    # Weighted by area: specks are many but small. Where cells touch, their depth limits it: a disc's mean depth is a
    # third of its radius.
    radius = float(np.sqrt(areas[np.searchsorted(np.cumsum(areas), areas.sum() / 2)] / np.pi))
    coarse = mask[::2, ::2]
    radius = min(radius, _MAX_DEPTH * float(2 * ndimage.distance_transform_edt(coarse)[coarse].mean()))
    if radius > _MAX_RADIUS:
        half = label_cells(block_means(image, 2))
        whole = np.repeat(np.repeat(half, 2, 0), 2, 1)
        return np.pad(whole, [(0, a - b) for a, b in zip(image.shape, whole.shape, strict=True)], mode="edge")
    depth = ndimage.distance_transform_edt(mask).astype(np.float32)
    width = max(1.0, _PEAK_WIDTH * radius)
    height = ndimage.gaussian_filter(root * np.minimum(depth, radius), width, truncate=3.0)
    side = 2 * max(1, round(_MIN_DISTANCE * radius)) + 1
    peaks = (height == ndimage.maximum_filter(height, side)) & mask
    seeds, n = ndimage.label(peaks, np.ones((3, 3)))
    if n == 0:
        return none
    labels = watershed(-height, seeds, mask=mask)
    if radius < _SMALL_RADIUS:  # the smoothing would widen small cells
        signal += ndimage.gaussian_filter(pixels, 0.5, truncate=3.0) - smooth
    return _paired(*_trimmed(labels, n, signal, noise, radius), radius)


def _trimmed(
    labels: np.ndarray, n: int, signal: np.ndarray, noise: float, radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return `labels` cut back to each cell's own edge, and the brightness of each cell.

    What is too faint or too small is left out, and the others are renumbered.
    """
    inside = np.flatnonzero(labels)
    owner, light = labels.ravel()[inside], signal.ravel()[inside]
    order = np.lexsort((light, owner))
    size = np.bincount(owner, minlength=n + 1)
    first = np.cumsum(size) - size
    level = np.zeros(n + 1, np.float32)
    has = size > 0
    level[has] = light[order][(first + (0.8 * (size - 1)).astype(int))[has]]
    keep = light > _EDGE * level[owner]
    area = np.bincount(owner[keep], minlength=n + 1)
    typical = float(np.median(level[1:]))
    good = (area >= max(_MIN_PART * np.pi * radius**2, 4)) & (level > max(_MIN_CONTRAST * noise, _MIN_LEVEL * typical))
    good[0] = False
    if good.any() and np.median(area[good]) < _MIN_AREA:
        good[:] = False
    number = np.where(good, np.cumsum(good), 0).astype(np.uint32)
    out = np.zeros(labels.size, np.uint32)
    out[inside[keep]] = number[owner[keep]]
    return out.reshape(labels.shape), level[good]


def _paired(labels: np.ndarray, level: np.ndarray, radius: float) -> np.ndarray:
    """Return `labels` with the two daughters of each anaphase as one cell, the gap between them filled.

    Daughters are small, similar in size and brightness, and close together face to face: the line between their centres
    runs across the length of both.
    """
    n = len(level)
    inside = np.flatnonzero(labels)
    owner = labels.ravel()[inside].astype(np.intp) - 1
    y, x = (at.astype(np.float64) for at in np.divmod(inside, labels.shape[1]))
    area = np.bincount(owner, minlength=n)
    centre = np.stack([np.bincount(owner, at, n) / area for at in (y, x)], 1)
    y, x = y - centre[owner, 0], x - centre[owner, 1]
    yy, xx, xy = (np.bincount(owner, product, n) / area for product in (y * y, x * x, x * y))
    length, direction = np.hypot(yy - xx, 2 * xy), np.arctan2(2 * xy, xx - yy) / 2  # of the major axis
    length = np.sqrt((yy + xx + length) / np.maximum(yy + xx - length, 1e-6))
    small = np.flatnonzero((area < _MAX_DAUGHTER * np.pi * radius**2) & (length > _MIN_LENGTH))
    if len(small) < 2:
        return labels
    apart = centre[small, None] - centre[None, small]
    distance = np.hypot(apart[..., 0], apart[..., 1])
    np.fill_diagonal(distance, np.inf)
    facing = np.abs(apart[..., 1] * np.cos(direction[small]) + apart[..., 0] * np.sin(direction[small]))
    facing = facing < _MAX_SKEW * distance
    alike = np.ones_like(facing)
    for value in (area[small], level[small]):
        alike &= np.minimum.outer(value, value) > _MIN_ALIKE * np.maximum.outer(value, value)
    distance[~(facing & facing.T & alike) | (distance > _MAX_APART * radius)] = np.inf
    nearest = distance.argmin(1)
    number = np.arange(n + 1, dtype=np.uint32)
    boxes = ndimage.find_objects(labels.astype(np.int32))
    for i, j in enumerate(nearest):
        if i < j and nearest[j] == i and np.isfinite(distance[i, j]):
            a, b = small[i] + 1, small[j] + 1
            box = tuple(
                slice(min(p.start, q.start), max(p.stop, q.stop))
                for p, q in zip(boxes[a - 1], boxes[b - 1], strict=True)
            )
            part = labels[box]
            hull = convex_hull_image((part == a) | (part == b))
            part[hull & ((part == 0) | (part == b))] = a
            number[b] = 0
    kept = number > 0
    return np.where(kept, np.cumsum(kept), 0).astype(np.uint32)[labels]


def _background(smooth: np.ndarray) -> np.ndarray:
    """Return the slowly varying background of a field: an opening over a quarter of it, plus a quadric."""
    step = max(1, min(smooth.shape) // 64)
    small = ndimage.gaussian_filter(block_means(smooth, step), 1.0)
    side = max(3, min(small.shape) // 4)
    y, x = (at.ravel() / max(small.shape) - 0.5 for at in np.indices(small.shape))
    terms = np.stack([np.ones_like(x), y, x, y * y, y * x, x * x], 1).astype(np.float32)
    # An opening alone would cut off a slope at the border.
    low = (terms @ np.linalg.lstsq(terms, small.ravel(), rcond=None)[0]).reshape(small.shape)
    low += ndimage.gaussian_filter(ndimage.grey_opening(small - low, (side, side)), side / 4, mode="nearest")
    at = [np.clip((np.arange(n) + 0.5) / step - 0.5, 0, m - 1) for n, m in zip(smooth.shape, low.shape, strict=True)]
    return _stretched(_stretched(low, at[0]).T, at[1]).T


def _stretched(values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return `values` along the first axis at the fractional positions `at`."""
    low = np.minimum(at.astype(int), max(len(values) - 2, 0))
    part = (at - low).astype(np.float32)[:, None]
    return values[low] * (1 - part) + values[np.minimum(low + 1, len(values) - 1)] * part


def _without_bright_pixels(pixels: np.ndarray) -> np.ndarray:
    """Return `pixels` with none brighter than its brightest neighbour above, below, left and right."""
    around = np.pad(pixels, 1, constant_values=-np.inf)
    highest = np.maximum(
        np.maximum(around[:-2, 1:-1], around[2:, 1:-1]), np.maximum(around[1:-1, :-2], around[1:-1, 2:])
    )
    return np.minimum(pixels, highest)


def _filled(mask: np.ndarray) -> np.ndarray:
    """Return `mask` with its holes filled: what is not mask and does not reach the border."""
    outside, n = ndimage.label(~mask)
    open_ones = np.zeros(n + 1, dtype=bool)
    for edge in (outside[0], outside[-1], outside[:, 0], outside[:, -1]):
        open_ones[edge] = True
    open_ones[0] = False
    return ~open_ones[outside]
