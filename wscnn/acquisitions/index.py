"""Stage `index`: where each image of a plate is, from names and metadata; no pixel is read."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wscnn.acquisitions import open_acquisition
from wscnn.acquisitions.originals import describe, relative, stamps
from wscnn.core.errors import UserError, first_problems, listed
from wscnn.core.progress import log
from wscnn.core.provenance import made_from
from wscnn.core.tables import INDEX, ORIGINAL, conform, read_table, write_table
from wscnn.core.wells import parse_well

_IMAGE = ["well", "field", "channel", "z", "time"]


def index_plate(
    plate: str, images: Path, acquisition: Mapping[str, Any], output: Path, layout: Path | None = None
) -> None:
    """Write a plate's index: one row per image, sorted by well, field, channel (as the config lists them), z and time.

    Parameters
    ----------
    plate
        Its name.
    images
        Its folder, or an OME-Zarr plate.
    acquisition
        The config's section, complete with defaults.
    output
        The Parquet file to write, columns `wscnn.core.tables.INDEX` and `wscnn.core.tables.ORIGINAL`; paths are
        relative to `images`.
    layout
        The screen's layout: wells with role ``exclude`` are left out, even if their files are broken; every other well
        of the plate must have images.

    Raises
    ------
    UserError
        When the folder cannot be read, holds no image of the plate or of one of its wells, or two for one position.
    """
    reader = open_acquisition(images, acquisition)
    excluded = excluded_wells(layout, plate)
    files = reader.files(plate, excluded)
    files = files[~files["well"].isin(excluded)].reset_index(drop=True)
    names = describe(files, images)
    # Before any file is opened, so that a file replaced meanwhile is noticed later.
    paths = files["path"].unique().tolist()
    found = pd.DataFrame(stamps(paths), index=paths, columns=list(ORIGINAL), dtype="int64")
    table = reader.headers(files)
    channels = list(acquisition["channels"].values())
    if table.empty:
        raise UserError(f"{images}: no image of the channels in acquisition.channels ({', '.join(channels)})")
    if problems := duplicates(table):
        raise UserError(problems)
    if acquisition["pixel_size_um"] is not None:
        table["pixel_size_um"] = table["pixel_size_um"].astype(float).fillna(acquisition["pixel_size_um"])
    if (table["pixel_size_um"] <= 0).any():
        raise UserError(f"{images}: its metadata give a pixel size of {table['pixel_size_um'].min():g} um; fix them")
    positions = {well: parse_well(well) for well in table["well"].unique()}
    if lacking := sorted(_wanted_wells(layout, plate) - set(positions), key=parse_well):
        raise UserError(
            f"{images}: no image of {len(lacking)} wells of the layout, the first is {lacking[0]}; copy the images "
            "there, or give the wells role exclude"
        )
    table = table.join(found, on="path")
    table["path"] = relative(table["path"], images)
    order = pd.DataFrame(
        {
            "well": table["well"].map(positions),
            "field": table["field"],
            "channel": table["channel"].map(channels.index),
            "z": table["z"],
            "time": table["time"],
        }
    ).sort_values(_IMAGE)
    notes = {**made_from({"acquisition": acquisition}, []), "listed": names}
    write_table(conform(table.loc[order.index], INDEX | ORIGINAL).reset_index(drop=True), output, notes, kind="index")
    log(f"{plate}: {len(table)} images of {len(positions)} wells")


def excluded_wells(layout: Path | None, plate: str) -> set[str]:
    """Return the wells of a plate whose role is ``exclude``; none without a layout."""
    if layout is None:
        return set()
    table = read_table(layout, {"plate": "str", "well": "str", "role": "str"})
    return set(table.loc[(table["plate"] == plate) & (table["role"] == "exclude"), "well"])


def _wanted_wells(layout: Path | None, plate: str) -> set[str]:
    """Return the wells of a plate that are not excluded; none without a layout."""
    if layout is None:
        return set()
    table = read_table(layout)
    return set(table.loc[(table["plate"] == plate) & (table["role"] != "exclude"), "well"])


def read_index(path: Path, images: Path) -> pd.DataFrame:
    """Return the index of a plate, with the present folder of the images in its paths.

    Raises
    ------
    UserError
        When it is missing, damaged, or was made by a version that did not note sizes and times.
    """
    table = read_table(path)
    if not set(ORIGINAL) <= set(table.columns):
        raise UserError(f"{path}: made by an earlier version; index the plate again")
    return table.assign(path=f"{images}/" + table["path"])


def duplicates(table: pd.DataFrame) -> list[str]:
    """Return a sentence for each of the first images of an index that more than one file claims to be."""
    second = table[table.duplicated(_IMAGE)]
    if second.empty:
        return []
    first = table.drop_duplicates(_IMAGE).set_index(_IMAGE)["path"]
    problems = [
        f"{first[tuple(row[key] for key in _IMAGE)]} and {row['path']}: both are well {row['well']}, "
        f"field {row['field']}, channel {row['channel']}, z {row['z']}, time {row['time']}; remove one, or let "
        "acquisition.pattern distinguish them"
        for row in second.head(5).to_dict("records")
    ]
    return first_problems(problems, 5, len(second))


def choose(table: pd.DataFrame, z: str | int, time: int | None, projection: int | None) -> pd.DataFrame:
    """Return the rows of an index that are staged: one time point, all z planes or one.

    Parameters
    ----------
    table
        An index.
    z, time
        As in the config's section ``acquisition``.
    projection
        The plane that is a projection of the others (`Acquisition.projection`): it is not included in projections, and
        used only where a channel has no other plane.

    Raises
    ------
    ValueError
        When it has no such time point or plane.
    """
    time = table["time"].min() if time is None else time
    chosen = table[table["time"] == time]
    if chosen.empty and len(table):
        raise ValueError(f"acquisition.time: no time point {time}; there are {listed(sorted(table['time'].unique()))}")
    if chosen.empty:
        return chosen
    if z == "max":
        projected = chosen["z"] == projection
        stacks = set(chosen.loc[~projected, "channel"])
        return chosen[~(projected & chosen["channel"].isin(stacks))]
    planes, chosen = chosen["z"], chosen[chosen["z"] == z]
    if chosen.empty:
        raise ValueError(f"acquisition.z: no plane {z}; there are {listed(sorted(planes.unique()))}")
    return chosen


def sets_by(table: pd.DataFrame, keys: list[str], column: str) -> dict[tuple, frozenset]:
    """Return the set of values of a column for each combination of keys, sorted by these.

    The same as ``groupby(keys)[column].agg(frozenset)``, which makes a table of each group, in a tenth of the time.
    """
    if table.empty:
        return {}
    group = table.groupby(keys).ngroup().to_numpy()
    value, values = pd.factorize(table[column])
    holds = np.zeros((group.max() + 1, len(values)), bool)
    holds[group, value] = True
    kinds, kind = np.unique(np.packbits(holds, axis=1), axis=0, return_index=True, return_inverse=True)[1:]
    sets = [frozenset(values[holds[first]].tolist()) for first in kinds]
    names = table[keys].drop_duplicates().sort_values(keys).itertuples(index=False, name=None)
    return {name: sets[k] for name, k in zip(names, kind.ravel().tolist(), strict=True)}


def plane_problems(chosen: pd.DataFrame, channels: Sequence[str]) -> list[str]:
    """Return what fields lack of the planes that most fields have, one sentence per kind of fault.

    Each channel is projected over the planes it has; that may be another number for each channel, but of one channel
    the fields have to agree.

    Parameters
    ----------
    chosen
        The rows of an index that are staged (`choose`).
    channels
        The channels that every field needs.
    """
    chosen = chosen.drop_duplicates(_IMAGE)  # two files for one image are a fault of their own (`duplicates`)
    fields = list(chosen[["well", "field"]].drop_duplicates().itertuples(index=False, name=None))
    problems = []
    for channel in channels:
        planes = sets_by(chosen[chosen["channel"] == channel], ["well", "field"], "z")
        # Of two equally frequent sets, the larger.
        frequent = Counter(planes.values())
        usual: frozenset[int] = max(
            frequent, key=lambda some: (frequent[some], len(some), sorted(some)), default=frozenset()
        )
        unlike: dict[frozenset[int], list[tuple[str, int]]] = {}
        for position in fields:
            if (some := planes.get(position, frozenset())) != usual:
                unlike.setdefault(some, []).append(position)
        for some, odd in sorted(unlike.items(), key=lambda item: sorted(item[0])):
            well, field = odd[0]
            n = len(some)
            path = chosen.loc[(chosen["well"] == well) & (chosen["field"] == field), "path"].iloc[0]
            more = f" and {len(odd) - 1} more fields" if len(odd) > 1 else ""
            if n == len(usual):
                has = f"planes {listed(sorted(some))} where other fields have {listed(sorted(usual))}"
            else:
                has = f"{n} plane{'s' if n > 1 else ''} where other fields have {len(usual)}" if n else "no image"
            advice = "remove those too many" if n > len(usual) else "copy the missing files, or remove the others"
            problems.append(f"well {well}, field {field}{more}: {has} of channel {channel} (beside {path}); {advice}")
    return problems
