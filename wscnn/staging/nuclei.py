"""Nuclei counted in a field: fast and classical, for cell counts and the fraction of rare cells."""

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from wscnn.staging.mosaic import block_means

# Nuclei stand out from the background by more than this many times the noise of a pixel, and by more than rounding.
_MIN_CONTRAST = 2.0
_LEAST = 2.0
# Pieces smaller than this part of the typical nucleus are debris.
_MIN_PART = 0.2
# Larger nuclei (typical radius, pixels) are counted on a smaller copy: no less right and several times faster.
_MAX_RADIUS = 10.0
# Peaks of the distance map closer than this many typical radii belong to one nucleus.
_MIN_DISTANCE = 0.7


def count_nuclei(image: np.ndarray) -> int:
    """Return how many nuclei a field shows, those cut by its border included.

    Nuclei are brighter than what lies between them. The field is smoothed and split by Otsu's threshold; touching
    nuclei are told apart by the peaks of the distance to their border. Size needs no setting: the typical nucleus is
    the median of the pieces, by area.

    Parameters
    ----------
    image
        Shape (y, x), any numeric type.
    """
    pixels = image.astype(np.float32)
    smooth = ndimage.gaussian_filter(pixels, 1.0)
    some = smooth[::3, ::3]  # enough for quantiles
    noise = 1.4826 * float(np.median(np.abs(pixels[::3, ::3] - some)))
    dark, bright, brightest = np.quantile(some, (0.25, 0.995, 0.999))
    if brightest - dark <= max(_MIN_CONTRAST * noise, _LEAST):
        return 0
    mask = _filled(smooth > threshold_otsu(np.minimum(some, bright)))
    labels, n = ndimage.label(mask)
    areas = np.bincount(labels.ravel())[1:]
    if n == 0:
        return 0
    # Weighted by area: specks are many but small.
    order = np.sort(areas)
    typical = order[np.searchsorted(np.cumsum(order), order.sum() / 2)]
    keep = np.flatnonzero(areas >= max(_MIN_PART * typical, 4)) + 1
    radius = float(np.sqrt(typical / np.pi))
    if radius > _MAX_RADIUS:
        return count_nuclei(block_means(image, 2))
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 1.0)
    side = 2 * max(1, round(_MIN_DISTANCE * radius)) + 1
    peaks = (distance == ndimage.maximum_filter(distance, side)) & mask
    split = np.bincount(labels[peaks], minlength=n + 1)
    return int(np.maximum(split[keep], 1).sum())


def _filled(mask: np.ndarray) -> np.ndarray:
    """Return `mask` with its holes filled: what is not mask and does not reach the border."""
    outside, n = ndimage.label(~mask)
    open_ones = np.zeros(n + 1, dtype=bool)
    for edge in (outside[0], outside[-1], outside[:, 0], outside[:, -1]):
        open_ones[edge] = True
    open_ones[0] = False
    return ~open_ones[outside]
