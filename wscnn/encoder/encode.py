"""The stage `encode`: layers learned from all wells of a screen, without a label, for the detectors of all folds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from wscnn.core.errors import UserError
from wscnn.core.progress import log
from wscnn.encoder.pretext import learn
from wscnn.encoder.tiles import LEAST_TILE
from wscnn.network.card import Card
from wscnn.network.device import pick_device
from wscnn.network.model import WSCNN, contrast
from wscnn.network.weights import load_model, save_model
from wscnn.plates.fields import draw_in_turns, open_plates, read_fields, read_quality, shared_channels
from wscnn.plates.store import BOX, Plate

#: The architecture that is pretrained this way, and the class of pasted structures.
ARCHITECTURE, PASTED = "encoder", "pasted"
#: Side of the part of a field that is kept, in pixels: limits the memory of large fields.
_CROP = 256
#: Steps between two lines of the log.
_REPORTED = 50


def encode(
    stores: Sequence[Path],
    qcs: Sequence[Path],
    output: Path,
    *,
    screen: str,
    model: Mapping[str, Any],
    encoder: Mapping[str, Any],
) -> None:
    """Learn the layers of a network from fields of all wells, whatever their roles; write weights and card.

    Parameters
    ----------
    stores, qcs
        Staged plates and, in the same order, their tables of fields; a field with ``used`` False is left out.
    output
        The weights (safetensors); the card is written beside it. The last layer detects what was pasted (see
        `wscnn.encoder.pretext`).
    screen
        Its name, for the card.
    model, encoder
        Sections of the config. With ``encoder.start_from``, the layers of that file are used unchanged.

    Raises
    ------
    UserError
        When plates differ in channels or pixel size, no field is usable, or fields are smaller than a tile.
    """
    plates = open_plates(stores, qcs)
    channels, pixel_size_um = shared_channels(list(plates.values()), model["channels"])
    torch.manual_seed(encoder["seed"])
    network = WSCNN(ARCHITECTURE, "noisy_or", len(channels), 2)
    n_fields = 0
    if encoder["start_from"] is not None:
        _take(network, Path(encoder["start_from"]), channels)
        log(f"encoder: the layers of {encoder['start_from']} are used unchanged")
    else:
        crops = _crops(_sample(plates, qcs, encoder), plates, channels, encoder["seed"])
        n_fields = len(crops)
        log(f"encoder: learns from {n_fields} fields of {len(plates)} plates, {encoder['steps']} steps")
        network.to(pick_device(encoder["device"]))
        losses: list[float] = []
        for loss in learn(network, crops, encoder["steps"], encoder["seed"]):
            losses.append(loss)
            if len(losses) % _REPORTED == 0:
                log(f"  step {len(losses)}: loss {np.mean(losses[-_REPORTED:]):.3f}")
        if not np.isfinite(losses[-1]):
            raise UserError("encoder: the training diverged; check the table of quality for broken fields")
    card = Card(
        architecture=network.architecture,
        pool=network.pool,
        score_pool=network.score_pool,
        channels=channels,
        pixel_size_um=pixel_size_um,
        classes=["negative", PASTED],
        screen=screen,
        fold=0,
        parts={},
        thresholds={PASTED: {"field": 0.0, "place": 0.0}},
        probabilities={PASTED: {"slope": 1.0, "offset": 0.0}},
        n_fields={"encode": {"all": n_fields}},
        settings={"model": dict(model), "encoder": dict(encoder)},
    )
    save_model(output, network, card)


def load_encoder(path: Path, channels: Sequence[str] | None = None) -> tuple[WSCNN, Card]:
    """Return the pretrained network that `encode` wrote, and its card.

    Raises
    ------
    UserError
        When the file is missing or broken, is not an encoder, or was trained on other channels than `channels`.
    """
    network, card = load_model(path)
    wanted = card.channels if channels is None else list(channels)
    if not network.encoded or card.channels != wanted:
        raise UserError(
            f"{path}: is not an encoder for the channels {', '.join(wanted)}, but a network '{card.architecture}' "
            "for "
            f"{', '.join(card.channels)}; run `wscnn encode` again"
        )
    return network, card


def _take(network: WSCNN, path: Path, channels: Sequence[str]) -> None:
    """Give `network` the layers of the encoder at `path`."""
    try:
        network.load_state_dict(load_encoder(path, channels)[0].state_dict())
    except UserError as error:
        raise UserError([f"encoder.start_from: {problem}" for problem in error.problems]) from None
    except RuntimeError:
        raise UserError(
            f"encoder.start_from: {path}: holds the detectors of a training; name the file encoder.safetensors of a "
            "screen's folder model"
        ) from None


def _sample(plates: Mapping[str, Plate], qcs: Sequence[Path], encoder: Mapping[str, Any]) -> pd.DataFrame:
    """Return usable fields, ``encoder.max_fields`` at most, drawn evenly over plates and then over their wells."""
    rows = []
    for plate, path in zip(plates.values(), qcs, strict=True):
        quality = read_quality(plate, path)
        used = quality.loc[quality["used"], ["well", "field"]]
        rows.append(
            plate.all_fields()[["well", "field", *BOX]].merge(used, on=["well", "field"]).assign(plate=plate.name)
        )
    table = pd.concat(rows)
    if table.empty:
        raise UserError("no plate has a usable field; see the tables of quality in the folder qc")
    # The first field of each well before any second one, and equally many of each plate.
    drawn = draw_in_turns(table, encoder["max_fields"], [["plate", "well"], ["plate"]], encoder["seed"])
    return drawn.sort_values(["plate", "well", "field"], ignore_index=True)


def _crops(table: pd.DataFrame, plates: Mapping[str, Plate], channels: Sequence[str], seed: int) -> Tensor:
    """Return a part of each field of `table` after `contrast`, shape (n, C, y, x), float16."""
    random = np.random.default_rng(seed)
    side = (min(_CROP, int(table["height"].min())), min(_CROP, int(table["width"].min())))
    if min(side) < LEAST_TILE:
        raise UserError(
            f"fields of {side[0]} x {side[1]} px are smaller than the {LEAST_TILE} px that the encoder learns from; "
            "lower mosaic.downsample, or set model.architecture: compact"
        )
    crops = torch.empty((len(table), len(channels), *side), dtype=torch.half)
    filled = 0
    for (plate, well), rows in table.groupby(["plate", "well"]):
        images = torch.from_numpy(read_fields(plates[str(plate)], str(well), channels, rows[BOX].to_numpy()))
        if not bool(torch.isfinite(images).all()):
            raise UserError(f"plate {plate}, well {well}: holds pixels that are not numbers; exclude the well")
        for image in contrast(images):
            y, x = (int(random.integers(size - part + 1)) for size, part in zip(image.shape[1:], side, strict=True))
            crops[filled] = image[:, y : y + side[0], x : x + side[1]]
            filled += 1
    return crops
