"""Stage `stage`: a plate's raw images, read once, become an OME-Zarr plate with one mosaic a well.

Wells are tasks of a Dask cluster; a worker holds the pixels of one well. Flat-field correction is estimated before
from a bounded, seeded sample of fields, the same on any number of workers.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from distributed import Client, as_completed

from wscnn.acquisitions import open_acquisition
from wscnn.acquisitions.base import Acquisition
from wscnn.acquisitions.index import choose, duplicates, excluded_wells, plane_problems, read_index
from wscnn.acquisitions.originals import read_digests, relative, verified, write_record
from wscnn.core.atomic import atomic_path
from wscnn.core.cluster import connect
from wscnn.core.config import effective
from wscnn.core.errors import UserError
from wscnn.core.progress import log, progress
from wscnn.core.provenance import made_from
from wscnn.core.tables import types_in, write_table
from wscnn.core.wells import parse_well
from wscnn.plates.store import Channel, PlateWriter
from wscnn.staging import field_qc as quality_control
from wscnn.staging.illumination import correct, estimate, tiles
from wscnn.staging.mosaic import Mosaic, arrange, block_means, block_sums, crop_centre
from wscnn.staging.nuclei import count_nuclei

# Files at fault that one run names, at most: a plate copied by half has thousands.
_MAX_PROBLEMS = 20
# Fields from which the flat field is estimated stay in memory up to this size, so that they need not be read again.
_KEEP_BYTES = 2**28
# Pixels a field and channel that go into the plate's range of intensities.
_WINDOW_PIXELS = 1024
_WINDOW = (1.0, 99.5)
# A channel alone is grey; of several the first, mostly DNA, is blue, the others are what viewers mix well.
_GREY = "FFFFFF"
_COLORS = ("0000FF", "00FF00", "FF0000", "FFFF00", "FF00FF", "00FFFF", "FFFFFF")


_FIELD = ["well", "field"]


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
        The part of the raw pixels that have it.
    digests
        Of the content of each of its files.
    """

    sums: np.ndarray
    highest: np.ndarray
    at_highest: np.ndarray
    digests: dict[str, str]


class Source(NamedTuple):
    """An image of the index: a page of a file, and what tells whether the file is the one that was indexed."""

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


@dataclass(frozen=True)
class Staged:
    """What became of a well.

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
    """Stage one plate; `store`, `qc` and `manifest` appear in this order, each whole, or not at all.

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
    table = read_index(index, images)
    before = read_digests(manifest)
    keys = zip(relative(table["path"], images), table["size"], table["mtime_ns"], strict=True)
    table["before"] = [before.get(key, "") for key in keys]
    reader = open_acquisition(images, acquisition)
    table = table[~table["well"].isin(excluded_wells(layout, plate))]
    table = _chosen(table, channels, acquisition, reader.projection, index)
    most = table.groupby("well")["field"].nunique().max()
    if most < quality["min_fields"]:
        raise UserError(
            f"qc.min_fields: {quality['min_fields']} good fields are asked of each well, but no well of plate {plate} "
            f"has more than {most}; ask for fewer"
        )
    # Workers end before what they failed to finish is removed.
    with atomic_path(store) as partial, connect(dask) as client:
        plan = _plan(reader, table, channels, mosaic, acquisition["nuclei"])
        kept: dict[tuple[str, int], Reading] = {}
        if illumination["method"] == "instrument":
            plan = replace(plan, gains=_instrument_gains(reader, plan))
        elif illumination["method"] == "retrospective":
            gains, kept = _estimate_gains(client, plan, table, illumination["max_fields"])
            plan = replace(plan, gains=gains)
        pixel_size = _pixel_size(table)
        writer = PlateWriter(
            partial,
            plate,
            list(table["well"].unique()),
            [Channel(name, color, (0.0, 1.0)) for name, color in zip(channels, _colors(len(channels)), strict=True)],
            None if pixel_size is None else pixel_size * plan.downsample,
        )
        staged = _stage_wells(client, plan, table, kept, writer)
        numbers = pd.DataFrame([record for part in staged for record in part.numbers])
        for channel in channels:
            highest = numbers[f"highest_{channel}"]
            at_limit = quality_control.at_limit(highest, numbers[f"low_{channel}"])
            numbers[f"saturated_{channel}"] = numbers[f"saturated_{channel}"].where(at_limit, 0.0)
            if highest.max() == 0:
                log(f"{plate}: channel {channel} is black in every field; look whether it was acquired")
        flags = quality_control.flag(numbers, channels, quality)
        pixels = np.concatenate([part.pixels for part in staged])
        used = flags["used"].to_numpy()
        low, high = np.percentile(pixels[used] if used.any() else pixels, _WINDOW, axis=(0, 2))
        writer.set_windows([(float(a), float(b)) for a, b in zip(low, high, strict=True)])
        digest = writer.seal(
            {part.numbers[0]["well"]: part.digests for part in staged},
            {
                "acquisition": effective("acquisition", acquisition),
                "mosaic": mosaic,
                "illumination": illumination,
                "qc": quality,
            },
        )
    leading = pd.DataFrame({"plate": plate, "well": numbers["well"], "field": numbers["field"]}).join(flags)
    measured = [f"{name}_{channel}" for channel in channels for name in quality_control.NUMBERS]
    fields = leading.join(numbers[["n_cells", *measured]])
    settings = {"acquisition": acquisition, "mosaic": mosaic, "illumination": illumination, "qc": quality}
    notes = made_from(settings, [(f"index/{plate}", index)])
    notes |= {"digest": digest}
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


def _colors(n: int) -> list[str]:
    """Return the colours, RRGGBB, in which viewers show `n` channels."""
    return [_GREY] if n == 1 else [_COLORS[i % len(_COLORS)] for i in range(n)]


def _chosen(
    index: pd.DataFrame,
    channels: Sequence[str],
    acquisition: Mapping[str, Any],
    projection: int | None,
    source: Path,
) -> pd.DataFrame:
    """Return the rows of the index that are staged: the channels, the time point and the planes that were asked for."""
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
        raise UserError(problems[:_MAX_PROBLEMS])
    places = table["well"].map({well: parse_well(well) for well in table["well"].unique()})
    order = pd.DataFrame({"place": places, "field": table["field"], "z": table["z"]}).sort_values(
        ["place", "field", "z"], kind="stable"
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
            if len(problems) >= _MAX_PROBLEMS:
                break
    else:
        raise UserError(problems)
    if len(problems) >= _MAX_PROBLEMS:
        raise UserError(problems)
    centres = table.drop_duplicates(_FIELD)
    where = arrange(centres, first.shape, _pixel_size(table), mosaic["downsample"], mosaic["arrange"])
    return Plan(reader, channels, first.shape, first.dtype, where, mosaic["downsample"], nuclei)


def _pixel_size(table: pd.DataFrame) -> float | None:
    """Return the size of a raw pixel in micrometres, None where no image tells it."""
    sizes = table["pixel_size_um"].dropna()
    if sizes.empty:
        return None
    if sizes.max() > 1.001 * sizes.min():
        odd = table["path"].iloc[int(np.nanargmax(table["pixel_size_um"]))]
        raise UserError(f"{odd}: its pixels are {sizes.max():g} um, others' {sizes.min():g}; stage them as two plates")
    return float(sizes.iloc[0])


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
    rows = {(str(part["well"].iloc[0]), int(part["field"].iloc[0])): part for _, part in table.groupby(_FIELD)}
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
        raise UserError(sorted(problems)[:_MAX_PROBLEMS])
    stack = np.stack([grids[key] for key in sample if key in grids])
    height, width = plan.shape[0] // plan.downsample, plan.shape[1] // plan.downsample
    gains = {name: estimate(stack[:, i], (height, width)) for i, name in enumerate(plan.channels)}
    return gains, kept


def _sample(rows: pd.DataFrame, plan: Plan, keep: bool) -> tuple[Any, list[str]]:
    try:
        [(number, images)] = _images(rows).items()
        reading = _read(images, plan)
    except UserError as error:
        return None, error.problems
    key = (str(rows["well"].iloc[0]), number)
    grid = np.stack([tiles(channel / plan.downsample**2) for channel in reading.sums])
    return (key, grid, reading if keep else None), []


def _stage_wells(
    client: Client,
    plan: Plan,
    table: pd.DataFrame,
    kept: Mapping[tuple[str, int], Reading],
    writer: PlateWriter,
) -> list[Staged]:
    """Return what became of each well, in order; raise when any file was bad."""
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
        if result.unwritten or len(problems) >= _MAX_PROBLEMS:
            client.cancel(list(futures))
            if result.unwritten:
                raise result.unwritten
            break
    if problems:
        raise UserError(sorted(problems)[:_MAX_PROBLEMS])
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
    images = _images(rows)
    image = np.zeros((len(plan.channels), *plan.mosaic.shape), plan.dtype)
    records: list[dict[str, Any]] = []
    pixels: list[np.ndarray] = []
    originals: dict[str, str] = {}
    problems: list[str] = []
    height, width = plan.mosaic.cell
    for number, y, x in zip(slots["field"].tolist(), slots["y"].tolist(), slots["x"].tolist(), strict=True):
        try:
            reading = kept.get((well, number)) or _read(images[number], plan)
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
                # As objects are: only where the mosaic shows them.
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


def _images(rows: pd.DataFrame) -> dict[int, dict[str, list[Source]]]:
    """Return the planes of the index by field and channel."""
    images: dict[int, dict[str, list[Source]]] = {}
    sources = zip(*(rows[name].tolist() for name in Source._fields), strict=True)
    for number, channel, source in zip(
        rows["field"].tolist(), rows["channel"], map(Source._make, sources), strict=True
    ):
        images.setdefault(number, {}).setdefault(channel, []).append(source)
    return images


def _read(images: Mapping[str, Sequence[Source]], plan: Plan) -> Reading:
    """Read all images of one field, planes projected one by one."""
    sums, highest, at_highest = [], [], []
    digests: dict[str, str] = {}
    problems: list[str] = []
    for channel in plan.channels:
        projected: np.ndarray | None = None
        for source in images[channel]:
            try:
                # Before it is read: one that is replaced in between has another digest when it is looked at again.
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
        # Every few rows tell as well as all whether and how much the camera saturated.
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
