"""The flat field of each channel of a plate: the instrument's, or estimated from a sample of fields."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from distributed import Client, as_completed

from wscnn.acquisitions.base import Acquisition
from wscnn.core.errors import UserError
from wscnn.core.progress import progress
from wscnn.staging.illumination import estimate, tiles
from wscnn.staging.mosaic import block_means
from wscnn.staging.reading import FIELD, MAX_PROBLEMS, Plan, Reading, images_of, read_field

# Fields from which the flat field is estimated stay in memory up to this size, so that they need not be read again.
_KEEP_BYTES = 2**28


def with_gains(
    client: Client, reader: Acquisition, plan: Plan, table: pd.DataFrame, illumination: Mapping[str, Any]
) -> tuple[Plan, dict[tuple[str, int], Reading]]:
    """Return the plan with the flat field of each channel, and the fields that were read to estimate it."""
    if illumination["method"] == "instrument":
        return replace(plan, gains=_instrument_gains(reader, plan)), {}
    if illumination["method"] == "retrospective":
        gains, kept = _estimate_gains(client, plan, table, illumination["max_fields"])
        return replace(plan, gains=gains), kept
    return plan, {}


def _instrument_gains(reader: Acquisition, plan: Plan) -> dict[str, tuple[np.ndarray, float]]:
    gains = {}
    for channel in plan.channels:
        profile = reader.flatfield(channel)
        if profile is None:
            raise UserError(
                f"{reader.folder}: the instrument gives no flat field of channel {channel}; "
                "set illumination.method to retrospective or none"
            )
        if profile.shape != plan.shape:
            raise UserError(f"{reader.folder}: the flat field of channel {channel} has another size than the images")
        gain = block_means(profile, plan.downsample)
        gains[channel] = ((gain / gain.mean()).astype(np.float32), 0.0)
    return gains


def _estimate_gains(
    client: Client, plan: Plan, table: pd.DataFrame, max_fields: int
) -> tuple[dict[str, tuple[np.ndarray, float]], dict[tuple[str, int], Reading]]:
    """Return gain and offset of each channel from a sample of fields, and these fields if they fit into memory."""
    rows = {(str(part["well"].iloc[0]), int(part["field"].iloc[0])): part for _, part in table.groupby(FIELD)}
    chosen = np.random.default_rng(0).permutation(len(rows))[:max_fields]
    sample = [list(rows)[i] for i in sorted(chosen)]
    size = 4 * len(plan.channels) * plan.mosaic.cell[0] * plan.mosaic.cell[1]
    keep = len(sample) * size <= _KEEP_BYTES
    [shared] = client.scatter([plan], broadcast=True, hash=False)
    futures = client.map(_sample, [rows[key] for key in sample], plan=shared, keep=keep, pure=False)
    problems: list[str] = []
    grids, kept = {}, {}
    for future, (result, wrong) in progress(
        as_completed(futures, with_results=True), len(futures), "fields sampled for the flat field"
    ):
        future.release()
        if wrong:
            problems += wrong
        else:
            key, grid, reading = result
            grids[key] = grid
            if reading is not None:
                kept[key] = reading
    if not grids:
        raise UserError(sorted(problems)[:MAX_PROBLEMS])
    stack = np.stack([grids[key] for key in sample if key in grids])
    height, width = plan.shape[0] // plan.downsample, plan.shape[1] // plan.downsample
    gains = {name: estimate(stack[:, i], (height, width)) for i, name in enumerate(plan.channels)}
    return gains, kept


def _sample(rows: pd.DataFrame, plan: Plan, keep: bool) -> tuple[Any, list[str]]:
    try:
        [(number, images)] = images_of(rows).items()
        reading = read_field(images, plan)
    except UserError as error:
        return None, error.problems
    key = (str(rows["well"].iloc[0]), number)
    grid = np.stack([tiles(channel / plan.downsample**2) for channel in reading.sums])
    return (key, grid, reading if keep else None), []
