"""Training of one fold: from control wells to a model file with its card and history."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from wscnn.core.config import effective
from wscnn.core.progress import log
from wscnn.core.provenance import made_from
from wscnn.core.screen_folder import ModelFolder
from wscnn.core.tables import CONTROLS, read_table, write_table
from wscnn.encoder.appearance import describe_negatives
from wscnn.network.card import PARTS, Card
from wscnn.network.device import one_thread, pick_device
from wscnn.network.model import WSCNN
from wscnn.network.weights import save_model
from wscnn.plates.fields import open_plates, shared_channels
from wscnn.plates.store import Plate
from wscnn.staging.regions import nuclear_channel
from wscnn.statistics.calibration import fit_probability, probability, reliability
from wscnn.statistics.cautions import of_models
from wscnn.statistics.drift import summarise_plates
from wscnn.training.control_fields import fields_of, load_examples
from wscnn.training.detector import Cells, highest_of_cells, learned, train_detectors
from wscnn.training.distributed import fit_together
from wscnn.training.fit import Examples, evaluate, field_auc, well_auc
from wscnn.training.parts import NEGATIVE, assign_parts, class_of
from wscnn.training.recipe import recipe_of
from wscnn.training.start import start_network, start_weights, take_encoder
from wscnn.training.thresholds import cell_threshold, field_threshold, place_threshold, recall

#: Plates whose negative controls are described in the card, at most.
_DESCRIBED = 24


def train_fold(
    fold: int,
    controls: Path,
    stores: list[Path],
    qcs: list[Path],
    output: Path,
    *,
    screen: str,
    model: Mapping[str, Any],
    train: Mapping[str, Any],
    encoder: Path | None = None,
) -> None:
    """Train one fold; write its weights, card and history.

    An interrupted training resumes from its last evaluation when it is started again with the same settings, with the
    same result.

    Parameters
    ----------
    fold
        0, 1 or 2.
    controls
        Table of control wells: ``plate, well, role, phenotype``, and ``batch`` where ``train.hold_out`` is ``batch``.
    stores, qcs
        Staged plates and, in the same order, their tables of fields; a field with ``used`` False is left out.
    output
        The weights, ``fold-<k>.safetensors``; the card, ``fold-<k>.json``, and ``history-<k>.parquet``.
    screen
        Its name, for the card.
    model, train
        Sections of the config.
    encoder
        What `wscnn.encoder.encode` wrote, for an architecture that is encoded.

    Raises
    ------
    UserError
        Before the first step: too few control wells, or plates or batches to hold out, a table of fields that was not
        staged with its plate, plates that differ in channels, pixel size or size of fields, fields that are constant,
        hold NaN or are smaller than the network's receptive field, settings with which no network can be trained.
    """
    prepared = _prepare(fold, controls, stores, qcs, model, train, encoder)
    resume = output.with_name(f".{output.stem}.resume")
    fitted = _fit(prepared, fold, resume, model, train)
    card = _make_card(prepared, fitted, screen, fold)
    card.negatives = _describe_negatives(prepared)
    for phenotype, values in card.metrics["test"].items():
        log(
            f"fold {fold}, {phenotype}, held-out wells: AUC {values['well_auc']:.3f} over wells, "
            f"{values['field_auc']:.3f} over fields"
        )
    for caution in of_models([card]):
        log(f"warning: {caution.message}")
    tables = [("controls", controls), *((f"qc/{name}", path) for name, path in zip(prepared.plates, qcs, strict=True))]
    if encoder is not None:
        tables.append(("model/encoder", encoder))
    notes = made_from({"model": model, "train": train}, tables)
    write_table(fitted.history, ModelFolder(output.parent).history(fold), notes, kind="history")
    save_model(output, prepared.network, card)
    resume.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Prepared:
    """Inputs of the training of a fold."""

    device: torch.device
    plates: Mapping[str, Plate]
    channels: list[str]
    pixel_size_um: float | None
    #: The negative one first.
    classes: list[str]
    #: One row per usable field of the control wells.
    table: pd.DataFrame
    network: WSCNN
    #: Whether the last layer, too, comes from an earlier model.
    taken_over: bool
    #: Sections of the config that the model was made with.
    settings: dict[str, Any]
    #: Fields of each of `PARTS`.
    examples: dict[str, Examples]


@dataclass(frozen=True)
class _Fitted:
    """Results of the training of a fold.

    Attributes
    ----------
    history
        One row per evaluation.
    checked
        The fields that thresholds and calibration come from.
    logits, maps
        Their log-odds (n, P) and detector maps (n, P, h', w').
    tested
        Log-odds of the fields of part `test`.
    cells
        The cells of the fields, where detectors were fitted to cells.
    """

    history: pd.DataFrame
    checked: Examples
    logits: np.ndarray
    maps: np.ndarray
    tested: np.ndarray
    cells: Cells | None


def _prepare(
    fold: int,
    controls: Path,
    stores: list[Path],
    qcs: list[Path],
    model: Mapping[str, Any],
    train: Mapping[str, Any],
    encoder: Path | None,
) -> _Prepared:
    """Return the network to train, and the fields of control wells in three parts; parameters as of `train_fold`."""
    device = pick_device(train["device"])
    plates = open_plates(stores, qcs)
    channels, pixel_size_um = shared_channels(list(plates.values()), model["channels"])
    wells = read_table(controls, CONTROLS)
    parts = assign_parts(wells, train["seed"], train["hold_out"])
    wells = wells.assign(label=class_of(wells), part=(parts - fold) % len(PARTS))
    classes = [NEGATIVE, *sorted(set(wells["label"]) - {NEGATIVE})]
    table = fields_of(wells, plates, qcs)
    torch.manual_seed(train["seed"])
    settings = {"model": dict(model), "train": dict(train)}
    network, taken_over = start_network(model, train, len(channels), classes, fold)
    network.nuclear = nuclear_channel(channels)
    if network.encoded:
        settings["encoder"] = take_encoder(network, encoder, channels)
    examples = {
        name: load_examples(table[table["part"] == part], plates, channels, classes, train, network)
        for part, name in enumerate(PARTS)
    }
    log(
        f"fold {fold}: "
        + ", ".join(
            f"{len(part.labels)} fields of {len(set(part.wells))} wells to {name}" for name, part in examples.items()
        )
    )
    return _Prepared(device, plates, channels, pixel_size_um, classes, table, network, taken_over, settings, examples)


def _fit(prepared: _Prepared, fold: int, resume: Path, model: Mapping[str, Any], train: Mapping[str, Any]) -> _Fitted:
    """Train the network in place; detectors of an encoded network are fitted to its features."""
    network, examples, cells = prepared.network, prepared.examples, None
    if network.encoded:
        network.to(prepared.device)
        recipe = recipe_of(train, encoded=True)
        history, checked, logits, maps, cells = train_detectors(network, examples, recipe, train["seed"])
    else:
        history = fit_together(
            train["gpus"],
            prepared.device,
            network,
            examples["train"],
            examples["select"],
            # A last layer taken over from another model is kept.
            recipe_of(train) | ({"heads": 0} if prepared.taken_over else {}),
            train["seed"],
            resume,
            _key(prepared.table, fold, prepared.channels, model, train, prepared.plates),
        )
        checked = examples["select"]
        logits, maps = evaluate(network, checked.fields.to(prepared.device))
    tested, _ = evaluate(network, examples["test"].fields.to(prepared.device))
    return _Fitted(history, checked, logits, maps, tested, cells)


def _make_card(prepared: _Prepared, fitted: _Fitted, screen: str, fold: int) -> Card:
    """Return the card of a trained fold."""
    network, classes, examples, checked = prepared.network, prepared.classes, prepared.examples, fitted.checked
    scales = _scales(fitted.logits, fitted.maps, checked, classes)
    card = Card(
        architecture=network.architecture,
        pool=network.pool,
        score_pool=network.score_pool,
        channels=prepared.channels,
        pixel_size_um=prepared.pixel_size_um,
        classes=classes,
        screen=screen,
        fold=fold,
        parts={name: sorted(set(part.wells)) for name, part in examples.items()},
        thresholds=scales["thresholds"],
        probabilities=scales["probabilities"],
        n_fields={name: _count_fields(part, classes) for name, part in examples.items()},
        settings=prepared.settings,
    )
    card.metrics = {
        "select": _metrics(fitted.logits, checked, classes, card.probabilities),
        "test": _metrics(fitted.tested, examples["test"], classes, card.probabilities),
    }
    if fitted.cells is not None:
        if fitted.cells.outlines is not None:
            card.outlined = True
            found = list(fitted.cells.outlines.regions.cpu().numpy())
            _count_cells(card, highest_of_cells(fitted.maps, found), checked)
        n_wells = pd.Series(dict(zip(checked.wells, checked.labels.tolist(), strict=True))).value_counts()
        card.learned = {
            phenotype: learned(card.metrics["select"][phenotype]["well_auc"], n_wells[0], n_wells[label])
            for label, phenotype in enumerate(classes[1:], 1)
        }
    return card


def _describe_negatives(prepared: _Prepared) -> dict[str, list[float]]:
    """Return what negative controls of the plates look like to the trained network, to compare later ones."""
    fields = prepared.table[prepared.table["label"] == NEGATIVE]
    plates = {name: plate for name, plate in prepared.plates.items() if name in set(fields["plate"])}
    chosen = list(plates)[:: -(-len(plates) // _DESCRIBED)]
    own = {name: fields[fields["plate"] == name] for name in chosen}
    some = {name: plates[name] for name in chosen}
    with one_thread():
        wells = describe_negatives(prepared.network.eval(), some, own.values(), fields, prepared.channels)
    return summarise_plates(wells) if wells else {}


def _count_cells(card: Card, scores: Sequence[np.ndarray], checked: Examples) -> None:
    """Set the card's thresholds of objects and its recall by the scores of cells of each field, (cells, P)."""
    for index, phenotype in enumerate(card.phenotypes):
        negative, positive = (
            [own[:, index] for own, label in zip(scores, checked.labels.tolist(), strict=True) if label == wanted]
            for wanted in (0, index + 1)
        )
        threshold = cell_threshold(negative, positive)
        found = recall(np.concatenate(negative), np.concatenate(positive), threshold)
        card.thresholds[phenotype]["place"] = threshold
        card.recall[phenotype] = found if np.isfinite(found) else None


def _scales(
    logits: np.ndarray, maps: np.ndarray, checked: Examples, classes: Sequence[str]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return thresholds and probabilities of a card, from fields of wells that the scores were not fitted to."""
    labels = checked.labels.cpu().numpy()
    scales: dict[str, dict[str, dict[str, float]]] = {"thresholds": {}, "probabilities": {}}
    for index, phenotype in enumerate(classes[1:]):
        negative, positive = labels == 0, labels == index + 1
        scores = logits[negative, index], logits[positive, index]
        scales["thresholds"][phenotype] = {
            "field": field_threshold(*scores),
            "place": place_threshold(maps[negative, index], maps[positive, index]),
        }
        scales["probabilities"][phenotype] = dict(zip(("slope", "offset"), fit_probability(*scores), strict=True))
    return scales


def _count_fields(examples: Examples, classes: Sequence[str]) -> dict[str, int]:
    return {name: int((examples.labels == number).sum()) for number, name in enumerate(classes)}


def _metrics(
    logits: np.ndarray, examples: Examples, classes: Sequence[str], probabilities: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, Any]]:
    """Return for each phenotype the AUCs over fields and over wells, and the calibration of fields."""
    labels = examples.labels.cpu().numpy()
    metrics: dict[str, dict[str, Any]] = {}
    aucs = zip(field_auc(logits, examples), well_auc(logits, examples), strict=True)
    for index, (by_field, by_well) in enumerate(aucs):
        own = (labels == 0) | (labels == index + 1)
        predicted = probability(logits[own, index], **probabilities[classes[index + 1]])
        table = reliability(predicted, labels[own] > 0)
        calibration = table.drop(columns="group").to_dict("records")
        metrics[classes[index + 1]] = {"field_auc": by_field, "well_auc": by_well, "calibration": calibration}
    return metrics


def _key(
    table: pd.DataFrame,
    fold: int,
    channels: Sequence[str],
    model: Mapping[str, Any],
    train: Mapping[str, Any],
    plates: Mapping[str, Plate],
) -> str:
    """Return the key of a training: the same pixels, initial weights and settings give the same key."""
    pixels = {name: plate.digest for name, plate in plates.items()}
    start = train["start_from"] and hashlib.sha256(start_weights(train, fold).read_bytes()).hexdigest()
    parts = [fold, list(channels), dict(model), effective("train", train), table.to_csv(index=False), pixels, start]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, allow_nan=False).encode()).hexdigest()
