"""The networks' view of whole fields: class maps and saliency of the controls' highest fields, for the report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wscnn.core.wells import DISCOVERED, SALIENCY
from wscnn.plates.store import BOX, Plate
from wscnn.reporting.class_maps import ClassMap, class_maps
from wscnn.reporting.pictures import compose, jpeg_uri, outlines, png_uri, saliency_layer, svg_path
from wscnn.reporting.results import Results

#: Longest side of a picture in pixels.
SIDE = 360
# Log-odds below which a position is surely negative: differences below it would only waste colours.
_SURELY_NOT = -10.0
#: Anchors of viridis, evenly spaced: https://bids.github.io/colormap, public domain (CC0).
_VIRIDIS = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]], float)


@dataclass(frozen=True)
class Example:
    """A field: its image, the detector's map and the saliency.

    Attributes
    ----------
    phenotype, role, plate, well, field
        Phenotype that was searched for, and where.
    score
        The field's.
    low, high
        Log-odds shown in the map's darkest and brightest colour, the same for all examples of a phenotype.
    threshold
        Log-odds above which a position belongs to a detected object.
    height, width
        Of the pictures, pixels.
    image, class_map, saliency
        As ``data:`` addresses; the last is empty where nothing was detected.
    masks, above
        Outlines of the masks, and of the positions above the threshold: SVG paths in pixels of the pictures.
    """

    phenotype: str
    role: str
    plate: str
    well: str
    field: int
    score: float
    low: float
    high: float
    threshold: float
    height: int
    width: int
    image: str
    class_map: str
    saliency: str
    masks: str
    above: str


def make_examples(results: Results) -> list[Example]:
    """Return for each phenotype the highest-scoring held-out field of its positive and of the negative controls.

    Empty where the model's weights, the staged plates or the table of fields are missing.
    """
    fields = results.held_out_fields
    # What no positive control shows has no detector to draw a map of.
    fields = fields[~fields["phenotype"].isin(DISCOVERED)]
    staged = [plate for plate in fields["plate"].unique() if _store(results, plate).is_dir()]
    best = fields[fields["plate"].isin(staged)].sort_values(
        ["score", "plate", "well", "field"], ascending=[False, True, True, True]
    )
    best = best.drop_duplicates(["phenotype", "role"]).sort_values(["phenotype", "role"], ascending=[True, False])
    if best.empty or not results.models.folds():
        return []
    rows: list[Any] = list(best.itertuples())
    maps = class_maps(results, rows)
    examples = []
    for row, class_map in zip(rows, maps, strict=True):
        same = [found for found, other in zip(maps, rows, strict=True) if other.phenotype == row.phenotype]
        low = max(_SURELY_NOT, min(found.values.min() for found in same))
        high = max(max(found.values.max(), found.threshold) for found in same)
        examples.append(_example(results, row, class_map, float(low), float(high)))
    return examples


def _store(results: Results, plate: str) -> Path:
    return results.folder.plate(plate)


def _example(results: Results, row: Any, found: ClassMap, low: float, high: float) -> Example:
    plate = Plate(_store(results, row.plate))
    box_of = plate.fields(row.well).set_index("field").loc[row.field]
    y, x, height, width = (int(box_of[name]) for name in BOX)
    class_map = found.pixels(height, width)
    box = (slice(y, y + height), slice(x, x + width))
    step = -(-max(class_map.shape) // SIDE)
    labels = plate.labels(row.well)
    mask = plate.read_label(row.well, row.phenotype)[box] if row.phenotype in labels else np.zeros(class_map.shape)
    saliency = None
    if row.phenotype + SALIENCY in labels and mask.any():
        saliency = plate.read_label(row.well, row.phenotype + SALIENCY)[box][::step, ::step]
    image = plate.read(row.well)[:, *box][:, ::step, ::step]
    windows = [channel.window for channel in plate.channels]
    colors = _viridis(np.clip((class_map - low) / max(high - low, 1e-6), 0, 1)[::step, ::step])
    return Example(
        phenotype=row.phenotype,
        role=row.role,
        plate=row.plate,
        well=row.well,
        field=int(row.field),
        score=float(row.score),
        low=low,
        high=high,
        threshold=found.threshold,
        height=image.shape[1],
        width=image.shape[2],
        image=jpeg_uri(compose(image, plate.channels, windows)),
        class_map=png_uri(colors),
        saliency="" if saliency is None else png_uri(saliency_layer(saliency)),
        masks=svg_path(outlines(mask[::step, ::step])),
        above=svg_path(outlines(class_map[::step, ::step] > found.threshold)),
    )


def _viridis(values: np.ndarray) -> np.ndarray:
    """Return the colours, uint8 (y, x, 3), of values between 0 and 1."""
    # In 64 steps: rounding differences between machines rarely change a colour.
    steps = np.round(values * 63) / 63
    anchors = np.linspace(0, 1, len(_VIRIDIS))
    channels = [np.interp(steps, anchors, _VIRIDIS[:, i]) for i in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)
