"""Features of all nuclei of a staged plate: one row per nucleus."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from distributed import Client

from wscnn.baselines.features import nucleus_features
from wscnn.core.cluster import connect, in_flight
from wscnn.core.errors import UserError
from wscnn.core.progress import log, progress
from wscnn.core.provenance import made_from
from wscnn.core.tables import CELLS, conform, write_table
from wscnn.plates.fields import read_quality
from wscnn.plates.store import BOX, Plate
from wscnn.staging.nuclei import label_cells

#: Prefix of the names of the features.
FEATURE = "feature_"

# Most wells in flight per worker.
_AHEAD = 2


def measure_plate(store: Path, qc: Path, output: Path, *, nuclei: str | None, dask: dict[str, Any]) -> None:
    """Measure the nuclei of a staged plate, in its used fields.

    Nuclei are found and measured on the mosaic, at its resolution.

    Parameters
    ----------
    store, qc
        The staged plate and its table of fields.
    output
        The table to write: one row per nucleus, with its position and its features. It has no row where no nucleus was
        found.
    nuclei
        The channel in which nuclei are found; None: the first one.
    dask
        The config's section ``dask``.

    Raises
    ------
    UserError
        When the plate has no such channel, or it and its table of fields do not belong together.
    """
    plate = Plate(store)
    channels = [channel.name for channel in plate.channels]
    if nuclei is not None and nuclei not in channels:
        raise UserError(
            f"{store}: has no channel {nuclei}, in which nuclei are to be found; it has {', '.join(channels)}"
        )
    if nuclei is None:
        log(f"{plate.name}: acquisition.nuclei names no channel; nuclei are searched for in {channels[0]}")
    quality = read_quality(plate, qc)
    used = quality.loc[quality["used"], ["well", "field"]].merge(plate.all_fields(), on=["well", "field"])
    wells = {str(well): rows for well, rows in used.groupby("well", sort=False)}
    with connect(dask) as client:
        tables = list(progress(_measured(client, plate, wells, nuclei or channels[0]), len(wells), "wells measured"))
    found = [table for table in tables if len(table)]
    if found:
        cells = pd.concat(found, ignore_index=True)
        cells.insert(0, "plate", plate.name)
    else:
        cells = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in CELLS.items()})
        log(f"{plate.name}: no nucleus was found in any field")
    notes = made_from({}, [(f"qc/{plate.name}", qc)]) | {"digest": plate.digest, "nuclei": nuclei or channels[0]}
    write_table(conform(cells, CELLS), output, notes, kind="cells")
    log(f"{plate.name}: {len(cells)} nuclei of {len(found)} wells measured")


def _measured(client: Client, plate: Plate, wells: dict[str, pd.DataFrame], nuclei: str) -> Iterator[pd.DataFrame]:
    """Yield the table of each well, in order."""
    window = 1 + _AHEAD * sum(client.nthreads().values())
    jobs = ((well, client.submit(measure_well, plate, well, rows, nuclei, pure=False)) for well, rows in wells.items())
    for _, table in in_flight(jobs, window):
        yield table


def measure_well(plate: Plate, well: str, fields: pd.DataFrame, nuclei: str) -> pd.DataFrame:
    """Return the nuclei of some fields of a well: ``well, field, y, x`` (in the mosaic) and one column per feature.

    Parameters
    ----------
    plate, well
        Where they are.
    fields
        Those to measure, with `wscnn.plates.store.BOX`.
    nuclei
        The channel in which nuclei are found.
    """
    mosaic = plate.read(well)
    names = [channel.name for channel in plate.channels]
    tables = []
    for number, (y, x, height, width) in zip(fields["field"], fields[list(BOX)].to_numpy(int), strict=True):
        image = dict(zip(names, mosaic[:, y : y + height, x : x + width], strict=True))
        labels = label_cells(image[nuclei]).astype(np.int64)
        features = nucleus_features(image, labels)
        if features:
            position = _positions(labels, y, x)
            columns = {f"{FEATURE}{name}": values.astype(np.float32) for name, values in features.items()}
            tables.append(pd.DataFrame({"well": well, "field": number, **position, **columns}))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _positions(labels: np.ndarray, top: int, left: int) -> dict[str, np.ndarray]:
    rows, columns = np.nonzero(labels)
    of = labels[rows, columns]
    size = np.bincount(of)[1:]
    return {
        "y": top + np.bincount(of, weights=rows)[1:] / size,
        "x": left + np.bincount(of, weights=columns)[1:] / size,
    }


def feature_names(columns: Sequence[str]) -> list[str]:
    """Return those of the columns of a table of cells that are features."""
    return [name for name in columns if name.startswith(FEATURE)]
