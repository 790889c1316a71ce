"""The stage `novelty`: references of negative control cells, learned once for all plates of a screen."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wscnn.core.cluster import in_flight, threads_for
from wscnn.core.errors import UserError, listed
from wscnn.core.progress import log, progress
from wscnn.core.tables import CONTROLS, read_table
from wscnn.core.wells import LEAST_NEGATIVES, N_PARTS
from wscnn.discovery.cells import FieldCells, describe
from wscnn.discovery.novelty import (
    LEAST_OF_PART,
    NoveltyModel,
    fit_references,
    measured,
    negatives_of,
    save_novelty,
)
from wscnn.encoder.encode import load_encoder
from wscnn.network.device import one_thread, pick_device
from wscnn.network.model import WSCNN
from wscnn.network.weights import check_fits
from wscnn.plates.fields import open_plates, read_fields, read_quality, shared_channels
from wscnn.plates.store import BOX, Plate
from wscnn.staging.regions import FEWEST, nuclear_channel, outline

#: Negative control wells that references are learned from, at most, on plates spread evenly over the screen.
_MOST_WELLS = 600
#: Fields of which cells are counted, to decide whether cells are found at all.
_COUNTED = 24


def learn_novelty(
    controls: Path,
    stores: Sequence[Path],
    qcs: Sequence[Path],
    encoder: Path,
    output: Path,
    *,
    screen: str,
    discovery: Mapping[str, Any],
) -> None:
    """Learn what cells of negative controls look like; write the references (safetensors).

    Parameters
    ----------
    controls
        Table of control wells: ``plate, well, role, phenotype``. Positive controls are not used.
    stores, qcs
        Staged plates and, in the same order, their tables of fields; a field with ``used`` False is left out.
    encoder
        What `wscnn.encoder.encode` wrote.
    output
        The file to write.
    screen
        Its name.
    discovery
        The section of the config.

    Raises
    ------
    UserError
        When no plate has enough negative control wells with cells, or plates and encoder do not fit.
    """
    plates = open_plates(stores, qcs)
    network, card = load_encoder(encoder)
    channels, _ = shared_channels(list(plates.values()), card.channels)
    for plate in plates.values():
        check_fits(card, [channel.name for channel in plate.channels], plate.pixel_size_um, str(plate.path))
    network.to(pick_device(discovery["device"])).requires_grad_(False)
    parts = negatives_of(read_table(controls, CONTROLS), discovery["seed"])
    fields = _fields_of(plates, qcs, parts)
    outlined = _outlined(plates, fields, channels)
    with one_thread():
        cells = dict(_cells_of(network, plates, fields, channels, outlined))
    cells = {well: own for well, own in cells.items() if len(own)}
    enough = _plates_with_enough(cells, parts)
    if not enough:
        raise UserError(
            f"discovery: no plate has {LEAST_NEGATIVES} negative control wells with cells in good fields, "
            f"{LEAST_OF_PART} in each of the {N_PARTS} parts that novelty compares crosswise; see the tables of "
            "quality in the folder qc, or add negative controls"
        )
    if left := sorted({well.rpartition("/")[0] for well in parts} - set(enough)):
        log(f"novelty: plates with too few negative control wells, not used: {listed(left)}")
    cells = {well: own for well, own in cells.items() if well.rpartition("/")[0] in enough}
    with one_thread():
        references, objects = fit_references(cells, parts, discovery["seed"], measured(card.channels, outlined))
    log(f"novelty: {sum(map(len, cells.values()))} cells of {len(cells)} negative control wells")
    model = NoveltyModel(
        references=references,
        objects=objects,
        screen=screen,
        channels=card.channels,
        pixel_size_um=card.pixel_size_um,
        encoder=str(card.digest),
        outlined=outlined,
        parts=parts,
        n_cells=[len(one.cells) for one in references],
        settings=dict(discovery),
    )
    save_novelty(output, model)


def _fields_of(plates: Mapping[str, Plate], qcs: Sequence[Path], parts: Mapping[str, int]) -> pd.DataFrame:
    """Return the usable fields of negative control wells, of plates spread evenly if there are too many."""
    rows = []
    per_plate = max(1, len(parts) // max(len(plates), 1))
    chosen = np.unique(np.linspace(0, len(plates) - 1, max(1, min(len(plates), _MOST_WELLS // per_plate))).astype(int))
    for n, (plate, path) in enumerate(zip(plates.values(), qcs, strict=True)):
        if n in chosen:
            quality = read_quality(plate, path)
            used = quality.loc[quality["used"], ["well", "field"]]
            own = plate.all_fields()[["well", "field", *BOX]].merge(used, on=["well", "field"])
            rows.append(own[(plate.name + "/" + own["well"]).isin(parts)].assign(plate=plate.name))
    return pd.concat(rows, ignore_index=True)


def _outlined(plates: Mapping[str, Plate], fields: pd.DataFrame, channels: Sequence[str]) -> bool:
    """Return whether cells are found in a few of the fields."""
    some = fields.iloc[:: max(1, len(fields) // _COUNTED)]
    counts = []
    for plate, well, *box in some[["plate", "well", *BOX]].itertuples(index=False):
        image = read_fields(plates[str(plate)], str(well), channels, np.array([box]))[0]
        counts.append(len(np.unique(outline(image, nuclear_channel(channels)))) - 1)
    found = bool(counts) and float(np.mean(counts)) >= FEWEST
    if not found:
        log("novelty: hardly any cell is found in the images: features are pooled over squares")
    return found


def _cells_of(
    network: WSCNN, plates: Mapping[str, Plate], fields: pd.DataFrame, channels: Sequence[str], outlined: bool
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the features of the cells of each well, as ``plate/well``."""
    wells = list(fields.groupby(["plate", "well"], sort=True))

    def features(plate: str, well: str, boxes: np.ndarray) -> np.ndarray:
        found = describe_well(network, plates[plate], well, channels, boxes, outlined)
        return np.concatenate([own.features for own in found])

    workers = threads_for(gpu=next(network.parameters()).is_cuda)
    with ThreadPoolExecutor(workers) as pool:
        work = (
            (f"{plate}/{well}", pool.submit(features, str(plate), str(well), rows[BOX].to_numpy()))
            for (plate, well), rows in wells
        )
        yield from progress(in_flight(work, 2 * workers), len(wells), "negative control wells described")


def describe_well(
    network: WSCNN, plate: Plate, well: str, channels: Sequence[str], boxes: np.ndarray, outlined: bool
) -> list[FieldCells]:
    """Return the cells of the fields of a well, whose boxes are as in `wscnn.plates.store.BOX`."""
    return describe(network, read_fields(plate, well, channels, boxes), outlined)


def _plates_with_enough(cells: Mapping[str, np.ndarray], parts: Mapping[str, int]) -> set[str]:
    """Return the plates that have `LEAST_OF_PART` wells with cells in every part."""
    counts = {plate: np.zeros(N_PARTS, int) for plate in {well.rpartition("/")[0] for well in cells}}
    for well in cells:
        counts[well.rpartition("/")[0]][parts[well]] += 1
    return {plate for plate, count in counts.items() if count.min() >= LEAST_OF_PART}
