"""A well's fields laid out in one mosaic, at the model's resolution.

Fields fill cells of one size on a regular grid, the same for every well of a plate. Where stage positions are known,
they give the grid's rows and columns; where fields overlap, each is cropped about its centre to the part that no two of
them share, so that no biological cell is counted twice. Positions without a field stay empty; gaps larger than a field
are not kept.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from wscnn.core.errors import UserError
from wscnn.core.progress import log

# Stage positions that differ by less than this fraction of a field are in one row or column of the grid: stages repeat
# to a few micrometres, fields are hundreds wide.
_SAME_LINE = 0.1
# A step this close to a field's size counts as a field's size: the difference is the stage's inaccuracy, not an
# overlap.
_TOUCHING = 0.995
# Stage positions that imply more than this many grid cells per field are not treated as a grid.
_MAX_SPARSE = 4
# Cropping that loses more than this fraction of the fields' area is an error, unless it was requested.
_MAX_LOST = 0.4


@dataclass(frozen=True)
class Mosaic:
    """Layout of the fields of a plate's wells.

    Attributes
    ----------
    cell
        Height and width of a field's cell in pixels of the mosaic.
    shape
        Height and width of the mosaic.
    fields
        One row per field: ``field, y, x, height, width`` in pixels of the mosaic and ``y_um, x_um``, the stage's
        position of the field's centre (NaN where not known).
    """

    cell: tuple[int, int]
    shape: tuple[int, int]
    fields: pd.DataFrame


def arrange(
    fields: pd.DataFrame,
    field_shape: tuple[int, int],
    pixel_size_um: float | None,
    downsample: int,
    how: str = "auto",
) -> Mosaic:
    """Return the mosaic of a plate.

    Parameters
    ----------
    fields
        Columns ``well, field, y_um, x_um``: the centres of all fields of the plate. A field's number stands for the
        same position in every well; positions may be counted from the well's or the plate's origin.
    field_shape
        Height and width of a raw field in pixels.
    pixel_size_um
        Size of a raw pixel, None where not known.
    downsample
        Raw pixels per mosaic pixel along an axis; what remains at the right and lower border is dropped.
    how
        ``positions`` at the stage positions, ``grid`` near-square in order of field numbers, ``auto`` at the stage
        positions where they form a grid, else near-square where no fields overlap; the log reports which, and what is
        cropped.

    Raises
    ------
    UserError
        With ``positions``, when stage positions or the pixel size are not known or do not form a grid; with ``auto``,
        when fields overlap that do not form a grid, or cropping would lose more than two fifths; and when the field is
        smaller than one mosaic pixel.
    """
    centres = _centres(fields)
    found = None if how == "grid" else _stage_grid(fields, centres, field_shape, pixel_size_um, how)
    row, column, cell = found or (*_near_square(len(centres)), field_shape)
    height, width = cell[0] // downsample, cell[1] // downsample
    if height == 0 or width == 0:
        raise UserError(f"mosaic.downsample: {downsample} leaves nothing of fields of {cell[0]} x {cell[1]} pixels")
    table = pd.DataFrame(
        {
            "field": centres["field"],
            "y": row * height,
            "x": column * width,
            "height": height,
            "width": width,
            "y_um": centres["y_um"],
            "x_um": centres["x_um"],
        }
    )
    return Mosaic((height, width), (int(row.max() + 1) * height, int(column.max() + 1) * width), table)


def _near_square(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column of each of `n` fields, laid side by side in order."""
    row, column = np.divmod(np.arange(n), math.ceil(math.sqrt(n)))
    return row, column


def _stage_grid(
    fields: pd.DataFrame,
    centres: pd.DataFrame,
    field_shape: tuple[int, int],
    pixel_size_um: float | None,
    how: str,
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]] | None:
    """Return row and column of each field by its stage position, and its cell; None where these do not form a grid."""
    problem = _unusable(centres, field_shape, pixel_size_um)
    if problem is None:
        # Stage positions in sides of a field.
        lines = [
            _lines(centres[axis].to_numpy() / (size * pixel_size_um))  # type: ignore[operator]
            for axis, size in zip(("y_um", "x_um"), field_shape, strict=True)
        ]
        (row, _), (column, _) = lines
        if len(set(zip(row.tolist(), column.tolist(), strict=True))) < len(row):
            problem = "two fields have the same position"
        elif (row.max() + 1) * (column.max() + 1) > _MAX_SPARSE * max(4, len(row)):
            problem = "the positions do not form rows and columns"
        else:
            at = np.stack([line for _, line in lines], axis=1)
            return row, column, _cropped(at, centres["field"].to_numpy(), field_shape, how)
    if how == "positions":
        raise UserError(f"mosaic.arrange: positions is not possible: {problem}; set it to grid or auto")
    if twice := _overlapping(fields, field_shape, pixel_size_um):
        raise UserError(
            f"mosaic.arrange: {twice} overlap, but {problem}, so that the overlap cannot be cropped; set it to grid to "
            "lay the fields side by side without cropping: cells in overlaps are then counted twice"
        )
    log(f"mosaic: fields are laid side by side in the order of their numbers, because {problem}")
    return None


def _centres(fields: pd.DataFrame) -> pd.DataFrame:
    """Return one row per field number with its position relative to the well, the median over wells.

    Wells are aligned to the well with the most fields, so that neither the origin of the positions (the well's or the
    plate's) nor missing fields matter.
    """
    reference = fields[fields["well"] == fields["well"].value_counts(sort=False).idxmax()].set_index("field")
    axes = ["y_um", "x_um"]
    away = fields[axes] - reference[axes].reindex(fields["field"]).to_numpy()
    shift = away.groupby(fields["well"]).transform("median").fillna(0.0)
    aligned = fields[["field"]].join(fields[axes] - shift)
    groups = aligned.groupby("field")[axes]
    spread = (groups.max() - groups.min()).max(axis=1)
    return groups.median().assign(spread_um=spread).reset_index()


def _unusable(centres: pd.DataFrame, field_shape: tuple[int, int], pixel_size_um: float | None) -> str | None:
    """Return why stage positions cannot be used, None when they can."""
    if centres[["y_um", "x_um"]].isna().any(axis=None):
        return "the stage positions are not known"
    if pixel_size_um is None:
        return "the pixel size is not known (acquisition.pixel_size_um)"
    if centres["spread_um"].max() > _SAME_LINE * min(field_shape) * pixel_size_um:
        return "a field's number stands for different positions in different wells"
    return None


def _lines(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rank of each position's line in the grid, and where that line is, in sides of a field."""
    order = np.argsort(positions, kind="stable")
    gaps = np.diff(positions[order], prepend=positions[order[0]])
    rank = np.empty(len(positions), dtype=np.int64)
    rank[order] = np.cumsum(gaps > _SAME_LINE)
    return rank, pd.Series(positions).groupby(rank).mean().to_numpy()[rank]


def _cropped(at: np.ndarray, numbers: np.ndarray, field_shape: tuple[int, int], how: str) -> tuple[int, int]:
    """Return what each field keeps, in raw pixels, so that no two show the same; raise where ``auto`` loses too much.

    Two fields that overlap are separated along the axis along which they are farther apart.

    Parameters
    ----------
    at
        Shape (n, 2): the fields' positions in sides of a field, no two the same.
    numbers
        The fields' numbers.
    """
    pairs, steps = _overlaps(at)
    if not len(pairs):
        return field_shape
    along = steps.argmax(axis=1)
    part = [steps[along == axis, axis].min(initial=1.0) for axis in (0, 1)]
    # A whole number of pixels stays exact.
    height, width = (int(size * kept + 1e-6) for size, kept in zip(field_shape, part, strict=True))
    lost = 1 - len(at) * part[0] * part[1] / _covered(at)
    nearest = numbers[pairs[steps.max(axis=1).argmin()]]
    what = (
        f"fields overlap (most: {nearest[0]} and {nearest[1]}); so that no cell is counted twice, the central {height} "
        f"x {width} of {field_shape[0]} x {field_shape[1]} pixels"
    )
    if how == "auto" and lost > _MAX_LOST:
        raise UserError(
            f"mosaic.arrange: {what} would be kept of each, and {lost:.0%} of the area lost; check the stage "
            "positions, then set it to positions to crop nevertheless, or to grid to lay the fields side by "
            "side without cropping: cells in overlaps are then counted twice"
        )
    log(f"mosaic: {what} are kept of each; {lost:.0%} of the area is lost")
    return height, width


def _overlaps(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which two fields overlap of those at `at` (n, 2) in sides of a field, and the steps between them.

    Both have shape (pairs, 2).
    """
    pairs = np.stack(np.triu_indices(len(at), 1), axis=1)
    steps = np.abs(at[pairs[:, 0]] - at[pairs[:, 1]])
    overlap = (steps < _TOUCHING).all(axis=1)
    return pairs[overlap], steps[overlap]


def _covered(at: np.ndarray) -> float:
    """Return the area that squares of side 1 at `at` (n, 2) cover together."""
    edges = [np.unique(np.concatenate([start, start + 1])) for start in at.T]
    y, x = (
        (line[:-1] >= start[:, None]) & (line[:-1] < start[:, None] + 1)
        for line, start in zip(edges, at.T, strict=True)
    )
    return float(np.diff(edges[0]) @ (y.T.astype(int) @ x > 0) @ np.diff(edges[1]))


def _overlapping(fields: pd.DataFrame, field_shape: tuple[int, int], pixel_size_um: float | None) -> str:
    """Return the first two fields that overlap by their positions, in words; empty where none do or nothing is known.

    A well whose fields all have one position gives no information: such a position was not recorded.
    """
    if pixel_size_um is None:
        return ""
    for well, rows in fields.groupby("well", sort=False):
        known = rows.dropna(subset=["y_um", "x_um"])
        at = known[["y_um", "x_um"]].to_numpy() / (np.array(field_shape) * pixel_size_um)
        pairs, _ = _overlaps(at)
        if len(pairs) and np.ptp(at, axis=0).max() > _SAME_LINE:
            one, other = known["field"].iloc[pairs[0]]
            return f"fields {one} and {other} of well {well}"
    return ""


def block_sums(image: np.ndarray, factor: int) -> np.ndarray:
    """Return the sums (uint32) of blocks of `factor` x `factor` pixels; what remains at the border is dropped.

    Rows first, so that most of the work runs over contiguous memory, in the narrowest type that holds their sums: few
    cameras fill 16 bits, and half the bytes take half the time.
    """
    if factor == 1:
        return image.astype(np.uint32)
    height, width = image.shape[0] // factor, image.shape[1] // factor
    blocks = image[: height * factor].reshape(height, factor, image.shape[1])
    rows = blocks.sum(axis=1, dtype=np.min_scalar_type(int(image.max()) * factor))[:, : width * factor]
    sums = np.add(rows[:, ::factor], rows[:, 1::factor], dtype=np.uint32)
    for column in range(2, factor):
        sums += rows[:, column::factor]
    return sums


def block_means(image: np.ndarray, factor: int) -> np.ndarray:
    """Return the means (float32) of blocks of `factor` x `factor` pixels; what remains at the border is dropped."""
    if image.dtype.kind == "u":
        return block_sums(image, factor) / np.float32(factor * factor)
    height, width = image.shape[0] // factor, image.shape[1] // factor
    blocks = image[: height * factor, : width * factor].reshape(height, factor, width, factor)
    return blocks.mean(axis=(1, 3), dtype=np.float32)


def crop_centre(image: np.ndarray, cell: tuple[int, int]) -> np.ndarray:
    """Return the part of `image` (..., y, x) of size `cell` about its centre."""
    y, x = ((have - want) // 2 for have, want in zip(image.shape[-2:], cell, strict=True))
    return image[..., y : y + cell[0], x : x + cell[1]]
