"""Nuclei told apart in a field."""

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.segmentation import relabel_sequential, watershed

# As in `wscnn.staging.nuclei`, which counts what is labelled here.
_MIN_CONTRAST = 2.0
_LEAST = 2.0
_MIN_PART = 0.2
_MIN_DISTANCE = 0.7


def label_nuclei(image: np.ndarray) -> np.ndarray:
    """Return a label image: 0 is background, nuclei are 1 to n.

    The field is smoothed and split by Otsu's threshold; touching nuclei are split by a watershed of the distance to
    their border.

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
        return np.zeros(image.shape, np.int64)
    mask = ndimage.binary_fill_holes(smooth > threshold_otsu(np.minimum(smooth, bright)))
    pieces, n = ndimage.label(mask)
    if n == 0:
        return np.zeros(image.shape, np.int64)
    areas = np.bincount(pieces.ravel())[1:]
    # Weighted by area: specks are many but small.
    order = np.sort(areas)
    typical = order[np.searchsorted(np.cumsum(order), order.sum() / 2)]
    mask = np.append(False, areas >= max(_MIN_PART * typical, 4))[pieces]
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 1.0)
    side = 2 * max(1, round(_MIN_DISTANCE * np.sqrt(typical / np.pi))) + 1
    seeds, _ = ndimage.label((distance == ndimage.maximum_filter(distance, side)) & mask, np.ones((3, 3)))
    return relabel_sequential(watershed(-distance, seeds, mask=mask))[0]
