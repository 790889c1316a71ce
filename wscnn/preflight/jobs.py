"""Cost of each job of a screen: time, memory and rate, from Snakemake's benchmarks and from the stages' output."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from wscnn.core.errors import UserError
from wscnn.core.screen_folder import ScreenFolder
from wscnn.core.tables import read_table

#: The stages that are jobs, in the order of the data, and the unit that each one's rate counts.
UNITS = {
    "index": "images",
    "stage": "MB",
    "encode": "tiles",
    "novelty": "cells",
    "train": "images",
    "score": "fields",
    "hits": "wells",
    "report": "wells",
}

_NAME = re.compile(rf"({'|'.join(UNITS)})(?:-(?:fold-)?(.+))?")


def read_jobs(results: Path) -> pd.DataFrame:
    """Return one row per finished job of a screen, in the order of the data.

    Columns are ``stage``; ``of`` (the plate or fold, else empty); ``seconds`` of wall-clock time and ``core_seconds``
    of all its cores together; ``peak_mb``, the highest resident memory; ``amount`` of work in ``unit`` and ``rate``,
    the amount per second of wall-clock time. Work is, by stage: images indexed; MB (10^6 bytes) of raw pixels staged;
    tiles drawn for the encoder; cells of negative controls kept for comparison; images drawn for training, or control
    fields where detectors are fitted; fields
    scored; wells and phenotypes called, and reported. What was not measured (of jobs of less than half a second) is
    missing.

    Raises
    ------
    UserError
        When the folder holds no benchmarks, or a file of them or of the results is broken.
    """
    screen = ScreenFolder(results)
    folder = screen.benchmarks
    rows = []
    for path in sorted(folder.glob("*.tsv")):
        match = _NAME.fullmatch(path.stem)
        if match:
            stage, of = match[1], match[2] or ""
            rows.append({"stage": stage, "of": of, **_times(path), "amount": _amount(screen, stage, of)})
    if not rows:
        raise UserError(f"{folder}: holds no job's benchmark; give the results folder of a screen that snakemake ran")
    table = pd.DataFrame(rows)
    table["unit"] = table["stage"].map(UNITS)
    table["rate"] = table["amount"] / table["seconds"]
    return table.sort_values("stage", key=lambda names: names.map(list(UNITS).index), kind="stable", ignore_index=True)


#: Columns of Snakemake's benchmark files, and what they are called here.
_COLUMNS = {"s": "seconds", "cpu_time": "core_seconds", "max_rss": "peak_mb"}


def _times(path: Path) -> dict[str, float]:
    """Return the times and memory in one of Snakemake's benchmark files."""
    try:
        with path.open(newline="") as file:
            row = next(csv.DictReader(file, delimiter="\t"))
        found = {name: pd.to_numeric(row[key], errors="coerce") for key, name in _COLUMNS.items()}
    except (OSError, StopIteration, KeyError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: not a benchmark of snakemake ({error!r}); delete it") from None
    return {name: float(value) for name, value in found.items()}


def _amount(screen: ScreenFolder, stage: str, of: str) -> float:
    """Return how much work a job did, in the unit of its stage."""
    match stage:
        case "index":
            return len(read_table(screen.index(of)))
        case "stage":
            return manifest(screen.manifest(of))["bytes"] / 1e6
        case "score":
            return manifest(screen.manifest(of))["fields"]
        case "encode":
            from wscnn.encoder.tiles import BATCH
            from wscnn.network.card import read_card

            return read_card(screen.model.encoder_card).settings["encoder"]["steps"] * BATCH
        case "novelty":
            from wscnn.discovery.novelty import load_novelty

            return sum(load_novelty(screen.model.novelty).n_cells)
        case "train":
            # torch takes seconds to import and is needed only here.
            from wscnn.network.weights import load_model
            from wscnn.training.recipe import recipe_of

            network, card = load_model(screen.fold(of))
            if network.encoded:
                return sum(sum(card.n_fields[part].values()) for part in card.n_fields)
            history = read_table(screen.model.history(of))
            return int(history["step"].max()) * recipe_of(card.settings["train"])["batch"]
        case _:
            return len(read_table(screen.table("wells")))


def manifest(path: Path) -> dict[str, Any]:
    """Return what `stage` recorded of a plate: ``plate, wells, channels, fields, images, bytes``."""
    try:
        done = json.loads(path.read_text())
        return {key: done[key] for key in ("plate", "wells", "channels", "fields", "images", "bytes")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the manifest of a staged plate ({error!r}); stage the plate again") from None
