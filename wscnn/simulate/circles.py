"""Circles among ellipses: the simulated data of Sailem et al. (ICCV Workshops 2017)."""

from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from wscnn.core.atomic import atomic_path
from wscnn.core.errors import UserError
from wscnn.core.tables import conform, write_table
from wscnn.simulate import check_new

#: One row per object: `circle` is False for ellipses; positions in pixels, boxes half open.
BOXES = {
    "image": "int32",
    "object": "int32",
    "circle": "bool",
    "y": "float64",
    "x": "float64",
    "y0": "int32",
    "x0": "int32",
    "y1": "int32",
    "x1": "int32",
}

_SHAPE = (210, 280)
_GRID = (6, 8)
_OBJECTS = (30, 48)
_SIZE = (15.0, 20.0)
_MOVE = (1.0, 20.0)
# Half the side of a window that holds the longest ellipse of the smallest axis ratio.
_REACH = 24
_SMALLEST_RATIO = 0.2


def draw_circles(
    n_per_class: int,
    fraction: float = 0.1,
    *,
    axis_ratio: tuple[float, float] = (0.5, 0.7),
    circles: int | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Draw images of ellipses (negative) and of ellipses with some circles among them (positive).

    As Sailem et al. draw "Sim. Data 1" (`fraction` 0.1) and "2" (0.2): 30 to 48 objects at positions of a 6 x 8 grid,
    each moved by 1 to 20 pixels in any direction, each ellipse rotated by a random angle; bright and filled on black.
    Where the paper does not say: an object's size, 15 to 20 pixels, is the diameter of the circle of its area, so that
    neither area nor brightness distinguishes circles from ellipses; the edge is antialiased; a move that takes an
    object over the border or within a pixel of another is drawn again, up to 200 times.

    Parameters
    ----------
    n_per_class
        Images of each class.
    fraction
        Fraction of the objects of a positive image that are circles, rounded to a whole number but at least one.
    axis_ratio
        Lowest and highest ratio of an ellipse's short to its long axis, drawn uniformly.
    circles
        Number of circles in each positive image, instead of `fraction`.
    seed
        The same seed gives the same images; image i does not depend on how many there are of its class.

    Returns
    -------
    images
        (2 * n_per_class, 210, 280) uint8, negative images first.
    labels
        (2 * n_per_class,) int64: 0 negative, 1 positive.
    boxes
        One row per object, columns `BOXES`.

    Raises
    ------
    UserError
        When a number is out of range.
    """
    _check(n_per_class, fraction, axis_ratio, circles)
    labels = np.repeat([0, 1], n_per_class)
    images = np.empty((len(labels), *_SHAPE), np.uint8)
    tables = []
    for i, label in enumerate(labels):
        rng = np.random.default_rng([seed, label, i % n_per_class])
        n = int(rng.integers(_OBJECTS[0], _OBJECTS[1] + 1))
        n_circles = (circles or max(1, round(fraction * n))) if label else 0
        images[i], table = _draw(rng, n, n_circles, axis_ratio)
        tables.append(table.assign(image=i))
    return images, labels, conform(pd.concat(tables, ignore_index=True), BOXES)


def simulate_circles(
    folder: Path,
    *,
    n_per_class: int = 2000,
    fraction: float = 0.1,
    axis_ratio: tuple[float, float] = (0.5, 0.7),
    circles: int | None = None,
    seed: int = 0,
) -> None:
    """Write the images of `draw_circles` and their truth to a new folder.

    Parameters
    ----------
    folder
        Folder to make. It gets ``negative.tif`` and ``positive.tif`` (one page per image), ``labels.tsv`` (image, file,
        page, label) and ``boxes.parquet`` (columns `BOXES`).
    n_per_class, fraction, axis_ratio, circles, seed
        As in `draw_circles`.

    Raises
    ------
    UserError
        When a number is out of range or `folder` exists.
    """
    check_new(folder)
    images, labels, boxes = draw_circles(n_per_class, fraction, axis_ratio=axis_ratio, circles=circles, seed=seed)
    names = np.array(["negative", "positive"])
    with atomic_path(folder) as partial:
        partial.mkdir()
        for label, name in enumerate(names):
            tifffile.imwrite(
                partial / f"{name}.tif", images[labels == label], photometric="minisblack", compression="zlib"
            )
        table = pd.DataFrame({"image": np.arange(len(labels)), "file": names[labels] + ".tif"})
        table["page"] = table.groupby("file").cumcount()
        table["label"] = names[labels]
        table.to_csv(partial / "labels.tsv", sep="\t", index=False, lineterminator="\n")
        write_table(boxes, partial / "boxes.parquet")


def _check(n_per_class: int, fraction: float, axis_ratio: tuple[float, float], circles: int | None) -> None:
    problems = []
    if n_per_class < 1:
        problems.append(f"n_per_class: {n_per_class} is too few; use 1 or more")
    if not 0 < fraction <= 1:
        problems.append(f"fraction: {fraction} is out of range; use a number above 0, at most 1")
    if not _SMALLEST_RATIO <= axis_ratio[0] <= axis_ratio[1] < 1:
        problems.append(
            f"axis_ratio: {axis_ratio[0]} to {axis_ratio[1]}; use two rising numbers from {_SMALLEST_RATIO} to below 1"
        )
    if circles is not None and not 1 <= circles <= _OBJECTS[0]:
        problems.append(f"circles: {circles} is out of range; use 1 to {_OBJECTS[0]}")
    if problems:
        raise UserError(problems)


def _draw(
    rng: np.random.Generator, n: int, n_circles: int, axis_ratio: tuple[float, float]
) -> tuple[np.ndarray, pd.DataFrame]:
    """Return one image of `n` objects and its boxes."""
    ratio = rng.uniform(*axis_ratio, n)
    # Positions are drawn in random order, so the first objects are a random choice.
    ratio[:n_circles] = 1
    radius = rng.uniform(*_SIZE, n) / 2
    long, short = radius / np.sqrt(ratio), radius * np.sqrt(ratio)
    angle = rng.uniform(0, np.pi, n)
    sin, cos = np.sin(angle), np.cos(angle)
    # Half the box of a rotated ellipse.
    tall, wide = np.hypot(long * sin, short * cos), np.hypot(long * cos, short * sin)
    y, x = _positions(rng, np.stack([tall, wide], 1), long).T
    canvas = np.zeros((_SHAPE[0] + 2 * _REACH, _SHAPE[1] + 2 * _REACH))
    steps = np.arange(2 * _REACH + 1) - _REACH
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    # The centre of pixel (0, 0) is at (0.5, 0.5).
    dy = (steps + (top - y + 0.5)[:, None])[:, :, None]
    dx = (steps + (left - x + 0.5)[:, None])[:, None, :]
    along = (dx * cos[:, None, None] + dy * sin[:, None, None]) / long[:, None, None]
    across = (dy * cos[:, None, None] - dx * sin[:, None, None]) / short[:, None, None]
    level = np.hypot(along, across) + 1e-9
    # Distance to the edge in pixels, to first order; pixels within half a pixel of it are partly covered.
    slope = np.hypot(along / long[:, None, None], across / short[:, None, None]) / level
    cover = np.clip(0.5 - (level - 1) / (slope + 1e-9), 0, 1)
    for i in range(n):
        window = canvas[top[i] : top[i] + len(steps), left[i] : left[i] + len(steps)]
        np.maximum(window, cover[i], out=window)
    image = np.round(255 * canvas[_REACH:-_REACH, _REACH:-_REACH]).astype(np.uint8)
    boxes = pd.DataFrame(
        {
            "object": np.arange(n),
            "circle": ratio == 1,
            "y": y,
            "x": x,
            "y0": np.floor(y - tall),
            "x0": np.floor(x - wide),
            "y1": np.ceil(y + tall),
            "x1": np.ceil(x + wide),
        }
    )
    return image, boxes


def _positions(rng: np.random.Generator, half_box: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Return centres (n, 2) near positions of the grid, clear of the border and of each other."""
    pitch = np.array(_SHAPE) / _GRID
    grid = rng.permutation(_GRID[0] * _GRID[1])[: len(reach)]
    start = (np.stack(np.divmod(grid, _GRID[1]), 1) + 0.5) * pitch
    low, high = half_box, np.array(_SHAPE) - half_box
    placed = np.zeros((0, 2))
    for i in range(len(reach)):
        angles = rng.uniform(0, 2 * np.pi, 200)
        moved = rng.uniform(*_MOVE, 200)[:, None] * np.stack([np.sin(angles), np.cos(angles)], 1)
        tries = start[i] + moved
        inside = ((tries >= low[i]) & (tries <= high[i])).all(1)
        apart = np.hypot(*np.moveaxis(tries[:, None] - placed, 2, 0)) - reach[:i] - reach[i]
        clear = inside & (apart > 1).all(1)
        # Between neighbours that left no room, the position with the smallest overlap.
        room = np.where(inside, apart.min(1, initial=np.inf), -np.inf)
        best = clear.argmax() if clear.any() else room.argmax()
        placed = np.vstack([placed, tries[best]])
    return placed
