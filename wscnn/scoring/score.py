"""Scores of wells and fields, detected cells and their masks: the stage `score`, one plate at a time.

Reading and post-processing of wells are Dask tasks around the networks, which stay in this process with their device;
a bounded number of wells is in flight, so that memory does not grow with the plate.
"""

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from distributed import Client, Future

from wscnn.core.cluster import connect, in_flight, threads_for
from wscnn.core.errors import UserError
from wscnn.core.progress import log, progress
from wscnn.core.provenance import folds_in, made_from
from wscnn.core.tables import FEATURES, OBJECTS, conform, write_table
from wscnn.core.wells import NOVELTY, SALIENCY, parse_well
from wscnn.discovery.detect import detect
from wscnn.discovery.novelty import load_novelty
from wscnn.encoder.encode import load_encoder
from wscnn.network.card import Card, folds_of
from wscnn.network.cells import ImageCells
from wscnn.network.device import one_thread, pick_device
from wscnn.network.model import WSCNN
from wscnn.network.saliency import saliency
from wscnn.network.weights import check_fits, load_folds
from wscnn.plates.fields import read_quality
from wscnn.plates.store import BOX, STAGE, Plate
from wscnn.scoring.masks import Extent, extent
from wscnn.scoring.summaries import _long, _objects, _summaries, summarise
from wscnn.scoring.tasks import ScoredWell, WellFields, finish_wells, read_wells
from wscnn.staging.cell_measures import OutlinedCells

# Pixels of fields in one pass, which takes one field at least: bounds the memory of activations. On CPUs few are best:
# activations stay in the cache, and a field without a detection needs no backward pass.
_PIXELS = {"cpu": 2**16, "cuda": 2**21}
# Pixels of the wells of one task, about: a task costs Dask milliseconds, as much as a small well.
_TASK_PIXELS = 2**22
# Most tasks that are being read, and most that are being finished, at a time.
_WINDOW = 8
# Number of wells after which freed memory is returned to the system: glibc keeps some per thread, and the process would
# grow by a megabyte per well.
_TRIM = 16
# Columns of a used field that scoring needs.
_FIELD_COLUMNS = ["field", *BOX, *STAGE]


def score_plate(
    store: Path,
    qc: Path,
    models: Path | None,
    wells: Path,
    fields: Path,
    objects: Path,
    *,
    screen: str,
    score: dict[str, Any],
    dask: dict[str, Any],
    novelty: Path | None = None,
    encoder: Path | None = None,
    features: Path | None = None,
) -> None:
    """Score a staged plate: tables of wells, fields and objects, and masks and saliency as labels in the plate.

    **Which folds score a well.** A well that has any part in a model is scored only by the folds that held it out for
    testing, so that nothing that enters statistics comes from a network that has seen the well. Every other well is
    scored by all folds, and its score is their mean. Wells are known by plate and name, whatever the screen: a model
    applied under a new name to the plates it was trained on stays honest.

    **Common scale of the folds.** Each fold is a separate network, and its offset and scale would look like a
    difference between controls (one fold) and treated wells (all). So the folds are brought to a common scale by the
    wells of the plate that all may score (see `align_folds`); objects and thresholds keep the detector's own scale.

    A well's score is the mean over its used fields of the log-odds that the field holds the phenotype. Fields that
    quality control dropped, and wells without a used field or a fold that may score them, have none (NaN); the table of
    wells gives the reason. A field's probability is the mean over folds of the probabilities that each fold's card
    assigns to its own score, before the common scale; it is positive where the mean over folds of score minus the
    fold's threshold is above 0. Objects of a well that several folds score come from the mean of their detectors.

    Parameters
    ----------
    store
        The staged plate. Labels ``<phenotype>`` (uint32, objects by number) and ``<phenotype>_saliency`` (uint8, 255
        is the field's highest value) are added to each scored well, or replaced; those of other phenotypes, and of
        wells without a score, are removed.
    qc
        Its table of fields.
    models
        Folder of the trained folds; None where the screen has no positive controls to train on.
    wells, fields, objects
        The tables to write, as in `wscnn.core.tables`; wells last, when everything else is written.
    screen
        The screen's name.
    score, dask
        Sections of the config.
    novelty, encoder
        What `wscnn.discovery.learn` and `wscnn.encoder.encode` wrote; None looks for no novel cells. Their rows follow
        those of the trained phenotypes.
    features
        With `novelty`, the table of the feature vectors of novel cells to write.

    Raises
    ------
    UserError
        When model and plate do not fit, a file is broken, or a field has no row in the table of quality.
    """
    plate = Plate(store)
    quality = _quality(plate, qc)
    sources = [(f"qc/{plate.name}", qc)]
    labelled = {well for well in plate.wells if plate.labels(well)}
    found = []
    if models is not None:
        found.append(_by_detectors(plate, quality, models, screen, score, dask))
        sources += folds_in(models)
    if novelty is not None:
        if encoder is None or features is None:
            raise UserError("score: --novelty needs --encoder and --features, too")
        tables, vectors = _by_novelty(plate, quality, novelty, encoder, screen, score)
        found.append(tables)
        sources.append(("model/novelty", novelty))
        write_table(vectors, features, made_from({"score": score}, sources), kind="features")
    if not found:
        raise UserError("score: give --models, or --novelty for a screen without positive controls")
    _remove_stale_labels(plate, found, labelled)
    notes = made_from({"score": score}, sources)
    for name, path in (("objects", objects), ("fields", fields), ("wells", wells)):
        # By well and field, then phenotype, in the order of the plate.
        table = pd.concat([getattr(tables, name) for tables in found], ignore_index=True)
        if len(found) > 1:
            by = ["well", "field"] if name == "fields" else ["well"]
            table = table.sort_values(by, kind="stable", key=_place, ignore_index=True)
        write_table(table, path, notes, kind=name)


def _place(column: pd.Series) -> pd.Series:
    """Return a key by which wells are sorted by row and column, and fields by number."""
    return column.map(parse_well) if column.name == "well" else column


class _Tables(NamedTuple):
    """What was found on a plate, as `score_plate` writes it."""

    objects: pd.DataFrame
    fields: pd.DataFrame
    wells: pd.DataFrame


def _by_detectors(
    plate: Plate, quality: pd.DataFrame, models: Path, screen: str, score: dict[str, Any], dask: dict[str, Any]
) -> _Tables:
    """Return the tables of the trained phenotypes; write their labels."""
    folds = load_folds(models)
    cards = [card for _, card in folds]
    check_fits(cards[0], [channel.name for channel in plate.channels], plate.pixel_size_um, str(plate.path))
    scales = _scales(cards, models)
    device = pick_device(score["device"])
    # Channels last: convolutions of few channels are a fifth to two fifths faster on CPUs.
    networks = [model.to(device).requires_grad_(False) for model, _ in folds]
    for network in networks:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    todo = []
    used = quality[quality["used"]]
    boxes = used[_FIELD_COLUMNS].to_records(index=False)
    for name, rows in used.groupby("well", sort=False).indices.items():
        chosen = folds_of(f"{plate.name}/{name}", cards)
        if chosen:
            todo.append(ScoredWell(str(name), boxes[rows], chosen, *_of_folds(chosen, scales)))
    if len(todo) < len(plate.wells):
        n = len(plate.wells) - len(todo)
        log(f"{plate.name}: {n} wells have too few good fields, or no fold that may score them")

    logits, found = {}, {}
    n_cells: dict[tuple[str, int], float] = {}
    lengths = extent(networks[0].receptive_field, score)
    # On CPUs each core computes its own well and never waits for another in the middle of a layer; so scores are also
    # the same on any number of cores.
    n_threads = threads_for(gpu=device.type == "cuda")
    with connect(dask) as client, one_thread(), ThreadPoolExecutor(n_threads) as pool:
        seen = _infer(client, pool, n_threads, plate, todo, networks, cards[0], lengths)
        for n, (well, values, table, counts) in enumerate(progress(seen, len(todo), "wells scored"), 1):
            if n % _TRIM == 0:
                _trim_memory()
            if not np.isfinite(values).all():
                raise UserError(f"{models}: produced NaN scores for well {well.name} of {plate.path}; train again")
            logits[well.name] = np.where(scales["learned"][well.folds][:, None], values, np.nan)
            found[well.name] = table
            n_cells |= {(well.name, field): count for field, count in zip(well.fields["field"], counts, strict=True)}

    # Cells that were not counted in a channel of nuclei are those that the detector judges.
    outlined = pd.Series([n_cells.get(key, np.nan) for key in zip(quality["well"], quality["field"], strict=True)])
    quality = quality.assign(n_cells=quality["n_cells"].astype(float).fillna(outlined.set_axis(quality.index)))
    objects = _objects(plate.name, found)
    long = _long(todo, logits, cards[0].phenotypes, scales)
    return _Tables(objects, *_summaries(plate, screen, quality, cards, todo, long, objects))


def _by_novelty(
    plate: Plate, quality: pd.DataFrame, novelty: Path, encoder: Path, screen: str, score: dict[str, Any]
) -> tuple[_Tables, pd.DataFrame]:
    """Return the tables of novel cells, and their feature vectors; write their labels."""
    model = load_novelty(novelty)
    network, card = load_encoder(encoder, model.channels)
    if card.digest != model.encoder:
        raise UserError(f"{novelty}: was not learned by the encoder {encoder}; run `wscnn novelty` again")
    check_fits(card, [channel.name for channel in plate.channels], plate.pixel_size_um, str(plate.path))
    network.to(pick_device(score["device"])).requires_grad_(False)
    used = quality[quality["used"]]
    with one_thread():
        found = detect(plate, used, model, network)
    objects = conform(found.objects.assign(plate=plate.name), OBJECTS)
    # A share has no threshold of its own and no probability.
    long = found.scores.dropna(subset="score").rename(columns={"score": "aligned", "n_cells": "weight"})
    long = long.assign(phenotype=NOVELTY, margin=np.nan, probability=np.nan)
    held_out = {well: model.parts[key] for well in plate.wells if (key := f"{plate.name}/{well}") in model.parts}
    unscored = dict.fromkeys(used["well"], found.why_no_score)
    fields, wells = summarise(plate, screen, quality, [NOVELTY], long, objects, held_out, unscored)
    wells["cell_intensity"] = wells["well"].map(found.intensity).astype(float)
    return _Tables(objects, fields, wells), conform(found.features.assign(plate=plate.name), FEATURES)


def _quality(plate: Plate, qc: Path) -> pd.DataFrame:
    """Return one row per field in the plate's order: as in `ScoredWell`, and ``well, used, flags, n_cells``."""
    table = read_quality(plate, qc)
    columns = ["well", "field", "used", "flags", "n_cells"]
    boxes = plate.all_fields().reindex(columns=["well", *_FIELD_COLUMNS]).astype(dict.fromkeys(STAGE, float))
    judged = boxes.merge(table[columns], on=["well", "field"], how="left")
    unknown = judged[judged["used"].isna()]
    if len(unknown) or len(judged) > len(boxes):
        first = f", first well {unknown['well'].iloc[0]}, field {unknown['field'].iloc[0]}" if len(unknown) else ""
        raise UserError(f"{qc}: its rows are not the fields of {plate.path}{first}; stage the plate again")
    return judged.astype({"used": bool})


def _scales(cards: Sequence[Card], models: Path) -> dict[str, np.ndarray]:
    """Return what the cards say about scores, each of shape (folds, P).

    These are the thresholds of ``place`` and ``field``, ``slope`` and ``offset`` of probabilities, NaN on cards of an
    earlier version, and whether a phenotype was ``learned``.
    """
    if not all(card.probabilities for card in cards):
        log(f"warning: {models}: a card holds no probabilities, as of an earlier version; fields get none")
    unknown = {"slope": np.nan, "offset": np.nan}
    rows = [
        [card.thresholds[name] | card.probabilities.get(name, unknown) for name in card.phenotypes] for card in cards
    ]
    scales = {
        key: np.array([[float(of_class[key]) for of_class in row] for row in rows])
        for key in ("place", "field", "slope", "offset")
    }
    scales["learned"] = np.array([[card.learned.get(name, True) for name in card.phenotypes] for card in cards])
    for card in cards:
        for name in card.phenotypes:
            if not card.learned.get(name, True):
                log(f"warning: fold {card.fold} has not learned {name}: it scores no well; its controls do not count")
    return scales


def _of_folds(chosen: Sequence[int], scales: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the thresholds of objects (P,) of some folds, infinite where none has learned, and what each learned."""
    learned = scales["learned"][chosen].astype(bool)
    thresholds = (scales["place"][chosen] * learned).sum(0) / np.maximum(learned.sum(0), 1)
    return np.where(learned.any(0), thresholds, np.inf), learned


def _remove_stale_labels(plate: Plate, found: Sequence[_Tables], labelled: set[str]) -> None:
    """Remove masks and saliency of an earlier scoring that this one did not replace.

    A label without a saliency label beside it is the user's own. Wells in `labelled` had labels before; elsewhere only
    what this scoring wrote is there, and where it scored every phenotype nothing needs to be read.
    """
    phenotypes = {name for tables in found for name in tables.wells["phenotype"]}
    wells = pd.concat([tables.wells for tables in found]).dropna(subset="score")
    kept = wells.groupby("well")["phenotype"].agg(set)
    for well in plate.wells:
        if well not in labelled and kept.get(well) == phenotypes:
            continue
        listed = plate.labels(well)
        stale = [name for name in listed if name + SALIENCY in listed and name not in kept.get(well, ())]
        if stale:
            plate.remove_labels(well, [*stale, *(name + SALIENCY for name in stale)])


def _trim_memory() -> None:
    """Return freed memory to the system, where the C library supports it (glibc)."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _infer(
    client: Client,
    pool: ThreadPoolExecutor,
    n_threads: int,
    plate: Plate,
    wells: Sequence[ScoredWell],
    networks: Sequence[WSCNN],
    card: Card,
    lengths: Extent,
) -> Iterator[tuple[ScoredWell, np.ndarray, dict[str, np.ndarray], Sequence[float]]]:
    """Yield each well with its scores (folds, n, P), its table of objects and its cells per field, labels written.

    The numbers of cells are NaN where no cells were looked for.

    Each step pulls from the one before it, and no more than a window of tasks, each of a few wells, waits between two.
    """
    n_workers = sum(client.nthreads().values())
    window, ahead = (min(_WINDOW, 1 + n) for n in (n_workers, n_threads))
    tasks = _tasks(wells, 2 * max(n_workers, n_threads))
    stride = networks[0].stride
    of_cells = stride if card.outlined else None
    reads = ((task, client.submit(read_wells, plate, task, card.channels, of_cells, pure=False)) for task in tasks)
    inferred = (
        ((task, [own.cells for own in fields]), pool.submit(_infer_wells, networks, task, fields))
        for task, fields in in_flight(reads, window)
    )

    def finish(task: Sequence[ScoredWell], *found: list[Any]) -> Future:
        arrays = client.scatter(list(found), hash=False)
        return client.submit(finish_wells, plate, task, *arrays, card.phenotypes, stride, lengths, pure=False)

    finishing = (
        ((task, logits, list(map(_counts, task, cells))), finish(task, cells, maps, gradients))
        for (task, cells), (logits, maps, gradients) in in_flight(inferred, ahead)
    )
    for (task, logits, counts), tables in in_flight(finishing, window):
        yield from zip(task, logits, tables, counts, strict=True)


def _counts(well: ScoredWell, cells: list[OutlinedCells] | None) -> list[float]:
    """Return the number of cells of each field of a well, NaN where they were not looked for."""
    if cells is None:
        return [np.nan] * len(well.fields)
    return [float(np.count_nonzero(np.unique(own.regions))) for own in cells]


def _tasks(wells: Sequence[ScoredWell], fewest: int) -> list[list[ScoredWell]]:
    """Return the wells in runs of about `_TASK_PIXELS` pixels, and at least `fewest` runs if there are enough wells."""
    pixels = sum(int((well.fields["height"] * well.fields["width"]).sum()) for well in wells)
    n_tasks = min(len(wells), max(fewest, -(-pixels // _TASK_PIXELS)))
    ends = [len(wells) * (i + 1) // n_tasks for i in range(n_tasks)]
    return [list(wells[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


def _infer_wells(
    networks: Sequence[WSCNN], wells: Sequence[ScoredWell], fields: Sequence[WellFields]
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """Return scores, detector maps and saliency of each well, by the folds that score it."""
    inferred = [
        _infer_fields([networks[k] for k in well.folds], own, well.thresholds, well.learned)
        for well, own in zip(wells, fields, strict=True)
    ]
    logits, maps, gradients = map(list, zip(*inferred, strict=True))
    return logits, maps, gradients


def _infer_fields(
    networks: Sequence[WSCNN], fields: WellFields, thresholds: np.ndarray, learned: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the same as `wscnn.network.saliency.saliency`, as arrays, for any number of fields."""
    device, images = next(networks[0].parameters()).device, fields.images
    step = max(1, _PIXELS[device.type] // (images.shape[-2] * images.shape[-1]))
    parts = []
    for start in range(0, len(images), step):
        some = torch.tensor(images[start : start + step], device=device)
        cells = None if fields.cells is None else ImageCells.of(fields.cells[start : start + step], device)
        found = saliency(networks, some, thresholds.tolist(), learned.tolist(), cells)
        parts.append([values.cpu().numpy() for values in found])
    logits, maps, gradients = zip(*parts, strict=True)
    return np.concatenate(logits, axis=1), np.concatenate(maps), np.concatenate(gradients)
