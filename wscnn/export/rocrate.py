"""An RO-Crate 1.1 (https://w3id.org/ro/crate/1.1): tables, report, model, config, and who made what of what."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from wscnn import __version__
from wscnn.core.errors import UserError
from wscnn.core.provenance import commit
from wscnn.core.tables import FILES
from wscnn.export.finished import FinishedScreen

# Kinds of files that a crate holds, and their media types. What is not listed (pixels, logs, locks) is left out.
_FORMATS = {
    ".parquet": "application/vnd.apache.parquet",
    ".html": "text/html",
    ".json": "application/json",
    ".md": "text/markdown",
    ".safetensors": "application/octet-stream",
    ".tsv": "text/tab-separated-values",
    ".csv": "text/csv",
    ".txt": "text/plain",
    ".yaml": "application/yaml",
}
# Folders of the results whose files belong to the crate; "" stands for the results folder itself.
_FOLDERS = ("", "run", "model", "wells", "fields", "objects", "features", "cells", "qc")
_REPOSITORY = {"@id": "#wscnn"}
_LICENCE = {"@id": "#licence"}


def write(screen: FinishedScreen, path: Path) -> None:
    """Copy the files of the results into the folder `path`, and describe them in ``ro-crate-metadata.json``."""
    files = _copied(screen, path)
    made = datetime.fromtimestamp(screen.folder.table("hits").stat().st_mtime, UTC).date().isoformat()
    called = int(screen.hits["hit"].sum())
    summary = (
        f"{called} hits of the high-content screen {screen.name}, found with wscnn {__version__}: tables, report, "
        "model and config. The images are not part of it."
    )
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"Results of the screen {screen.name}",
        "description": summary,
        "datePublished": made,
        "license": _LICENCE,
        "hasPart": [{"@id": entity["@id"]} for entity in files],
        "mentions": {"@id": "#analysis"},
    }
    graph = [
        {
            "@id": "ro-crate-metadata.json",
            "@type": "CreativeWork",
            "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
            "about": {"@id": "./"},
        },
        root,
        *files,
        {
            "@id": _LICENCE["@id"],
            "@type": "CreativeWork",
            "name": "No licence has been chosen",
            "description": "The owner of the screen has not stated under which terms these results may be used. "
            "Replace this entity by a licence, such as one with the address of a Creative Commons licence.",
        },
        *_software(),
        {
            "@id": "#analysis",
            "@type": "CreateAction",
            "name": f"Analysis of the screen {screen.name}",
            "instrument": _REPOSITORY,
            "object": [{"@id": entity["@id"]} for entity in files if entity["@id"].startswith("run/")],
            "result": [{"@id": entity["@id"]} for entity in files if "/" not in entity["@id"]],
        },
    ]
    content = {"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    (path / "ro-crate-metadata.json").write_text(text + "\n", encoding="utf-8")


def _software() -> list[dict[str, Any]]:
    licence = "https://spdx.org/licenses/MIT"
    return [
        {
            "@id": _REPOSITORY["@id"],
            "@type": "SoftwareApplication",
            "name": "wscnn",
            "description": "Finds rare cellular phenotypes in high-content screens from well-level labels alone",
            "softwareVersion": f"{__version__} {commit()}".strip(),
            "license": {"@id": licence},
        },
        {"@id": licence, "@type": "CreativeWork", "name": "MIT License", "description": "Licence of the software"},
    ]


def _copied(screen: FinishedScreen, path: Path) -> list[dict[str, Any]]:
    """Copy the files into the crate; return an entity for each, sorted by path."""
    results = screen.folder.path
    sources = {
        f"{folder}/{file.name}".lstrip("/"): file
        for folder in _FOLDERS
        for file in sorted((results / folder).glob("*"))
        if file.is_file() and file.suffix in _FORMATS and not file.name.startswith(".")
    }
    if not (models := screen.models.path).is_relative_to(results):
        # The model of another screen gave the scores.
        if not models.is_dir():
            raise UserError(f"{models}: the model that scored the screen is not there; put it back to export it")
        sources |= {f"model/{file.name}": file for file in sorted(models.glob("*")) if file.suffix in _FORMATS}
    entities = []
    for name, source in sorted(sources.items()):
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        entities.append(_entity(name, target))
    return entities


def _entity(name: str, file: Path) -> dict[str, Any]:
    return {
        "@id": quote(name),
        "@type": "File",
        "name": name,
        "description": _description(name),
        "encodingFormat": _FORMATS[file.suffix],
        "contentSize": str(file.stat().st_size),
    }


def _description(name: str) -> str:
    """Return what a file of the results is."""
    known = {
        "report.html": "The report: opens offline in a browser",
        "run/config.yaml": "The config as it was run",
        "model/README.md": "The model card: what the model is, how good it is and how to apply it",
    }
    if name in known:
        return known[name]
    folder, _, file = name.rpartition("/")
    for pattern, meaning in FILES.values():
        where, _, wanted = pattern.rpartition("/")
        stem = wanted.partition("<")[0]
        if where == folder and (
            file == wanted or ("<" in wanted and file.startswith(stem) and file.endswith(".parquet"))
        ):
            return meaning.replace("`", "")
    folders = {"run": "Input of the run, as it was read", "model": "Part of the trained model"}
    return folders.get(folder, "File of the results")
