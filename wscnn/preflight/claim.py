"""One run at a time in a results folder, and one config file per screen."""

import errno
import fcntl
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import yaml

from wscnn.core.atomic import atomic_path
from wscnn.core.errors import UserError
from wscnn.core.screen_folder import ScreenFolder


def lock(folder: Path) -> TextIO:
    """Return the open file ``.lock`` of `folder`, locked for as long as it stays open.

    The system releases the lock when the process ends, however it ends. Processes that it starts do not inherit it.

    Raises
    ------
    UserError
        When another process holds the lock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = ScreenFolder(folder).lock
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno == errno.EWOULDBLOCK:
            file.seek(0)
            holder = file.read().strip() or "a process that is just starting"
            file.close()
            raise UserError(
                f"{path}: another run is working in {folder} ({holder}); wait until it has ended, or stop it, and "
                "start again. The lock ends with that process: the file need not be deleted"
            ) from None
        # Some network file systems have no locks: then Snakemake's own lock of the working directory has to suffice.
        return file
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


def claim_problems(folder: Path, screen: str, configs: Sequence[Path]) -> list[str]:
    """Return what is wrong if the results in `folder` were made with another config file that still names `screen`.

    Parameters
    ----------
    folder
        The results folder of the screen, usually ``results/<screen>``.
    screen
        The screen's name.
    configs
        The config files of this run; no file if the config was not read from one.
    """
    record = ScreenFolder(folder).config_files
    if not configs or not record.is_file():
        return []
    others = [folder / line for line in record.read_text(encoding="utf-8").splitlines()]
    own = {path.resolve() for path in configs}
    return [
        f"{configs[0]}: its screen '{screen}' is also the screen of {other.resolve()}, which made {folder}; they would "
        "overwrite each other's results: give one of them another name under 'screen'"
        for other in others
        if other.resolve() not in own and _screen(other) == screen
    ]


def claim(folder: Path, configs: Sequence[Path]) -> None:
    """Record in `folder` which config files its results are made with, by their paths relative to it."""
    base = folder.resolve()
    text = "".join(f"{os.path.relpath(path.resolve(), base)}\n" for path in configs)
    record = ScreenFolder(folder).config_files
    if not record.is_file() or record.read_text(encoding="utf-8") != text:
        with atomic_path(record) as partial:
            partial.write_text(text, encoding="utf-8")


def _screen(config: Path) -> str | None:
    """Return the screen that a config file names, None where it cannot be read."""
    try:
        given = yaml.safe_load(config.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return given.get("screen") if isinstance(given, dict) else None
