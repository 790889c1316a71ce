"""The model card: what a trained model is, how good it is and how to apply it, in readable form."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from wscnn.core.atomic import atomic_path
from wscnn.core.errors import UserError
from wscnn.core.progress import log
from wscnn.network.card import Card, read_cards
from wscnn.statistics.cautions import of_models

#: Most plates that are named; for others the number is given.
_NAMED_PLATES = 12


def write_model_card(models: Path, output: Path) -> None:
    """Write the model card of a model folder, made from the cards of its folds.

    Parameters
    ----------
    models
        Folder with ``fold-<k>.json``, as training writes them.
    output
        The Markdown file, usually ``README.md`` in that folder.

    Raises
    ------
    UserError
        When no fold has a card, or one cannot be read or lacks a key.
    """
    cards = read_cards(models)
    if not cards:
        raise UserError(f"{models}: holds no card of a fold (fold-*.json); train first")
    loader = jinja2.PackageLoader("wscnn.reporting")
    # Markdown, so nothing is escaped: names are between backquotes, which they cannot contain.
    environment = jinja2.Environment(
        loader=loader,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    try:
        text = environment.get_template("model_card.md.j2").render(_content(cards))
    except (KeyError, TypeError, jinja2.UndefinedError) as error:
        raise UserError(f"{models}: a fold's card is incomplete ({error!r}); train again") from None
    with atomic_path(output) as partial:
        partial.write_text(text, encoding="utf-8")
    log(f"card: {output}")


def _content(cards: Sequence[Card]) -> dict[str, Any]:
    """Return what the template shows of the folds' cards."""
    wells = sorted({well for card in cards for part in card.parts.values() for well in part})
    plates = sorted({well.rpartition("/")[0] for well in wells})
    phenotypes = cards[0].phenotypes
    return {
        "card": cards[0],
        "cards": cards,
        "phenotypes": phenotypes,
        "plates": plates,
        "named_plates": plates[:_NAMED_PLATES],
        "n_wells": len(wells),
        "calibration": {phenotype: _calibration(cards, phenotype) for phenotype in phenotypes},
        "warnings": [caution.message for caution in of_models(cards)],
        "settings": json.dumps(cards[0].settings, indent=1, sort_keys=True, allow_nan=False),
        "auc": _auc,
        "mean": lambda phenotype, part, name: _mean([card.metrics[part][phenotype][name] for card in cards]),
    }


def _calibration(cards: Sequence[Card], phenotype: str) -> dict[str, Any]:
    """Return the reliability diagram over all folds' held-out fields, group by group, and its mean error."""
    groups = pd.concat(
        pd.DataFrame(card.metrics["test"][phenotype]["calibration"]).reset_index(names="group") for card in cards
    )
    weighted = groups[["predicted", "observed"]].mul(groups["n"], axis=0).assign(group=groups["group"], n=groups["n"])
    table = weighted.groupby("group").sum()
    table[["predicted", "observed"]] = table[["predicted", "observed"]].div(table["n"], axis=0)
    error = ((groups["predicted"] - groups["observed"]).abs() * groups["n"]).sum() / groups["n"].sum()
    return {"rows": table.reset_index().to_dict("records"), "error": float(error), "n": int(groups["n"].sum())}


def _mean(values: Sequence[float]) -> str:
    known = [value for value in values if math.isfinite(value)]
    return _auc(sum(known) / len(known)) if known else _auc(math.nan)


def _auc(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "not known"
