"""What every instrument's reader does."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wscnn.acquisitions.tiff import read_tiff
from wscnn.errors import UserError

#: Field, z plane or time point of an instrument that does not number them.
ONLY = 1


class Acquisition(ABC):
    """The images of one folder, as an instrument left them.

    Parameters
    ----------
    folder
        The plate's images.
    settings
        The config's section ``acquisition``, complete with defaults.
    """

    #: Whether a file may hold several images, each listed in the index with its page.
    pages = False

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings = settings
        #: Channels that the instrument has and the config does not list, met so far.
        self.unlisted: set[str] = set()

    @classmethod
    @abstractmethod
    def recognises(cls, folder: Path) -> bool:
        """Return whether the folder looks like an export of this instrument."""

    @abstractmethod
    def files(self, plate: str) -> pd.DataFrame:
        """Return a row for every image of `plate`, without opening any (columns `wscnn.tables.INDEX`).

        Only channels that the config lists, under the names given there; every z plane and time point found;
        `path` begins with `folder`. Stage positions are those of the field's centre in micrometres, y downwards;
        they and the pixel size are NaN where only the images know them.

        Raises
        ------
        UserError
            When the folder or its metadata cannot be read.
        """

    def index(self, plate: str, excluded: Collection[str] = ()) -> pd.DataFrame:
        """Return `files` with what only the headers of the images tell, without the excluded wells."""
        table = self.files(plate)
        return self.headers(table[~table["well"].isin(excluded)].reset_index(drop=True))

    def headers(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return an index with what only the headers of its images tell."""
        return table

    def read(self, path: Path, page: int) -> np.ndarray:
        """Return one image (y, x) in its own dtype."""
        return read_tiff(path, page if self.pages else None)

    def flatfield(self, channel: str) -> np.ndarray | None:
        """Return the instrument's own gain map (y, x; mean 1) of a channel, or None where it gives none."""
        return None

    def channel(self, *keys: str) -> str | None:
        """Return the config's name for a channel that the instrument calls by any of `keys`, None where unlisted."""
        named: dict[str, str] = self.settings["channels"]
        for key in keys:
            for spelling in (key, key.lstrip("0")):
                if spelling in named:
                    return named[spelling]
        self.unlisted.add(keys[0])
        return None


def walk(folder: Path) -> Iterator[str]:
    """Yield the paths of all files below `folder`, relative to it with ``/`` between parts, sorted within each folder.

    Hidden files and folders are left out. A linked folder is entered, but none is entered from within itself.

    Raises
    ------
    UserError
        When a folder is missing or may not be read.
    """
    # Folders still to enter, each with those that it lies in.
    stack: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", ())]
    while stack:
        inside, above = stack.pop()
        here = folder / inside
        try:
            status = here.stat()
            with os.scandir(here) as entries:
                found = sorted((entry.name, entry_is(entry.is_dir), entry_is(entry.is_file)) for entry in entries)
        except OSError as error:
            raise UserError(f"{here}: cannot be read ({error.strerror}); check the path and its permissions") from None
        this = (status.st_dev, status.st_ino)
        if this in above:
            continue
        visible = [entry for entry in found if not entry[0].startswith(".")]
        yield from (inside + name for name, _, is_file in visible if is_file)
        stack += [(f"{inside}{name}/", (*above, this)) for name, is_folder, _ in reversed(visible) if is_folder]


def entry_is(kind: Callable[[], bool]) -> bool:
    """Return what an entry of a folder is; a link to itself or to where one may not look is nothing."""
    try:
        return kind()
    except OSError:
        return False


def present(table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Return the rows of an index whose files are in `folder`, for metadata list what was planned."""
    try:
        names = set(os.listdir(folder))  # noqa: PTH208 - names alone, for many files
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from None
    there = np.array([os.path.basename(path) in names for path in table["path"]], dtype=bool)  # noqa: PTH119
    return table[there].reset_index(drop=True)
