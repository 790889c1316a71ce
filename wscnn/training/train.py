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
from wscnn.core.errors import UserError
from wscnn.core.progress import log
from wscnn.core.provenance import made_from
from wscnn.core.screen_folder import ModelFolder
from wscnn.core.tables import CONTROLS, read_table, write_table
from wscnn.encoder.encode import load_encoder
from wscnn.network.card import PARTS, Card
from wscnn.network.device import pick_device
from wscnn.network.model import NOISY_OR, WSCNN
from wscnn.network.weights import load_model, save_model
from wscnn.plates.fields import draw_in_turns, open_plates, read_fields, read_quality, shared_channels
from wscnn.plates.store import BOX, Plate
from wscnn.statistics.calibration import fit_probability, probability, reliability
from wscnn.statistics.cautions import of_models
from wscnn.training.detector import Cells, highest_of_cells, learned, train_detectors
from wscnn.training.distributed import fit_together
from wscnn.training.fit import Examples, evaluate, field_auc, well_auc
from wscnn.training.recipe import recipe_of
from wscnn.training.thresholds import cell_threshold, field_threshold, place_threshold, recall

#: The class of negative controls.
NEGATIVE = "negative"


def assign_parts(controls: pd.DataFrame, seed: int) -> pd.Series:
    """Return the part (0, 1 or 2) of each control well, dealt evenly over classes and over the plates of each.

    All fields of a well are in one part. Fold k is trained on part k, selected on part k + 1 and tested on part
    k + 2 (modulo 3).

    Parameters
    ----------
    controls
        Columns ``plate, well, role, phenotype``.
    seed
        Of the deal, which does not depend on the order of the rows.

    Raises
    ------
    UserError
        When there are fewer than two classes, or a class has fewer than three wells.
    """
    table = controls.assign(label=_labels(controls)).sort_values(["label", "plate", "well"])
    counts = table["label"].value_counts().sort_index()
    problems = [
        f"layout: class '{label}' has {count} control wells, but needs at least {len(PARTS)}: one each to train on, to "
        "select by and to test with"
        for label, count in counts.items()
        if count < len(PARTS)
    ]
    if NEGATIVE not in counts:
        problems.append("layout: there is no negative control well; training needs wells of role negative")
    if set(counts.index) <= {NEGATIVE}:
        problems.append("layout: there is no positive control well; training needs wells of role positive")
    if problems:
        raise UserError(problems)
    random = np.random.default_rng(seed)
    parts = pd.Series(0, index=table.index, name="part")
    for _, wells in table.groupby("label"):
        # The deal goes on from plate to plate, so that no part of a class has two wells more than another.
        order = [index for _, group in wells.groupby("plate") for index in random.permutation(group.index)]
        parts[order] = (np.arange(len(order)) + random.integers(len(PARTS))) % len(PARTS)
    return parts.reindex(controls.index)


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

    A training that was killed goes on from its last evaluation when it is started again with the same settings, with
    the same result.

    Parameters
    ----------
    fold
        0, 1 or 2.
    controls
        Table of control wells: ``plate, well, role, phenotype``.
    stores, qcs
        Staged plates and, in the same order, their tables of fields; a field with ``used`` False is left out.
    output
        The weights, ``fold-<k>.safetensors``; beside it come the card, ``fold-<k>.json``, and ``history-<k>.parquet``.
    screen
        Its name, for the card.
    model, train
        Sections of the config.
    encoder
        What `wscnn.encoder.encode` wrote, for an architecture that is encoded.

    Raises
    ------
    UserError
        Before the first step: too few control wells, a table of fields that was not staged with its plate, plates that
        differ in channels, pixel size or size of fields, fields that are constant, hold NaN or are smaller than the
        network's receptive field, settings with which no network can be trained.
    """
    prepared = _prepare(fold, controls, stores, qcs, model, train, encoder)
    resume = output.with_name(f".{output.stem}.resume")
    fitted = _fit(prepared, fold, resume, model, train)
    card = _make_card(prepared, fitted, screen, fold)
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
    """What a fold is trained with."""

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
    """What the training of a fold gives.

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
    wells = wells.assign(label=_labels(wells), part=(assign_parts(wells, train["seed"]) - fold) % len(PARTS))
    classes = [NEGATIVE, *sorted(set(wells["label"]) - {NEGATIVE})]
    table = _fields_of(wells, plates, qcs)
    torch.manual_seed(train["seed"])
    settings = {"model": dict(model), "train": dict(train)}
    network, taken_over = start_network(model, train, len(channels), classes, fold)
    if network.encoded:
        settings["encoder"] = _take_encoder(network, encoder, channels)
    examples = {
        name: _load(table[table["part"] == part], plates, channels, classes, train, network)
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
            # What another model's last layer has learned is kept.
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
        if fitted.cells.outlined:
            card.outlined = True
            _count_cells(card, highest_of_cells(fitted.maps, fitted.cells.found), checked)
        n_wells = pd.Series(dict(zip(checked.wells, checked.labels.tolist(), strict=True))).value_counts()
        card.learned = {
            phenotype: learned(card.metrics["select"][phenotype]["well_auc"], n_wells[0], n_wells[label])
            for label, phenotype in enumerate(classes[1:], 1)
        }
    return card


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


def _labels(controls: pd.DataFrame) -> pd.Series:
    """Return the class of each control well: ``negative`` or its phenotype."""
    return controls["phenotype"].where(controls["role"] == "positive", NEGATIVE)


def _fields_of(wells: pd.DataFrame, plates: Mapping[str, Plate], qcs: Sequence[Path]) -> pd.DataFrame:
    """Return a row a usable field of the control wells: ``plate, well, label, part, field`` and `BOX`."""
    quality = pd.concat(read_quality(plate, path) for plate, path in zip(plates.values(), qcs, strict=True))
    used = quality.loc[quality["used"], ["plate", "well", "field"]]
    rows = []
    for plate, well in zip(wells["plate"], wells["well"], strict=True):
        if plate not in plates or well not in plates[plate].wells:
            log(f"plate {plate}, well {well}: a control well without images; left out")
            continue
        rows.append(plates[plate].fields(well)[["field", *BOX]].assign(plate=plate, well=well))
    if not rows:
        raise UserError("layout: no control well has images; correct the layout or the pattern of file names")
    table = pd.concat(rows).merge(used, on=["plate", "well", "field"]).merge(wells, on=["plate", "well"])
    return table.sort_values(["plate", "well"], kind="stable", ignore_index=True)


def _load(
    table: pd.DataFrame,
    plates: Mapping[str, Plate],
    channels: Sequence[str],
    classes: Sequence[str],
    train: Mapping[str, Any],
    network: WSCNN,
) -> Examples:
    """Return the fields of `table`, at most ``train.max_fields``, checked."""
    missing = sorted(set(classes) - set(table["label"]))
    if missing:
        raise UserError(
            f"layout: class {', '.join(missing)} has too few control wells with usable fields: each of three parts "
            "needs one; see the table of quality"
        )
    # The classes take turns, and within each class its plates, so that none is lost.
    table = draw_in_turns(table, train["max_fields"], [["plate", "label"], ["label"]], train["seed"]).sort_index()
    fields = torch.empty(0)
    sizes = set()
    problems = []
    filled = 0
    for (plate, well), rows in table.groupby(["plate", "well"]):
        images = read_fields(plates[str(plate)], str(well), channels, rows[BOX].to_numpy())
        problems += _image_problems(images, rows, f"plate {plate}, well {well}", network)
        if not filled:
            # Half the memory of float32, and once: the fields of a large screen are gigabytes.
            fields = torch.empty((len(table), *images.shape[1:]), dtype=torch.half)
        sizes.add(images.shape[-2:])
        if len(sizes) == 1:
            # The largest number of a half is 65504.
            fields[filled : filled + len(images)] = torch.from_numpy(images.clip(-6e4, 6e4))
        filled += len(images)
    if len(sizes) > 1:
        problems.append(f"control wells: fields have several sizes ({sorted(sizes)} px); stage them all to one size")
    if problems:
        raise UserError(problems)
    labels = torch.tensor([classes.index(label) for label in table["label"]])
    return Examples(fields, labels, list(table["plate"] + "/" + table["well"]))


def _image_problems(images: np.ndarray, rows: pd.DataFrame, where: str, network: WSCNN) -> list[str]:
    """Return what speaks against training on images (n, C, h, w)."""
    problems = []
    if min(images.shape[-2:]) < network.receptive_field:
        problems.append(
            f"{where}: fields of {images.shape[-2]} x {images.shape[-1]} px are smaller than the "
            f"{network.receptive_field} px that the network '{network.architecture}' sees; lower mosaic.downsample or "
            "choose another model.architecture"
        )
    for image, number in zip(images, rows["field"], strict=True):
        if not np.isfinite(image).all():
            problems.append(f"{where}, field {number}: holds pixels that are no numbers; exclude the well")
        elif (np.ptp(image, axis=(1, 2)) == 0).all():
            problems.append(f"{where}, field {number}: all pixels have one value; exclude the well or the field")
    return problems


def start_network(
    model: Mapping[str, Any], train: Mapping[str, Any], n_channels: int, classes: Sequence[str], fold: int
) -> tuple[WSCNN, bool]:
    """Return the network to train, and whether all of it comes from the same fold of ``train.start_from``.

    Parameters
    ----------
    model, train
        Sections of the config.
    n_channels, classes
        What the network sees and tells apart. Another model gives its last layer only where classes and pool are the
        same.
    fold
        0, 1 or 2.

    Raises
    ------
    UserError
        When settings of these sections do not go together, or the earlier model is missing, broken or does not fit.
    """
    # The highest places tell wells apart better than noisy-or does; the other pools score as they were trained.
    score_pool = model["score_pool"] or ("topk" if model["pool"] in NOISY_OR else "same")
    network = WSCNN(model["architecture"], model["pool"], n_channels, len(classes), score_pool)
    problems = _idle(network, model, train)
    if not network.encoded and (crop := recipe_of(train)["crop"]) < network.smallest:
        problems.append(
            f"train.crop: {crop} px are too few for the network '{network.architecture}', which needs "
            f"{network.smallest}; raise it"
        )
    batch, gpus = recipe_of(train)["batch"], train["gpus"]
    if gpus > 1 and 2 * gpus > batch:
        problems.append(
            f"train.gpus: {gpus} cannot share a batch of {batch} images, two each at least; lower it or raise "
            "train.batch"
        )
    if train["max_fields"] < len(classes):
        problems.append(
            f"train.max_fields: {train['max_fields']} cannot hold a field of each of {len(classes)} classes"
        )
    if train["freeze"] > len(network.blocks):
        problems.append(f"train.freeze: the network has {len(network.blocks)} layers that can be frozen; lower it")
    if train["freeze"] and train["start_from"] is None:
        problems.append("train.freeze: layers can be frozen only when train.start_from names a trained model")
    whole = False
    if train["start_from"] is not None:
        try:
            whole = _load_pretrained(network, _start(train, fold), classes)
        except UserError as error:
            problems += [f"train.start_from: {problem}" for problem in error.problems]
    if problems:
        raise UserError(problems)
    return network, whole


#: Keys of the section `train` that say how layers are trained, which those of an encoder are not.
_OF_LAYERS = ("batch", "crop", "tiles", "patience", "start_from")


def _idle(network: WSCNN, model: Mapping[str, Any], train: Mapping[str, Any]) -> list[str]:
    """Return which settings an encoded network has no use for."""
    if not network.encoded:
        return []
    advice = f"has no effect on model.architecture '{network.architecture}'; remove it or choose another architecture"
    problems = [f"train.{key}: {advice}" for key in _OF_LAYERS if train[key] is not None]
    if train["freeze"]:
        problems.append(f"train.freeze: {advice}")
    if train["preset"] == "paper":
        problems.append(
            "train.preset: 'paper' trains the paper's networks; set model.architecture to wscnn4, wscnn4_cells or "
            "wscnn6"
        )
    if model["pool"] != "noisy_or":
        problems.append(
            f"model.pool: the detectors of architecture '{network.architecture}' are trained by noisy_or over wells; "
            "remove the key or choose another architecture"
        )
    return problems


def _load_pretrained(network: WSCNN, source: Path, classes: Sequence[str]) -> bool:
    """Give `network` the layers of the model at `source`; return whether also the last one, by classes and pool."""
    earlier, card = load_model(source)
    if card.architecture != network.architecture or len(card.channels) != network.n_channels:
        raise UserError(
            f"{source}: a network '{card.architecture}' of {len(card.channels)} channels cannot be the start of "
            f"'{network.architecture}' of {network.n_channels}; give both the same"
        )
    network.blocks.load_state_dict(earlier.blocks.state_dict())
    whole = card.classes == list(classes) and card.pool == network.pool
    if whole:
        network.load_state_dict(earlier.state_dict())
    return whole


def _take_encoder(network: WSCNN, source: Path | None, channels: Sequence[str]) -> dict[str, Any]:
    """Give `network` the layers of the encoder at `source`; return the settings that it was learned with."""
    if source is None:
        raise UserError(
            f"model.architecture: '{network.architecture}' needs an encoder; run `wscnn encode` first and pass its "
            "output as --encoder"
        )
    encoder, card = load_encoder(source, channels)
    network.blocks.load_state_dict(encoder.blocks.state_dict())
    return card.settings["encoder"]


def _count_fields(examples: Examples, classes: Sequence[str]) -> dict[str, int]:
    return {name: int((examples.labels == number).sum()) for number, name in enumerate(classes)}


def _metrics(
    logits: np.ndarray, examples: Examples, classes: Sequence[str], probabilities: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, Any]]:
    """Return for each phenotype the areas under the curve over fields and over wells, and the calibration of fields."""
    labels = examples.labels.cpu().numpy()
    metrics: dict[str, dict[str, Any]] = {}
    areas = zip(field_auc(logits, examples), well_auc(logits, examples), strict=True)
    for index, (by_field, by_well) in enumerate(areas):
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
    """Return what stands for a training: the same pixels, first weights and settings give the same key."""
    pixels = {name: plate.digest for name, plate in plates.items()}
    start = train["start_from"] and hashlib.sha256(_start(train, fold).read_bytes()).hexdigest()
    parts = [fold, list(channels), dict(model), effective("train", train), table.to_csv(index=False), pixels, start]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _start(train: Mapping[str, Any], fold: int) -> Path:
    """Return the weights to start from: of the same fold, so that wells held out in both trainings are shared."""
    return ModelFolder(Path(train["start_from"])).fold(fold)
