"""Raw images of one field, read once, projected and averaged to the resolution of the mosaic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from wscnn.acquisitions.base import Acquisition
from wscnn.acquisitions.originals import verified
from wscnn.core.errors import UserError
from wscnn.staging.mosaic import Mosaic, block_sums

#: Most broken files that one run reports: an incomplete copy of a plate has thousands.
MAX_PROBLEMS = 20
#: Columns that identify a field.
FIELD = ["well", "field"]


@dataclass(frozen=True)
class Reading:
    """A field as it was read, before correction.

    Attributes
    ----------
    sums
        Shape (channel, y, x), uint32: sums over blocks of raw pixels.
    highest
        The highest raw value of each channel.
    at_highest
        The fraction of the raw pixels that have it.
    digests
        Of the content of each of its files.
    """

    sums: np.ndarray
    highest: np.ndarray
    at_highest: np.ndarray
    digests: dict[str, str]


class Source(NamedTuple):
    """An image of the index: a page of a file, and what identifies the file that was indexed."""

    path: str
    page: int
    size: int
    mtime_ns: int
    before: str


@dataclass(frozen=True)
class Plan:
    """What every well of a plate shares."""

    acquisition: Acquisition
    channels: list[str]
    shape: tuple[int, int]
    dtype: np.dtype
    mosaic: Mosaic
    downsample: int
    nuclei: str | None
    gains: dict[str, tuple[np.ndarray, float]] = field(default_factory=dict)


def images_of(rows: pd.DataFrame) -> dict[int, dict[str, list[Source]]]:
    """Return the planes of the index by field and channel."""
    images: dict[int, dict[str, list[Source]]] = {}
    sources = zip(*(rows[name].tolist() for name in Source._fields), strict=True)
    for number, channel, source in zip(
        rows["field"].tolist(), rows["channel"], map(Source._make, sources), strict=True
    ):
        images.setdefault(number, {}).setdefault(channel, []).append(source)
    return images


def read_field(images: Mapping[str, Sequence[Source]], plan: Plan) -> Reading:
    """Read all images of one field, planes projected one by one."""
    sums, highest, at_highest = [], [], []
    digests: dict[str, str] = {}
    problems: list[str] = []
    for channel in plan.channels:
        projected: np.ndarray | None = None
        for source in images[channel]:
            try:
                # Before it is read: a file replaced in between has another digest at the next check.
                if source.path not in digests:
                    digests[source.path] = verified(source.path, source.size, source.mtime_ns, source.before)
                image = _checked(plan, Path(source.path), source.page)
            except UserError as error:
                problems += error.problems
                continue
            projected = image if projected is None else np.maximum(projected, image, out=projected)
        if problems or projected is None:
            continue
        sums.append(block_sums(projected, plan.downsample))
        # A sample of rows is enough to measure how much the camera saturated.
        some = projected[:: plan.downsample]
        top = some.max()
        highest.append(float(top))
        at_highest.append(np.count_nonzero(some == top) / some.size)
    if problems:
        raise UserError(problems)
    return Reading(np.stack(sums), np.array(highest), np.array(at_highest), digests)


def _checked(plan: Plan, path: Path, page: int) -> np.ndarray:
    image = plan.acquisition.read(path, page)
    if image.shape != plan.shape or image.dtype != plan.dtype:
        raise UserError(
            f"{path}: {image.shape[0]} x {image.shape[1]} pixels of {image.dtype} where others of the plate have "
            f"{plan.shape[0]} x {plan.shape[1]} of {plan.dtype}; stage it as a plate of its own or export it again"
        )
    return image
