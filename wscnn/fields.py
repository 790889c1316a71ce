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


def read_fields(plate: Plate, well: str, channels: Sequence[str]) -> np.ndarray:
    """Return the fields of a well, shape (field, channel, y, x), float32, one for each row of ``plate.fields(well)``.

    Each channel is scaled so that the plate's window (its robust range of intensities) becomes 0..1. Values outside
    the window are kept. A channel without contrast (an empty window) is only shifted.

    Raises
    ------
    UserError
        When the plate has no such channel, the well no field, or its pixels are damaged.
    """
    windows = {channel.name: channel.window for channel in plate.channels}
    missing = [name for name in channels if name not in windows]
    if missing:
        raise UserError(f"{plate.path}: has no channel {', '.join(missing)}; it has {', '.join(windows)}")
    low, high = np.array([windows[name] for name in channels], dtype=np.float32).T[:, :, None, None]
    span = np.where(high > low, high - low, 1)
    table = plate.fields(well)
    if table.empty:
        raise UserError(f"{plate.path}, well {well}: has no field; leave the well out of the layout")
    mosaic = plate.read(well, channels)
    boxes = table[["y", "x", "height", "width"]].astype(int).itertuples(index=False)
    return np.stack([(mosaic[:, y : y + height, x : x + width] - low) / span for y, x, height, width in boxes])
