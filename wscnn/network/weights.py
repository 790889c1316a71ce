"""Model files: weights as safetensors, with the card in JSON beside them; loading runs no code."""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save

from wscnn.core.atomic import atomic_path
from wscnn.core.errors import UserError
from wscnn.core.progress import log
from wscnn.core.screen_folder import ModelFolder
from wscnn.network.card import ADVICE, Card, card_text, read_card, read_cards
from wscnn.network.model import WSCNN
from wscnn.plates.fields import same_pixel_size
from wscnn.staging.regions import nuclear_channel


def check_fits(card: Card, channels: Sequence[str], pixel_size_um: float | None, where: str = "the plate") -> None:
    """Raise a UserError when a model does not fit the images that it is to be applied to.

    Parameters
    ----------
    card
        The model's card.
    channels
        Names of the available channels; more than the model needs are allowed.
    pixel_size_um
        Of the mosaics; where it or the card's is not known, it is not compared.
    where
        What the channels and pixel size belong to, for the message.
    """
    problems = []
    missing = [name for name in card.channels if name not in channels]
    if missing:
        problems.append(
            f"{where}: has no channel {', '.join(missing)}; the model was trained on {', '.join(card.channels)} and "
            f"the plate has {', '.join(channels)}; name them alike in acquisition.channels"
        )
    if not same_pixel_size(pixel_size_um, card.pixel_size_um):
        problems.append(
            f"{where}: a mosaic pixel is {pixel_size_um:g} um, but the model was trained at {card.pixel_size_um:g} um; "
            "change mosaic.downsample"
        )
    if problems:
        raise UserError(problems)


def save_model(path: Path, model: WSCNN, card: Card) -> None:
    """Write the weights to `path` (safetensors) and the card with their digest beside it (JSON), each atomically.

    Raises
    ------
    UserError
        When a value of the card is invalid, such as the thresholds of a training that failed.
    """
    weights = save({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})
    card_path = path.with_suffix(".json")
    text = card_text(replace(card, digest=sha256(weights).hexdigest()), card_path)
    # The two renames follow each other directly, so that the card is beside other weights only for a moment.
    with atomic_path(path) as partial:
        partial.write_bytes(weights)
        with atomic_path(card_path) as partial_card:
            partial_card.write_text(text)


def load_model(path: Path) -> tuple[WSCNN, Card]:
    """Return the model at `path`, ready to score, and its card.

    Raises
    ------
    UserError
        When a file is missing or broken, or the weights are not those that the card describes.
    """
    path = Path(path)
    card = read_card(path.with_suffix(".json"))
    try:
        model = WSCNN(card.architecture, card.pool, len(card.channels), len(card.classes), card.score_pool)
    except UserError as error:
        raise UserError(f"{path.with_suffix('.json')}: {error}") from None
    try:
        weights = path.read_bytes()
        if card.digest is not None and sha256(weights).hexdigest() != card.digest:
            raise UserError(f"{path}: not the weights that {path.stem}.json describes (their digest differs); {ADVICE}")
        model.load_state_dict(load(weights))
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not the weights of this model ({reason}); {ADVICE}") from None
    if card.digest is None:
        log(f"warning: {path}: the card was written by an earlier version, without a digest; weights are not verified")
    model.nuclear = nuclear_channel(card.channels)
    return model.eval(), card


def load_folds(folder: Path) -> list[tuple[WSCNN, Card]]:
    """Return all folds' models of a model folder, sorted by fold.

    Raises
    ------
    UserError
        When there is none, a file is missing or broken, or the folds are not of one training.
    """
    folds = [load_model(path) for path in ModelFolder(Path(folder)).folds()]
    if not folds:
        raise UserError(f"{folder}: holds no model (fold-*.safetensors); train first, or correct model.checkpoint")
    known = {card.fold for _, card in folds}
    for card in read_cards(folder):
        if card.fold not in known:
            log(f"warning: {ModelFolder(folder).card(card.fold)}: the weights of this fold are missing; it is not used")
    first = folds[0][1]
    for _, card in folds[1:]:
        keys = ("architecture", "pool", "score_pool", "channels", "classes", "screen")
        other = [key for key in keys if getattr(card, key) != getattr(first, key)]
        if not same_pixel_size(card.pixel_size_um, first.pixel_size_um):
            other.append("pixel_size_um")
        if other:
            raise UserError(
                f"{folder}: fold-{card.fold}.json and fold-{first.fold}.json differ in {', '.join(other)}; keep the "
                "folds of one training"
            )
    return sorted(folds, key=lambda fold: fold[1].fold)
