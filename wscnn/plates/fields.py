"""Fields as the network sees them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from wscnn.core.errors import UserError
from wscnn.core.progress import log
from wscnn.core.tables import QC, read_notes, read_table
from wscnn.plates.store import Plate

#: By how much two pixel sizes may differ and still count as equal: metadata of one objective differ in their last
#: digits.
_TOLERANCE = 0.01
#: Quantiles of a field's intensities that count as background, and as bright.
BACKGROUND, BRIGHT = 0.20, 0.97


def same_pixel_size(one: float | None, other: float | None) -> bool:
    """Return whether two pixel sizes are the same within 1 %; one that is not known is not compared."""
    return one is None or other is None or abs(one / other - 1) <= _TOLERANCE


def open_plates(stores: Sequence[Path], qcs: Sequence[Path]) -> dict[str, Plate]:
    """Return staged plates by name, in the order given.

    Parameters
    ----------
    stores, qcs
        The plates and, in the same order, their tables of fields.

    Raises
    ------
    UserError
        When their numbers differ, or two plates have the same name.
    """
    if len(stores) != len(qcs):
        raise UserError(f"{len(stores)} stores, but {len(qcs)} tables of fields; give one for each, in the same order")
    plates: dict[str, Plate] = {}
    for plate in map(Plate, stores):
        if (first := plates.setdefault(plate.name, plate)) is not plate:
            raise UserError(f"{first.path} and {plate.path}: both are plate '{plate.name}'; stage the plates again")
    return plates


def shared_channels(plates: Sequence[Plate], chosen: Sequence[str] | None) -> tuple[list[str], float | None]:
    """Return the channels to train on and the pixel size, the same in all plates; None where no plate states it.

    Parameters
    ----------
    plates
        The plates, at least one.
    chosen
        Names of channels; None takes those of the first plate.

    Raises
    ------
    UserError
        When a plate lacks a channel, or pixel sizes differ.
    """
    first = next((plate for plate in plates if plate.pixel_size_um is not None), plates[0])
    names = [channel.name for channel in plates[0].channels] if chosen is None else list(chosen)
    problems = []
    for plate in plates:
        there = [channel.name for channel in plate.channels]
        missing = [name for name in names if name not in there]
        if missing:
            problems.append(f"{plate.path}: has no channel {', '.join(missing)}; it has {', '.join(there)}")
        if not same_pixel_size(plate.pixel_size_um, first.pixel_size_um):
            problems.append(
                f"{plate.path}: a mosaic pixel is {plate.pixel_size_um:g} um, but {first.pixel_size_um:g} um in "
                f"{first.path}; plates that are trained on together need one pixel size"
            )
    if problems:
        raise UserError(problems)
    return names, first.pixel_size_um


def read_quality(plate: Plate, path: Path) -> pd.DataFrame:
    """Return the table of fields of a staged plate, verified to belong to these pixels and settings.

    Parameters
    ----------
    plate
        The plate.
    path
        Its table of fields, as `stage` wrote it beside the plate.

    Returns
    -------
    table
        One row per field, with the columns of `wscnn.core.tables.QC` first.

    Raises
    ------
    UserError
        When the table has other columns or types, names another plate, holds a field twice, or carries another digest
        than the plate; and when a manifest beside the plate is of another plate or digest.
    """
    manifest = plate.path.with_suffix(".json")
    if manifest.is_file() and (staged := _staged(manifest)) != (plate.name, plate.digest):
        raise UserError(
            f"{manifest} and {plate.path}: were not made by the same run of stage (plate '{staged[0]}' and "
            f"'{plate.name}', or their digests differ); stage plate '{staged[0]}' again"
        )
    table = read_table(path, QC)
    again = f"stage plate '{plate.name}' again"
    if others := sorted(set(table["plate"]) - {plate.name}):
        raise UserError(
            f"{path}: holds fields of plate '{others[0]}', but {plate.path} is plate "
            f"'{plate.name}'; give the table of that plate, or {again}"
        )
    if (twice := table.duplicated(["well", "field"])).any():
        row = table[twice].iloc[0]
        raise UserError(f"{path}: well {row['well']}, field {row['field']} has two rows; {again}")
    digest = read_notes(path).get("digest")
    if digest != plate.digest:
        raise UserError(
            f"{path} and {plate.path}: were not made by the same run of stage (their digests differ); {again}"
        )
    if digest is None:
        log(
            f"warning: {plate.path}: staged by an earlier version, without a digest; whether {path} was made from the "
            f"same pixels cannot be verified; to be sure, {again}"
        )
    return table


def _staged(manifest: Path) -> tuple[str, str | None]:
    """Return name and digest of the plate that a manifest stands for."""
    try:
        content = json.loads(manifest.read_bytes())
        return content["plate"], content.get("digest")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{manifest}: not the manifest of a staged plate ({error!r}); stage the plate again") from None


def draw_in_turns(fields: pd.DataFrame, n: int, turns: Sequence[Sequence[str]], seed: int) -> pd.DataFrame:
    """Return at most `n` rows of a table of fields, drawn at random and evenly over groups.

    Parameters
    ----------
    fields
        One row per field.
    n
        Rows to draw.
    turns
        Columns whose groups take turns, one field each. The last grouping counts first: its groups give equally many
        fields, and within each of them the groups of the one before take turns.
    seed
        Seed of the random draw.
    """
    order = fields.sample(frac=1, random_state=seed)
    for columns in turns:
        order = order.iloc[np.argsort(order.groupby(list(columns)).cumcount().to_numpy(), kind="stable")]
    return order.head(n)


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
        Shape (n, 4): `wscnn.plates.store.BOX` of each field, at least one, as in ``plate.fields(well)``.

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
