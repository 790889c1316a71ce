"""What negative control wells look like as a whole: intensities, sharpness and noise of their fields, mean features."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from wscnn.network.model import WSCNN, field_features
from wscnn.plates.fields import BACKGROUND, BRIGHT, read_fields
from wscnn.plates.store import BOX, Plate

#: Most negative control wells of a plate, and used fields of a well, that are looked at; side of the part of a field.
_WELLS, _FIELDS, _SIDE = 8, 2, 512
#: Distances, in pixels, whose differences distinguish sharp from blurred; noise is the same at all of them.
_NEAR, _MIDDLE, _FAR = 1, 2, 8
#: Side of the squares in which noise is measured, and the share of them, the darkest, that counts.
_SQUARE, _DARK = 8, 0.2


@torch.no_grad()
def describe_negatives(
    network: WSCNN,
    plates: Mapping[str, Plate],
    used: Iterable[pd.DataFrame],
    negatives: pd.DataFrame,
    channels: Sequence[str],
) -> dict[str, np.ndarray]:
    """Return what negative control wells of each plate look like: (wells, N).

    Columns are the logarithms of `wscnn.statistics.drift.MEASURES` of each channel in raw intensities, then the mean of
    each feature of the network. A plate without such a well is left out.

    At most eight wells of a plate are looked at, spread evenly over the plate, and two fields of each.

    Parameters
    ----------
    network
        On the device to compute on, in evaluation mode.
    plates
        Staged plates by name.
    used
        Of each plate, in the same order, the used fields: ``well, field``.
    negatives
        The negative control wells: ``plate, well``.
    channels
        Those that the network sees.
    """
    found = {}
    for plate, fields in zip(plates.values(), used, strict=True):
        boxes = plate.all_fields()[["well", "field", *BOX]].merge(fields[["well", "field"]], on=["well", "field"])
        own = boxes[boxes["well"].isin(negatives.loc[negatives["plate"] == plate.name, "well"])]
        wells = {str(well): rows[BOX].to_numpy()[:_FIELDS] for well, rows in own.groupby("well", sort=True)}
        if wells:
            chosen = np.linspace(0, len(wells) - 1, min(len(wells), _WELLS)).astype(int)
            some = [list(wells)[n] for n in chosen]
            found[plate.name] = np.stack([_describe(network, plate, well, channels, wells[well]) for well in some])
    # Pixels that are not numbers give none.
    finite = {name: rows[np.isfinite(rows).all(axis=1)] for name, rows in found.items()}
    return {name: rows for name, rows in finite.items() if len(rows)}


def _describe(network: WSCNN, plate: Plate, well: str, channels: Sequence[str], boxes: np.ndarray) -> np.ndarray:
    """Return the numbers of a well: the mean over its fields."""
    fields = read_fields(plate, well, channels, boxes)
    top, left = (max(0, (side - _SIDE) // 2) for side in fields.shape[-2:])
    fields = fields[..., top : top + _SIDE, left : left + _SIDE]
    windows = {channel.name: channel.window for channel in plate.channels}
    low, high = np.array([windows[name] for name in channels]).T[:, :, None, None]
    raw = fields * np.where(high > low, high - low, 1) + low
    measured = np.stack([[measure_field(image) for image in field] for field in raw]).mean(0).ravel()
    device = next(network.parameters()).device
    features = field_features(network, torch.from_numpy(np.ascontiguousarray(fields)).to(device))
    return np.concatenate([measured, features.float().mean((0, 2, 3)).cpu().numpy()]).astype(np.float64)


def measure_field(image: np.ndarray) -> list[float]:
    """Return logarithms of background, brightness, sharpness and noise of one channel of a field (y, x)."""
    background, bright = np.quantile(image[::2, ::2], [BACKGROUND, BRIGHT])
    brightness = max(float(bright - background), 1e-12)
    near, middle, far = (_difference(image, distance) for distance in (_NEAR, _MIDDLE, _FAR))
    # White noise adds equally to differences at all distances, and so cancels.
    sharp, coarse = max(middle - near, 1e-6 * brightness**2), max(far - near, 1e-6 * brightness**2)
    # Where the background was subtracted, the logarithm of almost nothing would be all that counts.
    level = max(float(background), 0.01 * brightness)
    # The noise of light grows with the root of its intensity.
    noise = max(_noise(image), 1e-4 * brightness) / np.sqrt(level)
    return np.log([level, brightness, sharp / coarse, noise]).tolist()


def _difference(image: np.ndarray, distance: int) -> float:
    """Return the mean square difference of pixels at a distance along either axis."""
    down = image[distance:] - image[:-distance]
    across = image[:, distance:] - image[:, :-distance]
    return float((down**2).mean() + (across**2).mean())


def _noise(image: np.ndarray) -> float:
    """Return the noise of an image: the mean absolute second difference of a typical one of its darkest squares."""
    height, width = (side // _SQUARE * _SQUARE for side in (image.shape[0], image.shape[1] - 2))

    def squares(values: np.ndarray) -> np.ndarray:
        shape = (height // _SQUARE, _SQUARE, width // _SQUARE, _SQUARE)
        return values[:height, :width].reshape(shape).swapaxes(1, 2).reshape(-1, _SQUARE**2)

    second = squares(np.abs(image[:, 2:] - 2 * image[:, 1:-1] + image[:, :-2]))
    mean = squares(image[:, 1:-1]).mean(1)
    return float(np.median(second.mean(1)[mean <= np.quantile(mean, _DARK)]))
