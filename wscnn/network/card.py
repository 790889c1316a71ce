"""The card of a model: what is needed to apply it, as JSON beside its weights, verified key by key on reading.

Separate from `wscnn.network.model` and without torch, so that reports read cards quickly.
"""

import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import wscnn
from wscnn.core.errors import UserError
from wscnn.core.screen_folder import ModelFolder
from wscnn.core.wells import check_name, parse_well

#: What to do about a model whose files cannot be right.
ADVICE = "train again or copy the model folder again"
#: Roles of the parts of the control wells in fold 0; in fold k the roles are shifted by k parts.
PARTS = ("train", "select", "test")


@dataclass
class Card:
    """What is needed to apply a model.

    Attributes
    ----------
    architecture, pool, score_pool
        As in `WSCNN`.
    channels
        Names, in the order of the network's input.
    pixel_size_um
        Of the mosaics it was trained on, None where not known.
    classes
        ``negative`` and the phenotypes.
    screen, fold
        Where it was trained.
    parts
        Wells as ``plate/well``: those it was trained on (``train``), the validation wells, which chose its weights and
        thresholds (``select``), and those it never saw (``test``).
    n_fields
        For each of these parts the number of fields used of each class.
    thresholds
        For each phenotype: ``field``, the log-odds above which a field is positive, and ``place``, the detector's value
        above which a position belongs to an object. Both are chosen on the validation wells.
    probabilities
        For each phenotype ``slope`` and ``offset``, by which a field's score becomes the probability that the field is
        of a positive well (`wscnn.statistics.calibration.probability`); chosen on the validation wells.
    metrics
        On the validation (``select``) and ``test`` wells, for each phenotype: the AUCs ``field_auc`` and ``well_auc``,
        and ``calibration``, rows of `wscnn.statistics.calibration.reliability` over fields.
    settings
        The sections ``model`` and ``train`` of the config.
    version
        Version of this program.
    learned
        For each phenotype, whether the fold's detector did better than chance on wells of its training part that it was
        not fitted to; one that did not gives no scores. Empty where that was not tested.
    outlined
        Whether positions were pooled over cells found in the image, so that objects are these cells.
    recall
        For each phenotype, the share of its cells that score above the threshold ``place``, as far as that is known.
    negatives
        What negative controls of the training plates look like, as `wscnn.statistics.drift.summarise_plates` says it;
        empty where that was not measured.
    digest
        SHA-256 of the file of weights; None on cards of earlier versions.
    """

    architecture: str
    pool: str
    score_pool: str
    channels: list[str]
    pixel_size_um: float | None
    classes: list[str]
    screen: str
    fold: int
    parts: dict[str, list[str]]
    thresholds: dict[str, dict[str, float]]
    probabilities: dict[str, dict[str, float]] = field(default_factory=dict)
    n_fields: dict[str, dict[str, int]] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    learned: dict[str, bool] = field(default_factory=dict)
    outlined: bool = False
    recall: dict[str, float | None] = field(default_factory=dict)
    negatives: dict[str, list[float]] = field(default_factory=dict)
    version: str = wscnn.__version__
    digest: str | None = field(default=None, compare=False)

    @property
    def phenotypes(self) -> list[str]:
        """The classes but the negative one, in the order of the network's output."""
        return self.classes[1:]

    @property
    def hold_out(self) -> str:
        """What the folds held out as a whole: ``well``, ``plate`` or ``batch`` (``train.hold_out``)."""
        return str(self.settings.get("train", {}).get("hold_out", "well"))

    def unit(self, well: str) -> str:
        """Return what a well (``plate/well``) is held out with: itself, or its plate."""
        return well if self.hold_out == "well" else well.rpartition("/")[0]

    def holds_out(self, well: str) -> bool:
        """Return whether the fold held out a well (``plate/well``), or its whole plate, for testing."""
        return self.unit(well) in map(self.unit, self.parts.get("test", []))


def read_card(path: Path) -> Card:
    """Return the card at `path`, verified.

    Raises
    ------
    UserError
        When the file is missing or not a card, naming each key that is missing or invalid, and when the card is of
        another fold than the file's name says.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {ADVICE}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not the card of a model ({error}); {ADVICE}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not the card of a model (not a JSON object); {ADVICE}")
    missing = [one.name for one in fields(Card) if one.default is one.default_factory is MISSING]
    if missing := [name for name in missing if name not in content]:
        raise UserError(f"{path}: not the card of a model (no key {', '.join(missing)}); {ADVICE}")
    card = Card(**{one.name: content[one.name] for one in fields(Card) if one.name in content})
    _verify(card, path)
    card.metrics = _with_nan(card.metrics)
    return card


def read_cards(folder: Path) -> list[Card]:
    """Return the cards of a model folder's folds, in order; none where it holds none.

    Raises
    ------
    UserError
        As `read_card`.
    """
    return sorted(map(read_card, ModelFolder(folder).cards()), key=lambda card: card.fold)


def card_text(card: Card, path: Path) -> str:
    """Return the card as it is written to `path`: strict JSON, in which unknown figures are null.

    Raises
    ------
    UserError
        When a value is invalid.
    """
    _verify(card, path)
    content = asdict(card)
    return json.dumps(content | {"metrics": _with_null(content["metrics"])}, indent=1, allow_nan=False) + "\n"


def _verify(card: Card, path: Path) -> None:
    """Raise a UserError that names file and key of every invalid value of a card."""
    problems = [problem for one in fields(Card) for problem in _wrong(getattr(card, one.name), one.type, one.name)]
    # Values can be compared only once all have the right types.
    if problems := problems or list(_inconsistent(card)):
        raise UserError([f"{path}: {problem}; {ADVICE}" for problem in problems])
    if path.stem.startswith("fold-") and path.stem != ModelFolder(path.parent).card(card.fold).stem:
        raise UserError(f"{path}: fold: {card.fold} under the name of another fold; {ADVICE}")


def _wrong(value: object, kind: Any, key: str) -> Iterator[str]:
    """Yield where `value` is not of the type `kind`; numbers have to be finite."""
    origin, inside = get_origin(kind), get_args(kind)
    if kind is Any or (value is None and type(None) in inside):
        return
    if origin is UnionType:
        yield from _wrong(value, inside[0], key)
    elif origin is list and type(value) is list:
        for i, item in enumerate(value):
            yield from _wrong(item, inside[0], f"{key}[{i}]")
    elif origin is dict and type(value) is dict:
        for name, item in value.items():
            yield from _wrong(item, inside[1], f"{key}.{name}")
    elif kind is float and type(value) in (int, float):
        # Not `isfinite`, which fails on whole numbers of hundreds of digits.
        if not abs(value) <= sys.float_info.max:  # type: ignore[arg-type]
            yield f"{key}: {value} is not a finite number"
    elif type(value) is not (origin or kind):
        yield f"{key}: {repr(value)[:60]} is not a {_WORDS[origin or kind]}"


_WORDS = {str: "text", bool: "true or false", int: "whole number", float: "number", list: "list", dict: "mapping"}


def _inconsistent(card: Card) -> Iterator[str]:
    """Yield the inconsistencies of a card whose values all have the right types."""
    if card.pixel_size_um is not None and card.pixel_size_um <= 0:
        yield f"pixel_size_um: {card.pixel_size_um} is not above 0"
    if not 0 <= card.fold < 128:
        yield f"fold: {card.fold} is not from 0 to 127"
    if card.digest is not None and not re.fullmatch("[0-9a-f]{64}", card.digest):
        yield "digest: not a SHA-256"
    if not card.channels or len(set(card.channels)) < len(card.channels):
        yield "channels: none, or one twice"
    if len(card.classes) < 2 or card.classes[0] != "negative" or len(set(card.classes)) < len(card.classes):
        yield "classes: these have to be negative and at least one phenotype, each once"
    for name in card.classes:
        try:
            check_name(name)
        except ValueError as error:
            yield f"classes: {error}"
    for key, entries in (("thresholds", ("field", "place")), ("probabilities", ("slope", "offset"))):
        values = getattr(card, key)
        # Cards of the first versions hold no probabilities.
        wanted = set(card.phenotypes) if values or key == "thresholds" else set()
        if set(values) != wanted:
            yield f"{key}: of {', '.join(values) or 'no phenotype'}, not of {', '.join(sorted(wanted))}"
        for phenotype, numbers in values.items():
            if set(numbers) != set(entries):
                yield f"{key}.{phenotype}: has to hold {' and '.join(entries)}"
    for key in ("learned", "recall"):
        if (values := getattr(card, key)) and set(values) != set(card.phenotypes):
            yield f"{key}: of {', '.join(values)}, not of {', '.join(card.phenotypes)}"
    if card.negatives:
        lengths = [len(card.negatives.get(name, [])) for name in ("mean", "between", "within", "plates")]
        if len(set(lengths[:3])) > 1 or lengths[3] != 1 or card.negatives["plates"][0] < 1:
            yield "negatives: mean, between and within have to be equally long, and plates a number of 1 or more"
    if unknown := [part for part in card.parts if part not in PARTS]:
        yield f"parts.{unknown[0]}: no such part; there are {', '.join(PARTS)}"
    wells = [well for part in card.parts.values() for well in part]
    if len(set(wells)) < len(wells):
        twice = next(well for well in wells if wells.count(well) > 1)
        yield f"parts: well {twice} is listed twice, but each well has one part"
    for well in wells:
        plate, _, name = well.rpartition("/")
        try:
            check_name(plate)
            parse_well(name)
        except ValueError as error:
            yield f"parts: '{well}' is not plate/well ({error})"
            break


def _with_null(value: Any) -> Any:
    """Return figures with null for unknown ones (NaN), as strict JSON requires."""
    if isinstance(value, dict):
        return {key: _with_null(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_null(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _with_nan(value: Any) -> Any:
    """Return the figures that `_with_null` was given."""
    if isinstance(value, dict):
        return {key: _with_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_nan(item) for item in value]
    return math.nan if value is None else value


def folds_of(well: str, cards: Sequence[Card]) -> list[int]:
    """Return which folds, as indices into `cards`, may score a well named ``plate/well``.

    Those that held it out for testing where it has any part in a model, else all. Where whole plates or batches were
    held out, all wells of a plate have the part of its control wells: samples and controls of a plate are scored by the
    same network, which has not seen the plate.
    """
    unit = cards[0].unit(well)
    known = any(unit in map(card.unit, wells) for card in cards for wells in card.parts.values())
    return [k for k, card in enumerate(cards) if not known or card.holds_out(well)]
