"""Fields as the network sees them."""

from collections.abc import Sequence

import numpy as np

from wscnn.errors import UserError
from wscnn.store import Plate

#: By how much two pixel sizes may differ and count as one: metadata of one objective differ in their last digits.
_TOLERANCE = 0.01


def same_pixel_size(one: float | None, other: float | None) -> bool:
    """Return whether two pixel sizes are the same within 1 %; one that is not known is not compared."""
    return one is None or other is None or abs(one / other - 1) <= _TOLERANCE


def read_fields(plate: Plate, well: str, channels: Sequence[str], boxes: np.ndarray) -> np.ndarray:
    """Return fields of a well, shape (field, channel, y, x), float32.

    Each channel is scaled so that the plate's window (its robust range of intensities) becomes 0..1. Values outside
    the window are kept. A channel without contrast (an empty window) is only shifted.

    Parameters
    ----------
    plate, well
        Where they are.
    channels
        Those to return, in this order.
    boxes
        Shape (n, 4): `wscnn.store.BOX` of each field, one at least, as in ``plate.fields(well)``.

    Raises
    ------
    UserError
        When the plate has no such channel, the well's pixels are damaged, or fields differ in size or lie outside the
        mosaic.
    """
    windows = {channel.name: channel.window for channel in plate.channels}
    missing = [name for name in channels if name not in windows]
    if missing:
        raise UserError(f"{plate.path}: has no channel {', '.join(missing)}; it has {', '.join(windows)}")
    low, high = np.array([windows[name] for name in channels], dtype=np.float32).T[:, :, None, None]
    span = np.where(high > low, high - low, 1)
    mosaic = plate.read(well, channels)
    height, width = boxes[0, 2:]
    if (boxes[:, 2:] != boxes[0, 2:]).any() or (boxes[:, :2] + boxes[:, 2:] > mosaic.shape[1:]).any():
        raise UserError(
            f"{plate.path}, well {well}: fields differ in size or lie outside the mosaic; stage the plate again"
        )
    fields = np.empty((len(boxes), len(channels), height, width), np.float32)
    for field, (y, x) in zip(fields, boxes[:, :2].tolist(), strict=True):
        np.subtract(mosaic[:, y : y + height, x : x + width], low, out=field, dtype=np.float32)
        field /= span
    return fields
