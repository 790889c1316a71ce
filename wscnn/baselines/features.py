"""Textbook features of nuclei: shape, intensity, texture, granularity, radial distribution, surroundings.

All nuclei of a field are measured together, by sums over their labels, which is many times as fast as one by one.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.morphology import disk

from wscnn.staging.cell_measures import ANGLES, LEAST, LabelSums, intensity_of, pair, shape_of, share

Floats = NDArray[np.float64]

# Distances at which grey levels are compared, pixels, and how many levels there are.
_DISTANCES = (1, 2, 4)
_LEVELS = 8
# Quantiles of a nucleus's pixels.
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Rings of a nucleus, of equal width, from its border to its centre.
_RINGS = 4
# Radii of the openings by which granularity is measured, pixels.
_GRAINS = (1, 2, 3, 4)
# The ring around a nucleus is this many typical radii wide; a spot has at most this many typical radii.
_RING_WIDTH = 0.7
_SPOT_RADIUS = 0.3
# A peak of the top-hat above this fraction of the nucleus's mean is a bright spot.
_BRIGHT_SPOT = 0.15
# Neighbours are nuclei whose centres lie within this many typical radii.
_NEAR = 4.0


def nucleus_features(image: Mapping[str, np.ndarray], labels: np.ndarray) -> dict[str, Floats]:
    """Return the features of the labelled nuclei of a field.

    Intensities are relative: 0 is the channel's background, 1 the mean of the field's median nucleus. So they do not
    depend on the well's staining. ``level_<channel>`` is that mean itself, above the background, in units of the image.

    Parameters
    ----------
    image
        Each channel by name, shape (y, x).
    labels
        Shape (y, x): 0 is background, nuclei are 1 to n without a gap.

    Returns
    -------
    features
        For each name an array with one value per nucleus, in the order of the labels. Features that are not defined
        for a nucleus, such as the nearest neighbour of the only one, are NaN.
    """
    n = int(labels.max(initial=0))
    if n == 0:
        return {}
    regions = LabelSums(labels, n)
    radius = float(np.sqrt(np.median(regions.size) / np.pi))
    depth = _depth(labels)
    found, centre = shape_of(labels, regions)
    found |= {"max_radius": regions.max(depth), "mean_radius": regions.mean(depth)}
    found |= _neighbours(centre, radius)
    width = max(2, round(_RING_WIDTH * radius))
    distance, (rows, columns) = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    ring = LabelSums(np.where((distance > 0) & (distance <= width), labels[rows, columns], 0), n)
    far = distance > width
    spot = disk(max(1, round(_SPOT_RADIUS * radius)))
    scaled = {}
    for name, pixels in image.items():
        scaled[name], level = _relative(pixels.astype(float), regions, far)
        mean = regions.mean(scaled[name])
        measured = {
            "level": np.full(n, level),
            **intensity_of(scaled[name], regions, centre, _QUANTILES),
            **_radial(scaled[name], labels, depth, mean),
            **_texture(scaled[name], labels, regions),
            **_granularity(scaled[name], regions),
            **_surroundings(scaled[name], regions, ring, spot),
        }
        found |= {f"{feature}_{name}": values for feature, values in measured.items()}
    names = list(scaled)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            found[f"correlation_{one}_{other}"] = _correlation(scaled[one], scaled[other], regions)
    return found


def _depth(labels: np.ndarray) -> Floats:
    """Return the depth of each pixel in its nucleus, 1 at the border; nuclei that touch have a border, too."""
    border = np.zeros(labels.shape, dtype=bool)
    for axis in (0, 1):
        step = np.diff(labels, axis=axis) != 0
        border |= np.concatenate([step, np.zeros_like(step.take([0], axis))], axis)
        border |= np.concatenate([np.zeros_like(step.take([0], axis)), step], axis)
    return np.where(labels > 0, ndimage.distance_transform_edt(~border) + 1, 0)


def _neighbours(centre: Floats, radius: float) -> dict[str, Floats]:
    n = len(centre)
    if n < 2:
        return {"nearest": np.full(n, np.nan), "n_near": np.zeros(n)}
    tree = cKDTree(centre)
    near = tree.query_ball_point(centre, _NEAR * radius, return_length=True) - 1
    distances = np.asarray(tree.query(centre, k=2)[0])
    return {"nearest": distances[:, 1] / radius, "n_near": near.astype(float)}


def _relative(pixels: Floats, regions: LabelSums, far: np.ndarray) -> tuple[Floats, float]:
    """Return a channel scaled to 0 at its background and 1 at its median nucleus, and the unscaled difference."""
    background = float(np.median(pixels[far] if far.any() else pixels))
    level = float(np.median(regions.mean(pixels))) - background
    return (pixels - background) / (level if level > 0 else 1.0), level


def _radial(pixels: Floats, labels: np.ndarray, depth: Floats, mean: Floats) -> dict[str, Floats]:
    """Return mean and unevenness of rings from the border to the centre, and the mean of the border itself.

    All are relative to the nucleus's mean. Rings that a small nucleus does not have are NaN.
    """
    n = len(mean)
    deepest = np.ones(n + 1)
    np.maximum.at(deepest, labels, depth)
    ring = np.minimum((_RINGS * (depth - 0.5) / deepest[labels]).astype(int), _RINGS - 1)
    found = {}
    for k in range(_RINGS):
        own = LabelSums(np.where(ring == k, labels, 0), n)
        average = own.mean(pixels)
        found[f"radial_{k + 1}"] = share(average, mean)
        found[f"radial_cv_{k + 1}"] = share(np.sqrt(np.maximum(own.mean(pixels**2) - average**2, 0)), mean)
    found["edge"] = share(LabelSums(np.where(depth == 1, labels, 0), n).mean(pixels), mean)
    return found


def _texture(pixels: Floats, labels: np.ndarray, regions: LabelSums) -> dict[str, Floats]:
    """Return Haralick's features of pairs of grey levels at several distances, over four directions."""
    n = len(regions.size)
    lowest = np.append(0.0, regions.min(pixels))[labels]
    highest = np.append(1.0, regions.max(pixels))[labels]
    grey = (_LEVELS * (pixels - lowest) / np.maximum(highest - lowest, LEAST)).astype(int).clip(0, _LEVELS - 1)
    i, j = np.indices((_LEVELS, _LEVELS))
    found: dict[str, Floats] = {}
    for distance in _DISTANCES:
        counts = np.zeros((n + 1) * _LEVELS**2)
        for dy, dx in ANGLES:
            one, other = pair(labels, distance * dy, distance * dx)
            same = (one == other) & (one > 0)
            a, b = (level[same] for level in pair(grey, distance * dy, distance * dx))
            counts += np.bincount((one[same] * _LEVELS + a) * _LEVELS + b, minlength=len(counts))
        table = counts.reshape(n + 1, _LEVELS, _LEVELS)[1:]
        table = table + table.swapaxes(1, 2)
        fraction = table / np.maximum(table.sum(axis=(1, 2), keepdims=True), 1)

        def total(of: np.ndarray, fraction: np.ndarray = fraction) -> Floats:
            return (fraction * of).sum(axis=(1, 2))

        mean = total(i)
        variance = total(i**2) - mean**2
        found |= {
            f"contrast_{distance}": total((i - j) ** 2),
            f"texture_correlation_{distance}": share(total(i * j) - mean**2, variance),
            f"energy_{distance}": total(fraction),
            f"homogeneity_{distance}": total(1 / (1 + (i - j) ** 2)),
            f"entropy_{distance}": -total(np.log2(np.where(fraction > 0, fraction, 1))),
            f"texture_variance_{distance}": variance,
        }
    return found


def _granularity(pixels: Floats, regions: LabelSums) -> dict[str, Floats]:
    """Return the fraction of a nucleus's intensity that openings of growing radius remove."""
    whole = regions.sum(pixels)
    found: dict[str, Floats] = {}
    before = pixels
    for radius in _GRAINS:
        opened = ndimage.grey_opening(pixels, footprint=disk(radius))
        found[f"granularity_{radius}"] = share(regions.sum(before - opened), whole)
        before = opened
    return found


def _surroundings(pixels: Floats, regions: LabelSums, ring: LabelSums, spot: np.ndarray) -> dict[str, Floats]:
    """Return features of the ring around each nucleus, and of small bright spots in it and in the nucleus.

    A micronucleus is a small bright spot beside a nucleus: ``ring_spot`` is the highest top-hat in the ring over the
    nucleus's mean, ``ring_spots`` the sum of the top-hat over the ring in relation to the nucleus's sum.
    """
    mean, average = regions.mean(pixels), ring.mean(pixels)
    smooth = ndimage.gaussian_filter(pixels, 0.7)
    hat = smooth - ndimage.grey_opening(smooth, footprint=spot)
    peak = (hat == ndimage.maximum_filter(hat, 3)) & (hat > _BRIGHT_SPOT)
    return {
        "ring_mean": share(average, mean),
        "ring_sd": share(np.sqrt(np.maximum(ring.mean(pixels**2) - average**2, 0)), mean),
        "ring_max": share(ring.max(pixels), mean),
        "ring_spot": share(ring.max(hat), mean),
        "ring_spots": share(ring.sum(hat), regions.sum(pixels)),
        "n_spots": regions.sum(peak),
        "max_spot": share(regions.max(hat), mean),
    }


def _correlation(one: Floats, other: Floats, regions: LabelSums) -> Floats:
    a, b = regions.mean(one), regions.mean(other)
    variance = (regions.mean(one**2) - a**2) * (regions.mean(other**2) - b**2)
    return (regions.mean(one * other) - a * b) / np.sqrt(np.maximum(variance, LEAST**2))
