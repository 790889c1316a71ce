"""The network that a training starts from: fresh, or with the layers of another model or of an encoder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wscnn.core.errors import UserError
from wscnn.core.screen_folder import ModelFolder
from wscnn.encoder.encode import load_encoder
from wscnn.network.architectures import ARCHITECTURES
from wscnn.network.model import NOISY_OR, WSCNN
from wscnn.network.weights import load_model
from wscnn.training.recipe import recipe_of


def start_network(
    model: Mapping[str, Any], train: Mapping[str, Any], n_channels: int, classes: Sequence[str], fold: int
) -> tuple[WSCNN, bool]:
    """Return the network to train, and whether all of it comes from the same fold of ``train.start_from``.

    Parameters
    ----------
    model, train
        Sections of the config.
    n_channels, classes
        The network's input channels and classes. The last layer of another model is taken over only where classes and
        pool are the same.
    fold
        0, 1 or 2.

    Raises
    ------
    UserError
        When settings of these sections are inconsistent, or the earlier model is missing, broken or does not fit.
    """
    encoded = model["architecture"] in ARCHITECTURES and ARCHITECTURES[model["architecture"]].encoded
    score_pool = model["score_pool"]
    if score_pool is None:
        # The share of positive cells, or the highest positions, separate wells better than noisy-or does; the other
        # pools score as they were trained.
        score_pool = "same" if model["pool"] not in NOISY_OR else "share" if encoded else "topk"
    network = WSCNN(model["architecture"], model["pool"], n_channels, len(classes), score_pool)
    problems = _idle(network, model, train)
    if not network.encoded and (crop := recipe_of(train)["crop"]) < network.smallest:
        problems.append(
            f"train.crop: {crop} px is too small for the network '{network.architecture}', which needs "
            f"{network.smallest}; raise it"
        )
    batch, gpus = recipe_of(train)["batch"], train["gpus"]
    if gpus > 1 and 2 * gpus > batch:
        problems.append(
            f"train.gpus: {gpus} cannot share a batch of {batch} images, two each at least; lower it or raise "
            "train.batch"
        )
    if score_pool == "share" and not encoded:
        problems.append(
            f"model.score_pool: share counts cells, which architecture '{network.architecture}' does not judge; choose "
            "another pool or the architecture encoder"
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
            whole = _load_pretrained(network, start_weights(train, fold), classes)
        except UserError as error:
            problems += [f"train.start_from: {problem}" for problem in error.problems]
    if problems:
        raise UserError(problems)
    return network, whole


#: Keys of the section `train` about the training of layers, which the layers of an encoder do not use.
_OF_LAYERS = ("batch", "crop", "tiles", "patience", "start_from")


def _idle(network: WSCNN, model: Mapping[str, Any], train: Mapping[str, Any]) -> list[str]:
    """Return which settings do not apply to an encoded network."""
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
    """Load the layers of the model at `source` into `network`; return whether also the last one was loaded."""
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


def take_encoder(network: WSCNN, source: Path | None, channels: Sequence[str]) -> dict[str, Any]:
    """Load the layers of the encoder at `source` into `network`; return the settings with which it was trained."""
    if source is None:
        raise UserError(
            f"model.architecture: '{network.architecture}' needs an encoder; run `wscnn encode` first and pass its "
            "output as --encoder"
        )
    encoder, card = load_encoder(source, channels)
    network.blocks.load_state_dict(encoder.blocks.state_dict())
    return card.settings["encoder"]


def start_weights(train: Mapping[str, Any], fold: int) -> Path:
    """Return the weights to start from: of the same fold, so that wells held out in both trainings are shared."""
    return ModelFolder(Path(train["start_from"])).fold(fold)
