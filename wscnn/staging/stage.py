"""Stage `stage`: a plate's raw images, read once, become an OME-Zarr plate with one mosaic per well.

Wells are tasks of a Dask cluster; a worker holds the pixels of one well. Flat-field correction is estimated beforehand
from a bounded, seeded sample of fields, the same on any number of workers.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from distributed import Client, as_completed

from wscnn.acquisitions import open_acquisition
from wscnn.acquisitions.base import Acquisition
from wscnn.acquisitions.index import choose, duplicates, excluded_wells, plane_problems, read_index
from wscnn.acquisitions.originals import read_digests, relative, write_record
from wscnn.core.atomic import atomic_path
from wscnn.core.cluster import connect
from wscnn.core.config import effective
from wscnn.core.errors import UserError
from wscnn.core.progress import log, progress
from wscnn.core.provenance import made_from
from wscnn.core.tables import types_in, write_table
from wscnn.core.wells import parse_well
from wscnn.plates.channel_colors import channel_colors
from wscnn.plates.store import Channel, PlateWriter
from wscnn.staging import field_qc as quality_control
from wscnn.staging.flat_field import with_gains
from wscnn.staging.illumination import correct
from wscnn.staging.mosaic import arrange, crop_centre
from wscnn.staging.nuclei import count_nuclei
from wscnn.staging.reading import FIELD, MAX_PROBLEMS, Plan, Reading, images_of, read_field

# Pixels per field and channel that are sampled for the plate's range of intensities.
_WINDOW_PIXELS = 1024

_WINDOW = (1.0, 99.5)


@dataclass(frozen=True)
class Staged:
    """Result of staging one well.

    Attributes
    ----------
    numbers
        Those of each field.
    pixels
        A sample of the fields' pixels, shape (field, channel, pixel).
    problems
        Its bad files.
    unwritten
        Why it could not be written.
    digests
        Of what was written, for `wscnn.plates.store.PlateWriter.seal`.
    originals
        Digests of the content of its files.
    """

    numbers: list[dict[str, Any]]
    pixels: np.ndarray
    problems: list[str]
    unwritten: OSError | None = None
    digests: list[str] = field(default_factory=list)
    originals: dict[str, str] = field(default_factory=dict)


def stage_plate(
    plate: str,
    index: Path,
    images: Path,
    store: Path,
    manifest: Path,
    qc: Path,
    *,
    acquisition: dict[str, Any],
    mosaic: dict[str, Any],
    illumination: dict[str, Any],
    quality: dict[str, Any],
    dask: dict[str, Any],
    layout: Path | None = None,
) -> None:
    """Stage one plate; `store`, `qc` and `manifest` appear in this order, each atomically.

    Beside the manifest, ``<plate>.raw.parquet`` records the raw images that were read, with their digests.

    Parameters
    ----------
    plate
        Its name.
    index
        Its table of images (`wscnn.acquisitions.index`).
    images
        Its folder, which the paths in the index are relative to.
    store
        The OME-Zarr plate to write.
    manifest
        JSON, written last: ``plate, wells, channels, fields, images``, ``bytes`` (of their pixels) and ``digest``, that
        of settings and pixels, which the store's attributes and the notes of `qc` hold, too.
    qc
        The table of fields to write: ``plate, well, field, used, flags, n_cells`` and
        `wscnn.staging.field_qc.NUMBERS` for each channel as ``<number>_<channel>``.
    acquisition, mosaic, illumination, quality, dask
        Sections of the config, complete with defaults.
    layout
        The screen's layout: wells with role ``exclude`` are neither read nor staged.

    Raises
    ------
    UserError
        Naming the files that are missing, damaged, changed since they were indexed or unlike the others (up to 20), or
        images that fit no field.
    """
    manifest.unlink(missing_ok=True)  # an earlier one must not vouch for a store that is being replaced
    channels = list(acquisition["channels"].values())
    table = _with_digests(read_index(index, images), images, manifest)
    reader = open_acquisition(images, acquisition)
    table = table[~table["well"].isin(excluded_wells(layout, plate))]
    table = _chosen(table, channels, acquisition, reader.projection, index)
    _check_field_count(table, plate, quality["min_fields"])
    settings = {"acquisition": acquisition, "mosaic": mosaic, "illumination": illumination, "qc": quality}
    # Workers are stopped before unfinished output is removed.
    with atomic_path(store) as partial, connect(dask) as client:
        plan = _plan(reader, table, channels, mosaic, acquisition["nuclei"])
        plan, kept = with_gains(client, reader, plan, table, illumination)
        writer = _writer(partial, plate, table, plan)
        staged = _stage_wells(client, plan, table, kept, writer)
        numbers = _numbers(staged, plate, channels)
        flags = quality_control.flag(numbers, channels, quality)
        writer.set_windows(_windows(staged, flags["used"].to_numpy()))
        digest = writer.seal(
            {part.numbers[0]["well"]: part.digests for part in staged},
            settings | {"acquisition": effective("acquisition", acquisition)},
        )
    leading = pd.DataFrame({"plate": plate, "well": numbers["well"], "field": numbers["field"]}).join(flags)
    measured = [f"{name}_{channel}" for channel in channels for name in quality_control.NUMBERS]
    fields = leading.join(numbers[["n_cells", *measured]])
    notes = made_from(settings, [(f"index/{plate}", index)]) | {"digest": digest}
    write_table(fields.astype(types_in("qc", map(str, fields.columns))), qc, notes, kind="qc")
    write_record(table, {path: digest for part in staged for path, digest in part.originals.items()}, images, manifest)
    done = {
        "plate": plate,
        "wells": list(table["well"].unique()),
        "channels": channels,
        "fields": len(numbers),
        "images": len(table),
        "bytes": len(table) * plan.shape[0] * plan.shape[1] * plan.dtype.itemsize,
        "digest": digest,
    }
    with atomic_path(manifest) as partial:
        partial.write_text(json.dumps(done, indent=1, allow_nan=False) + "\n")
    log(f"{plate}: {len(numbers)} fields of {len(staged)} wells staged, {int((~flags['used']).sum())} of them flagged")


def _with_digests(index: pd.DataFrame, images: Path, manifest: Path) -> pd.DataFrame:
    """Return the index with column `before`: the digest of each file when it was staged before, else empty."""
    before = read_digests(manifest)
    keys = zip(relative(index["path"], images), index["size"], index["mtime_ns"], strict=True)
    return index.assign(before=[before.get(key, "") for key in keys])


def _check_field_count(table: pd.DataFrame, plate: str, least: int) -> None:
    """Raise a UserError where no well has as many fields as ``qc.min_fields`` requires."""
    most = table.groupby("well")["field"].nunique().max()
    if most < least:
        raise UserError(
            f"qc.min_fields: {least} good fields are required of each well, but no well of plate {plate} has more than "
            f"{most}; require fewer"
        )


def _writer(store: Path, plate: str, table: pd.DataFrame, plan: Plan) -> PlateWriter:
    """Return the writer of the plate's store, whose display windows are set once the pixels are known."""
    pixel_size = _pixel_size(table)
    colors = channel_colors(plan.channels)
    return PlateWriter(
        store,
        plate,
        list(table["well"].unique()),
        [Channel(name, color, (0.0, 1.0)) for name, color in zip(plan.channels, colors, strict=True)],
        None if pixel_size is None else pixel_size * plan.downsample,
    )


def _numbers(staged: Sequence[Staged], plate: str, channels: Sequence[str]) -> pd.DataFrame:
    """Return what was measured of each field; pixels count as saturated only where the camera's limit was reached."""
    numbers = pd.DataFrame([record for part in staged for record in part.numbers])
    for channel in channels:
        highest = numbers[f"highest_{channel}"]
        at_limit = quality_control.at_limit(highest, numbers[f"low_{channel}"])
        numbers[f"saturated_{channel}"] = numbers[f"saturated_{channel}"].where(at_limit, 0.0)
        if highest.max() == 0:
            log(f"{plate}: channel {channel} is black in every field; check whether it was acquired")
    return numbers


def _windows(staged: Sequence[Staged], used: np.ndarray) -> list[tuple[float, float]]:
    """Return the display window of each channel, from the fields that are used, or from all where none is."""
    pixels = np.concatenate([part.pixels for part in staged])
    low, high = np.percentile(pixels[used] if used.any() else pixels, _WINDOW, axis=(0, 2))
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def _chosen(
    index: pd.DataFrame,
    channels: Sequence[str],
    acquisition: Mapping[str, Any],
    projection: int | None,
    source: Path,
) -> pd.DataFrame:
    """Return the rows of the index that are staged: the requested channels, time point and planes."""
    table = index[index["channel"].isin(channels)]
    if table.empty:
        raise UserError(f"{source}: has no image of the channels in acquisition.channels ({', '.join(channels)})")
    try:
        table = choose(table, acquisition["z"], acquisition["time"], projection)
    except ValueError as error:
        raise UserError(f"{source}: {error}") from None
    problems = duplicates(table)
    problems += [f"{source}: {problem}, and index again" for problem in plane_problems(table, channels)]
    if problems:
        raise UserError(problems[:MAX_PROBLEMS])
    positions = table["well"].map({well: parse_well(well) for well in table["well"].unique()})
    order = pd.DataFrame({"position": positions, "field": table["field"], "z": table["z"]}).sort_values(
        ["position", "field", "z"], kind="stable"
    )
    return table.loc[order.index].reset_index(drop=True)


def _plan(
    reader: Acquisition,
    table: pd.DataFrame,
    channels: list[str],
    mosaic: Mapping[str, Any],
    nuclei: str | None,
) -> Plan:
    """Return what the wells share; the first readable image stands for the shape and type of all."""
    problems = []
    for path, page in zip(table["path"], table["page"], strict=True):
        try:
            first = reader.read(Path(path), int(page))
            break
        except UserError as error:
            problems += error.problems
            if len(problems) >= MAX_PROBLEMS:
                break
    else:
        raise UserError(problems)
    if len(problems) >= MAX_PROBLEMS:
        raise UserError(problems)
    centres = table.drop_duplicates(FIELD)
    where = arrange(centres, first.shape, _pixel_size(table), mosaic["downsample"], mosaic["arrange"])
    return Plan(reader, channels, first.shape, first.dtype, where, mosaic["downsample"], nuclei)


def _pixel_size(table: pd.DataFrame) -> float | None:
    """Return the size of a raw pixel in micrometres, None where no image states it."""
    sizes = table["pixel_size_um"].dropna()
    if sizes.empty:
        return None
    if sizes.max() > 1.001 * sizes.min():
        odd = table["path"].iloc[int(np.nanargmax(table["pixel_size_um"]))]
        raise UserError(f"{odd}: its pixels are {sizes.max():g} um, others' {sizes.min():g}; stage them as two plates")
    return float(sizes.iloc[0])


def _stage_wells(
    client: Client,
    plan: Plan,
    table: pd.DataFrame,
    kept: Mapping[tuple[str, int], Reading],
    writer: PlateWriter,
) -> list[Staged]:
    """Return the result of each well, in order; raise when any file was bad."""
    [shared] = client.scatter([plan], broadcast=True, hash=False)
    wells = list(table["well"].unique())
    parts = dict(iter(table.groupby("well")))
    futures = {
        client.submit(
            stage_well,
            parts[well],
            {key: reading for key, reading in kept.items() if key[0] == well},
            shared,
            writer,
            pure=False,
        ): well
        for well in wells
    }
    staged: dict[str, Staged] = {}
    problems: list[str] = []
    for future, result in progress(as_completed(list(futures), with_results=True), len(wells), "wells staged"):
        staged[futures[future]] = result
        future.release()
        problems += result.problems
        if result.unwritten or len(problems) >= MAX_PROBLEMS:
            client.cancel(list(futures))
            if result.unwritten:
                raise result.unwritten
            break
    if problems:
        raise UserError(sorted(problems)[:MAX_PROBLEMS])
    return [staged[well] for well in wells]


def stage_well(rows: pd.DataFrame, kept: Mapping[tuple[str, int], Reading], plan: Plan, writer: PlateWriter) -> Staged:
    """Read, correct, measure and write one well.

    Parameters
    ----------
    rows
        Its images in the index.
    kept
        Those of its fields that were read already.
    plan
        What the plate's wells share.
    writer
        The plate's.
    """
    well = str(rows["well"].iloc[0])
    slots = plan.mosaic.fields[plan.mosaic.fields["field"].isin(rows["field"])]
    images = images_of(rows)
    image = np.zeros((len(plan.channels), *plan.mosaic.shape), plan.dtype)
    records: list[dict[str, Any]] = []
    pixels: list[np.ndarray] = []
    originals: dict[str, str] = {}
    problems: list[str] = []
    height, width = plan.mosaic.cell
    for number, y, x in zip(slots["field"].tolist(), slots["y"].tolist(), slots["x"].tolist(), strict=True):
        try:
            reading = kept.get((well, number)) or read_field(images[number], plan)
        except UserError as error:
            problems += error.problems
            continue
        record: dict[str, Any] = {"well": well, "field": number, "n_cells": np.nan}
        field_pixels = []
        for i, channel in enumerate(plan.channels):
            flat = _finish(reading.sums[i], plan, channel)
            kept_part = crop_centre(flat, plan.mosaic.cell)
            image[i, y : y + height, x : x + width] = kept_part
            record |= {f"{name}_{channel}": value for name, value in quality_control.measure(flat).items()}
            record |= {f"saturated_{channel}": reading.at_highest[i], f"highest_{channel}": reading.highest[i]}
            field_pixels.append(flat.ravel()[:: max(1, flat.size // _WINDOW_PIXELS)][:_WINDOW_PIXELS])
            if channel == plan.nuclei:
                # Counted as objects are: only where the mosaic shows them.
                record["n_cells"] = float(count_nuclei(kept_part))
        records.append(record)
        originals |= reading.digests
        pixels.append(np.stack(field_pixels))
    if problems:
        return Staged([], np.empty(0), problems)
    try:
        digests = writer.write_well(well, image, slots, plan.mosaic.cell)
    except OSError as error:
        return Staged([], np.empty(0), [], error)
    return Staged(records, np.stack(pixels), [], digests=digests, originals=originals)


def _finish(sums: np.ndarray, plan: Plan, channel: str) -> np.ndarray:
    """Return a field's pixels, corrected, in the raw images' type.

    The gain is divided out of block means: over a block it is constant to within a thousandth, so that this equals the
    correction of raw pixels at a fraction of the work.
    """
    block = plan.downsample**2
    if channel not in plan.gains:
        return ((sums + block // 2) // block).astype(plan.dtype)
    even = correct(sums / np.float32(block), *plan.gains[channel])
    return np.clip(np.rint(even), 0, np.iinfo(plan.dtype).max).astype(plan.dtype)
