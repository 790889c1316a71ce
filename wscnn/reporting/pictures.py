"""Pictures of cells cut from staged plates, each with the outline of the mask and the saliency as layers over it."""

import base64
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.measure import approximate_polygon, find_contours

from wscnn.core.screen_folder import ScreenFolder
from wscnn.core.wells import SALIENCY
from wscnn.plates.channel_colors import shown_color
from wscnn.plates.store import Channel, Plate

# Colour of the saliency layer; its opacity is the saliency.
_SALIENCY_RGB = (255, 176, 0)
# Outlines of pictures may deviate by this from those of the mask, in pixels.
_ROUGH = 0.4
# Fraction of a plate's cut-out pixels that may be shown at full brightness.
_SATURATED = 0.001


@dataclass(frozen=True)
class Picture:
    """One cell.

    Attributes
    ----------
    plate, well, field
        Where it was imaged.
    y, x
        The cell's position in pixels of the well's mosaic.
    score
        Its detector score; None where it is not a detected object.
    image
        Its pixels, uint8 (side, side, 3).
    outline
        Outlines of the masks in it, an SVG path in pixels of the picture; empty where there is no mask.
    saliency
        The saliency, uint8 (side, side); None where there is none.
    """

    plate: str
    well: str
    field: int
    y: float
    x: float
    score: float | None
    image: np.ndarray
    outline: str
    saliency: np.ndarray | None


def picture_side(objects: pd.DataFrame) -> int:
    """Return the side in pixels of pictures that show objects of these sizes with their surroundings."""
    if objects.empty:
        return 64
    sides = np.maximum(objects["y1"] - objects["y0"], objects["x1"] - objects["x0"])
    return int(np.clip(3 * np.median(sides), 48, 160)) // 2 * 2


def random_cells(store: Path, wells: Sequence[str], n: int, side: int, seed: int) -> pd.DataFrame:
    """Return positions of `n` cells drawn at random in `wells`: ``plate, well, field, y, x``.

    Cells are local maxima of the smoothed intensity above Otsu's threshold; the model is not used. A field without any
    gives its centre.

    Parameters
    ----------
    store
        The plate.
    wells
        Where to search; every cell found is equally likely to be drawn.
    n
        Number of cells, at most as many as are found.
    side
        Side of a picture in pixels; a cell is assumed to fill about a third of it.
    seed
        Equal seeds draw equal cells.
    """
    plate = Plate(store)
    found = []
    for well in wells:
        mosaic = plate.read(well).astype(np.float32)
        for field in plate.fields(well).to_dict("records"):
            top, left = int(field["y"]), int(field["x"])
            pixels = mosaic[:, top : top + int(field["height"]), left : left + int(field["width"])]
            for y, x in _find_cells(_overlay(pixels, plate.channels), side):
                found.append((plate.name, well, field["field"], float(y + top), float(x + left)))
    cells = pd.DataFrame(found, columns=["plate", "well", "field", "y", "x"])
    chosen = np.random.default_rng(seed).permutation(len(cells))[:n]
    return cells.iloc[np.sort(chosen)].reset_index(drop=True)


def cut_pictures(screen: ScreenFolder, cells: pd.DataFrame, side: int) -> list[Picture | None]:
    """Return one picture per cell, in order; None where the plate does not exist.

    All pictures of a plate share one contrast: the plate's display window, widened upwards where the brightest of them
    would be clipped.

    Parameters
    ----------
    screen
        The results folder with the staged plates.
    cells
        ``plate, well, field, y, x, phenotype`` and, where known, ``score``.
    side
        Height and width of a picture in pixels of the mosaic.
    """
    pictures: list[Picture | None] = [None] * len(cells)
    for name, numbers in cells.groupby("plate", sort=True).indices.items():
        store = screen.plate(str(name))
        if store.is_dir():
            chosen = cells.iloc[numbers].to_dict("records")
            for number, picture in zip(numbers, _cut_plate(Plate(store), chosen, side), strict=True):
                pictures[number] = picture
    return pictures


def _cut_plate(plate: Plate, cells: list[dict[Hashable, Any]], side: int) -> list[Picture]:
    """Return the pictures of one plate; each well is read once."""
    cuts: dict[int, np.ndarray] = {}
    layers: dict[int, dict[str, np.ndarray]] = {}
    for well in sorted({cell["well"] for cell in cells}):
        mosaic, fields = plate.read(well), plate.fields(well).set_index("field")
        own = [(number, cell) for number, cell in enumerate(cells) if cell["well"] == well]
        wanted = {label for _, cell in own for label in (cell["phenotype"], cell["phenotype"] + SALIENCY)}
        labels = {label: plate.read_label(well, label) for label in plate.labels(well) if label in wanted}
        for number, cell in own:
            box = crop_box(cell["y"], cell["x"], side, fields.loc[cell["field"]])
            cuts[number] = _pad(mosaic[:, box[0], box[1]], side)
            layers[number] = {label: _pad(image[box], side) for label, image in labels.items()}
    ranges = contrast(list(cuts.values()), plate.channels)
    return [
        _picture(cell, compose(cuts[number], plate.channels, ranges), layers[number])
        for number, cell in enumerate(cells)
    ]


def _picture(cell: dict[Hashable, Any], image: np.ndarray, layers: dict[str, np.ndarray]) -> Picture:
    score = cell.get("score")
    mask, saliency = layers.get(cell["phenotype"]), layers.get(cell["phenotype"] + SALIENCY)
    return Picture(
        plate=cell["plate"],
        well=cell["well"],
        field=int(cell["field"]),
        y=float(cell["y"]),
        x=float(cell["x"]),
        score=None if score is None or pd.isna(score) else float(score),
        image=image,
        outline="" if mask is None else svg_path([approximate_polygon(line, _ROUGH) for line in outlines(mask)]),
        saliency=saliency,
    )


def compose(image: np.ndarray, channels: Sequence[Channel], ranges: Sequence[tuple[float, float]]) -> np.ndarray:
    """Return an image (channel, y, x) as viewers show it, uint8 (y, x, 3): one channel grey, several in their colours.

    Parameters
    ----------
    image
        Intensities.
    channels
        Give the colours.
    ranges
        For each channel the intensities shown as black and as full colour.
    """
    shown = np.zeros((*image.shape[1:], 3), np.float32)
    for plane, channel, (low, high) in zip(image, channels, ranges, strict=True):
        color = shown_color(channel.color, len(channels))
        rgb = np.array([int(color[i : i + 2], 16) for i in (0, 2, 4)], np.float32)
        shown += np.clip((plane.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1)[..., None] * rgb
    return np.clip(shown + 0.5, 0, 255).astype(np.uint8)


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Return the outlines of everything above zero in `mask`, each an array (n, 2) of y and x in pixels."""
    return [line - 1 for line in find_contours(np.pad(mask > 0, 1).astype(np.float32), 0.5)]


def shrink(image: np.ndarray, step: int) -> np.ndarray:
    """Return an image (channel, y, x) downsampled by `step`, by means over squares, float32."""
    n, height, width = image.shape
    cut = image[:, : height // step * step, : width // step * step].astype(np.float32)
    return cut.reshape(n, height // step, step, width // step, step).mean((2, 4))


def png_uri(rgb: np.ndarray) -> str:
    """Return an image, uint8 (y, x, 3 or 4), as a ``data:`` address."""
    return _data_uri(imagecodecs.png_encode(np.ascontiguousarray(rgb), level=9), "png")


def jpeg_uri(rgb: np.ndarray) -> str:
    """Return an image, uint8 (y, x, 3), as a ``data:`` address."""
    return _data_uri(imagecodecs.jpeg8_encode(np.ascontiguousarray(rgb), level=90), "jpeg")


def webp_text(rgb: np.ndarray) -> str:
    """Return an image, uint8 (y, x, 3), as WebP in base64."""
    return _base64(imagecodecs.webp_encode(np.ascontiguousarray(rgb), level=80, lossless=False))


def png_text(rgba: np.ndarray) -> str:
    """Return an image, uint8 (y, x, 4), as PNG in base64."""
    return _base64(imagecodecs.png_encode(np.ascontiguousarray(rgba), level=9))


def crop_box(y: float, x: float, side: int, field: pd.Series) -> tuple[slice, slice]:
    """Return the square about (y, x), moved to be inside its field, so that no unrelated neighbour is shown."""
    return (
        _span(y, side, int(field["y"]), int(field["height"])),
        _span(x, side, int(field["x"]), int(field["width"])),
    )


def _span(center: float, side: int, start: int, length: int) -> slice:
    first = int(np.clip(round(center) - side // 2, start, max(start, start + length - side)))
    return slice(first, min(first + side, start + length))


def _pad(image: np.ndarray, side: int) -> np.ndarray:
    """Return `image` filled with zeros to `side` x `side` where its field is smaller than that."""
    return np.pad(image, [(0, 0)] * (image.ndim - 2) + [(0, side - size) for size in image.shape[-2:]])


def contrast(cuts: Sequence[np.ndarray], channels: Sequence[Channel]) -> list[tuple[float, float]]:
    """Return the range in which each channel of a plate's pictures is shown, for `compose`.

    It is the plate's display window, wider where the brightest of the pictures (channel, y, x) would be clipped.
    """
    pixels = np.concatenate([cut.reshape(len(channels), -1) for cut in cuts], axis=1)
    tops = np.quantile(pixels, 1 - _SATURATED, axis=1)
    return [(channel.window[0], max(channel.window[1], top)) for channel, top in zip(channels, tops, strict=True)]


def _overlay(image: np.ndarray, channels: Sequence[Channel]) -> np.ndarray:
    """Return all channels of an image (channel, y, x) as one (y, x), each over its display window."""
    low = np.array([channel.window[0] for channel in channels])[:, None, None]
    high = np.array([channel.window[1] for channel in channels])[:, None, None]
    return ((image - low) / np.maximum(high - low, 1e-6)).mean(0)


def _find_cells(image: np.ndarray, side: int) -> np.ndarray:
    """Return centres (n, 2) of the cells in an image (y, x)."""
    smooth = gaussian_filter(image, side / 10)
    peaks = peak_local_max(smooth, min_distance=side // 6, threshold_abs=threshold_otsu(smooth), exclude_border=False)
    return peaks if len(peaks) else np.array([[size // 2 for size in image.shape]])


def svg_path(lines: Sequence[np.ndarray]) -> str:
    """Return outlines as an SVG path; half a pixel is added because the centre of a pixel is there in SVG."""
    return "".join("M" + "L".join(f"{x + 0.5:.1f} {y + 0.5:.1f}" for y, x in line) + "Z" for line in lines)


def saliency_layer(saliency: np.ndarray) -> np.ndarray:
    """Return saliency (y, x) as one colour whose opacity it is, uint8 (y, x, 4)."""
    rgba = np.empty((*saliency.shape, 4), np.uint8)
    rgba[..., :3] = _SALIENCY_RGB
    # In 16 steps: finer ones are invisible, and the file is a third as large.
    rgba[..., 3] = saliency // 16 * 14
    rgba[rgba[..., 3] == 0] = 0
    return rgba


def _data_uri(data: bytes | bytearray, kind: str) -> str:
    return f"data:image/{kind};base64,{_base64(data)}"


def _base64(data: bytes | bytearray) -> str:
    return base64.b64encode(data).decode()
