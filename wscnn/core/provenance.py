"""Where results come from: digests of settings and inputs, the run's own copies of them, and which version made what.

Digests are part of the tables. Version and commit are not: they are stored beside the results, so that a new version by
itself changes no table and reruns nothing.
"""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from wscnn import __version__
from wscnn.core.atomic import atomic_path
from wscnn.core.config import effective
from wscnn.core.errors import UserError
from wscnn.core.screen_folder import ModelFolder, ScreenFolder
from wscnn.core.tables import read_notes


def _outputs(screen: ScreenFolder) -> dict[str, Path]:
    """Return the table, or model file, of each stage in the order of the data; ``*`` stands for the plate or fold."""
    return {
        "check": screen.table("layout"),
        "index": screen.index("*"),
        "stage": screen.quality("*"),
        "encode": screen.model.encoder,
        "novelty": screen.model.novelty,
        "train": screen.model.history("*"),
        "score": screen.well_scores("*"),
        "drift": screen.table("drift"),
        "hits": screen.table("hits"),
        "measure": screen.cells("*"),
        "baseline": screen.table("baseline"),
        "report": screen.report,
    }


def settings_digest(name: str, settings: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the config's section `name`, without the keys that cannot change results."""
    content = effective(name, settings)
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fold_digest(weights: Path) -> str:
    """Return the SHA-256 of a fold of a model: its weights and its card, but for the version that trained it."""
    card = json.loads(weights.with_suffix(".json").read_bytes())
    content = {key: value for key, value in card.items() if key != "version"}
    return hashlib.sha256((file_digest(weights) + json.dumps(content, sort_keys=True)).encode()).hexdigest()


def made_from(settings: Mapping[str, Mapping[str, Any]], inputs: Iterable[tuple[str, Path]]) -> dict[str, Any]:
    """Return the notes of a table that say what it was made from, by content.

    Parameters
    ----------
    settings
        The sections of the config that it depends on, by name.
    inputs
        Name and path of each file that it depends on. The name is that of the file in a results folder, without its
        ending, such as ``qc/plate1``; paths are not part of the notes.

    Returns
    -------
    notes
        ``settings`` and ``inputs``: a digest for each name.
    """
    digests: dict[str, str] = {}
    for name, path in inputs:
        # Tables of a user may share a name in different folders.
        n = sum(known == name or known.startswith(f"{name} (") for known in digests)
        digests[f"{name} ({n + 1})" if n else name] = _digest(path)
    return {"settings": {name: settings_digest(name, values) for name, values in settings.items()}, "inputs": digests}


def _digest(path: Path) -> str:
    # Of a file that holds its own card, the bytes say all.
    return fold_digest(path) if path.suffix == ".safetensors" and path.stem != "novelty" else file_digest(path)


def folds_in(models: Path) -> list[tuple[str, Path]]:
    """Return name and path of each fold of a model folder, as `made_from` takes them."""
    return [(f"model/{path.stem}", path) for path in ModelFolder(models).folds()]


def keep_run(config: Mapping[str, Any], results: Path) -> None:
    """Keep config, plates and layout as they are run in ``run/`` of a results folder.

    Parameters
    ----------
    config
        Complete.
    results
        The screen's results folder.
    """
    run = ScreenFolder(results).run
    _write(ScreenFolder(results).config, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True).encode())
    for name in ("plates", "layout"):
        source = Path(config[name])
        _write(run / f"{name}{source.suffix}", source.read_bytes())
        for old in run.glob(f"{name}.*"):
            if old.suffix != source.suffix:
                old.unlink()


def note_version(results: Path, stage: str, of: str, output: Path) -> None:
    """Note which version and commit of this program made an output; nothing is noted where no run is kept.

    Parameters
    ----------
    results
        The results folder, as a run of the workflow keeps it (see `keep_run`).
    stage, of
        The stage, and the plate or fold, else empty.
    output
        The file that it made; its digest shows later whether it is still that file.
    """
    screen = ScreenFolder(results)
    if not screen.config.is_file():
        return
    note = {"version": __version__, "commit": commit(), "digest": _digest(output)}
    _write(screen.made_by(stage, of), (json.dumps(note, indent=1) + "\n").encode())


@cache
def commit() -> str:
    """Return the commit of the checkout that this program runs from, with ``-dirty`` where files differ from it.

    Empty where it was installed without its repository's history.
    """
    root = Path(__file__).parents[2]
    if not (root / ".git").exists() or shutil.which("git") is None:
        return ""
    describe = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(describe, cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def read_provenance(results: Path) -> dict[str, Any]:
    """Return where the tables of a results folder come from.

    Returns
    -------
    provenance
        ``run``: digests of ``config``, ``plates`` and ``layout`` as they were run. ``outputs``: a table with one row
        per stage and plate or fold: ``stage, of, version, commit`` (empty where not known) and ``state``: ``ok``, or
        what has changed since.

    Raises
    ------
    UserError
        When the folder keeps no run, or a file in it is damaged.
    """
    screen = ScreenFolder(results)
    run = screen.run
    try:
        config = yaml.safe_load(screen.config.read_bytes())
        models = ModelFolder(Path(config["model"]["checkpoint"] or screen.model.path))
    except FileNotFoundError:
        raise UserError(f"{run}: no run is kept here; give the results folder of a screen that snakemake ran") from None
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{screen.config}: not the config of a run ({error!r}); start snakemake again") from None
    digest_of = cache(_digest)
    settings = {name: settings_digest(name, values) for name, values in config.items() if isinstance(values, dict)}
    rows = []
    for stage, pattern in _outputs(screen).items():
        for output in sorted(pattern.parent.glob(pattern.name)):
            of = output.stem.removeprefix("history-") if "*" in pattern.name else ""
            note = _read_note(screen.made_by(stage, of))
            changed = _changed(output, screen, models, settings, digest_of) if output.suffix == ".parquet" else []
            if note and note["digest"] != digest_of(output):
                note = None
                changed.append("was replaced since it was made")
            made = {key: note[key] if note else "" for key in ("version", "commit")}
            rows.append({"stage": stage, "of": of, **made, "state": "; ".join(changed) or "ok"})
    kept = {path.stem: file_digest(path) for path in sorted(run.iterdir()) if path.is_file()}
    return {"run": kept, "outputs": pd.DataFrame(rows, columns=["stage", "of", "version", "commit", "state"])}


def _changed(
    output: Path, screen: ScreenFolder, models: ModelFolder, settings: Mapping[str, str], digest_of: Any
) -> list[str]:
    """Return which settings and inputs of a table are no longer those that it was made from."""
    notes = read_notes(output)
    if "inputs" not in notes:
        return ["does not say what it was made from"]
    differ = [
        f"{name} in the config has changed" for name, was in notes["settings"].items() if settings.get(name) != was
    ]
    for name, was in notes["inputs"].items():
        found = _find(name, screen, models)
        if found is None:
            differ.append(f"{name} is gone")
        elif digest_of(found) != was:
            differ.append(f"{name} has changed")
    return differ


def _find(name: str, screen: ScreenFolder, models: ModelFolder) -> Path | None:
    """Return the file that an input's name stands for, None where it is gone."""
    kind, _, file = name.rpartition("/")
    if kind == "run":  # the user's tables have the endings that the user gave them
        return next(screen.path.glob(f"{name}.*"), None)
    path = models.path / f"{file}.safetensors" if kind == "model" else screen.table(name)
    return path if path.is_file() else None


def _read_note(path: Path) -> dict[str, str] | None:
    try:
        note = json.loads(path.read_bytes())
        return {key: str(note[key]) for key in ("version", "commit", "digest")}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: does not say which version made what ({error!r}); delete it") from None


def _write(path: Path, content: bytes) -> None:
    """Write a file atomically, unless it holds this content already."""
    if path.is_file() and path.read_bytes() == content:
        return
    with atomic_path(path) as partial:
        partial.write_bytes(content)
