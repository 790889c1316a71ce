"""The scale of a screen: how many raw pixels make a pixel of the mosaics, measured from the size of its cells."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wscnn.core.atomic import atomic_path
from wscnn.core.errors import UserError
from wscnn.core.progress import progress
from wscnn.core.wells import parse_well

#: Minimum diameter of the typical cell in mosaic pixels.
MIN_DIAMETER = 18.0
#: The factor where no cells can be measured.
FALLBACK = 2
#: The largest factor, as in the schema.
MAX_FACTOR = 32

# What is read: plates, wells per plate, one field per well.
_PLATES = 8
_WELLS = 4
# Minimum number of cells to measure a size: of a plate, and of the screen.
_PLATE_CELLS = 5
_SCREEN_CELLS = 10
# A plate disagrees when its cells differ from the screen's by more than this fraction.
_DISAGREE = 1 / 3


@dataclass(frozen=True)
class Scale:
    """What ``scale.json`` holds.

    Attributes
    ----------
    downsample
        Raw pixels per mosaic pixel along an axis.
    reason
        Why, in a sentence.
    diameter_px
        Diameter of the typical cell in raw pixels; None where no cells were measured.
    plates
        The same for each plate that was measured.
    """

    downsample: int
    reason: str
    diameter_px: float | None = None
    plates: dict[str, float | None] = field(default_factory=dict)

    def disagreeing(self) -> list[str]:
        """Return the plates whose cells differ in size from the screen's by more than a third."""
        if self.diameter_px is None:
            return []
        return [
            plate
            for plate, diameter in self.plates.items()
            if diameter is not None and abs(diameter / self.diameter_px - 1) > _DISAGREE
        ]


def read_scale(path: Path) -> Scale:
    """Return the scale at `path`.

    Raises
    ------
    UserError
        When the file is missing or does not hold a scale.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        scale = Scale(**content)
        numbers = [scale.diameter_px, *scale.plates.values()]
        whole = type(scale.downsample) is int and 1 <= scale.downsample <= MAX_FACTOR
        if not whole or not all(n is None or (isinstance(n, int | float) and n > 0) for n in numbers):
            raise ValueError("numbers out of range")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); run `wscnn scale` first") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: not the scale of a screen ({error}); delete it, it is made again") from None
    return scale


def write_scale(scale: Scale, path: Path) -> None:
    """Write a scale as JSON, atomically; the same scale gives the same bytes."""
    with atomic_path(path) as partial:
        partial.write_text(json.dumps(asdict(scale), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def resolved(mosaic: Mapping[str, Any], scale: Path | None) -> dict[str, Any]:
    """Return the config's section ``mosaic`` with the number that ``downsample: auto`` stands for.

    Raises
    ------
    UserError
        When it is ``auto`` and there is no scale.
    """
    if mosaic["downsample"] != "auto":
        return dict(mosaic)
    if scale is None:
        raise UserError("mosaic.downsample: auto needs --scale, the file that `wscnn scale` writes; or give a number")
    return {**mosaic, "downsample": read_scale(scale).downsample}


@dataclass(frozen=True)
class Sample:
    """What a few fields of several plates show.

    Attributes
    ----------
    diameters
        Of the cells of each measured plate, raw pixels; cells cut by the border are left out.
    shape
        Height and width of a field, raw pixels; None where no field could be read.
    pixel_sizes
        Of raw pixels, micrometres, where images state them.
    """

    diameters: dict[str, np.ndarray]
    shape: tuple[int, int] | None
    pixel_sizes: list[float]

    @property
    def plates(self) -> dict[str, float | None]:
        """Diameter of the typical cell of each plate, None for a plate of hardly any cells."""
        return {
            plate: round(float(np.median(found)), 2) if len(found) >= _PLATE_CELLS else None
            for plate, found in self.diameters.items()
        }

    @property
    def diameter(self) -> float | None:
        """Diameter of the typical cell of the screen: the median over the plates; None where there are hardly any."""
        known = [diameter for diameter in self.plates.values() if diameter is not None]
        if not known or sum(map(len, self.diameters.values())) < _SCREEN_CELLS:
            return None
        return round(float(np.median(known)), 2)


def sample(plates: pd.DataFrame, layout: pd.DataFrame, acquisition: Mapping[str, Any]) -> Sample:
    """Measure the cells of one field of up to 4 wells of up to 8 plates, evenly spaced and always the same.

    Half of the wells are negative controls where there are any. What cannot be read is left out: `stage` reports it.

    Parameters
    ----------
    plates
        One row per plate: ``plate, images``.
    layout
        One row per plate and well: ``plate, well, role``.
    acquisition
        The config's section, complete.
    """
    # Takes half a second to import, which those who need no more than the factor do not wait for.
    from wscnn.acquisitions import open_acquisition

    diameters: dict[str, np.ndarray] = {}
    shape: tuple[int, int] | None = None
    sizes: list[float] = []
    chosen = plates.iloc[_evenly(len(plates), _PLATES)]
    rows = list(zip(chosen["plate"].astype(str), chosen["images"].astype(str), strict=True))
    for plate, images in progress(rows, len(rows), "plates measured"):
        found: list[np.ndarray] = []
        wells = layout.loc[layout["plate"] == plate]
        for path, page, size in _fields(plate, Path(images), wells, acquisition):
            try:
                image = open_acquisition(Path(images), acquisition).read(path, page)
            except UserError:
                continue
            shape = shape or (image.shape[0], image.shape[1])
            sizes += [size] if size is not None else []
            found.append(_diameters(image))
        diameters[plate] = np.concatenate(found) if found else np.zeros(0)
    return Sample(diameters, shape, sizes)


def factor_for(seen: Sample, needed: int) -> tuple[int, str]:
    """Return the factor for the cells of a sample, and why.

    It is the largest at which the typical cell is still `MIN_DIAMETER` wide and fields are as large as the network
    needs; never less than 1.

    Parameters
    ----------
    seen
        The sample.
    needed
        Height and width that a field has at least, mosaic pixels.
    """
    diameter = seen.diameter
    if diameter is None:
        factor = FALLBACK
        n = sum(map(len, seen.diameters.values()))
        reason = f"{n} cells were found on the fields of {len(seen.diameters)} plates, too few to measure"
    else:
        factor = min(MAX_FACTOR, max(1, int(diameter // MIN_DIAMETER)))
        reason = f"the typical cell is {diameter:g} raw pixels wide, {diameter / factor:.3g} mosaic pixels"
    most = max(1, min(seen.shape) // needed) if seen.shape else factor
    if factor > most:
        factor = most
        reason += f"; more than {most} would make fields smaller than the {needed} px that the network needs"
    return factor, reason


def _evenly(n: int, most: int) -> list[int]:
    """Return up to `most` of the positions 0 to `n` - 1, spread evenly."""
    return sorted({int(i) for i in np.linspace(0, n - 1, min(n, most)).round()}) if n else []


def _fields(
    plate: str, images: Path, layout: pd.DataFrame, acquisition: Mapping[str, Any]
) -> Sequence[tuple[Path, int, float | None]]:
    """Return path, page and pixel size of the fields of a plate that are measured."""
    from wscnn.acquisitions import open_acquisition
    from wscnn.acquisitions.index import choose

    try:
        reader = open_acquisition(images, acquisition)
        excluded = set(layout.loc[layout["role"] == "exclude", "well"])
        files = reader.files(plate, excluded)
        files = choose(files, acquisition["z"], acquisition["time"], reader.projection)
    except (UserError, ValueError):
        return []
    channel = acquisition["nuclei"] or next(iter(acquisition["channels"].values()))
    files = files[(files["channel"] == channel) & ~files["well"].isin(excluded)]
    wells = sorted(set(files["well"]), key=parse_well)
    negative = set(layout.loc[layout["role"] == "negative", "well"])
    controls, others = [w for w in wells if w in negative], [w for w in wells if w not in negative]
    n = max(min(len(controls), _WELLS // 2), _WELLS - len(others))
    picked = [controls[i] for i in _evenly(len(controls), n)]
    picked += [others[i] for i in _evenly(len(others), _WELLS - len(picked))]
    found = []
    for well in picked:
        rows = files[files["well"] == well].sort_values(["field", "z"], kind="stable")
        numbers = rows["field"].unique()
        rows = rows[rows["field"] == numbers[len(numbers) // 2]]
        row = rows.iloc[len(rows) // 2]
        told = row.get("pixel_size_um")
        size = acquisition["pixel_size_um"] if told is None or pd.isna(told) else float(told)
        found.append((Path(row["path"]), int(row["page"]), size))
    return found


def _diameters(image: np.ndarray) -> np.ndarray:
    """Return the diameters of the discs that are as large as the cells of a field, raw pixels."""
    from wscnn.staging.nuclei import label_cells

    labels = label_cells(image)
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        areas[edge] = 0
    return 2 * np.sqrt(areas[areas > 0] / np.pi)
