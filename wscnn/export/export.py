"""Exports of a finished screen to the formats of other tools: checked, written whole, and never over other files."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from wscnn import __version__
from wscnn.core.atomic import atomic_path
from wscnn.core.errors import UserError
from wscnn.core.progress import log
from wscnn.core.provenance import commit, file_digest
from wscnn.export.finished import FinishedScreen, read_finished
from wscnn.export.targets import TARGETS

#: File in every exported folder that says what the folder is; only such a folder is ever overwritten.
RECORD = "export.json"


def export(results: Path, target: str, output: Path, *, overwrite: bool = False) -> None:
    """Export a finished screen to a format of another tool.

    Parameters
    ----------
    results
        The screen's results folder.
    target
        A key of `wscnn.export.targets.TARGETS`.
    output
        The file or folder to write, outside the results folder. It appears whole or not at all.
    overwrite
        Replace an earlier export at `output`.

    Raises
    ------
    UserError
        When the screen is not finished, `output` exists or lies in the results folder, or the results do not hold what
        the format needs.
    """
    chosen = TARGETS[target]
    _check_output(results, target, output, overwrite)
    screen = read_finished(results)
    write = import_module(f"wscnn.export.{chosen.module}").write
    with atomic_path(output) as partial:
        if not chosen.suffix:
            partial.mkdir()
        write(screen, partial)
        if not chosen.suffix:
            (partial / RECORD).write_text(json.dumps(_record(screen, target), indent=1) + "\n", encoding="utf-8")
    log(f"export: {output}")


def _record(screen: FinishedScreen, target: str) -> dict[str, Any]:
    """Return what an exported folder says about itself."""
    return {
        "target": target,
        "screen": screen.name,
        "version": __version__,
        "commit": commit(),
        "hits": file_digest(screen.folder.table("hits")),
    }


def _check_output(results: Path, target: str, output: Path, overwrite: bool) -> None:
    """Refuse an output that has the wrong name or would replace anything but an earlier export."""
    suffix, place = TARGETS[target].suffix, output.resolve()
    if suffix and output.suffix.lower() != suffix:
        raise UserError(f"--output {output}: --to {target} writes a file; give a name that ends in {suffix}")
    if not suffix and output.suffix.lower() in (".csv", ".parquet", ".h5ad", ".zip", ".json", ".xlsx"):
        raise UserError(f"--output {output}: --to {target} writes a folder; give a name without {output.suffix}")
    if results.exists() and (place.is_relative_to(results.resolve()) or results.resolve().is_relative_to(place)):
        raise UserError(
            f"--output {output}: holds or lies in the results folder {results}, whose files belong to the workflow; "
            "give a path outside of it"
        )
    if not output.exists():
        return
    if not overwrite:
        raise UserError(f"--output {output}: exists already; give another name, or --overwrite to replace it")
    if suffix and not output.is_file():
        raise UserError(f"--output {output}: is a folder, but --to {target} writes a file; give another name")
    if not suffix and not (output / RECORD).is_file():
        raise UserError(f"--output {output}: is not an earlier export (no {RECORD} in it); give another name")
