"""What the readers of all instruments share."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wscnn.acquisitions.tiff import inspect_tiff, read_tiff
from wscnn.core.errors import UserError

#: Field, z plane or time point of an instrument that does not number them.
ONLY = 1


class Acquisition(ABC):
    """The images of one folder, as an instrument exported them.

    Parameters
    ----------
    folder
        The plate's images.
    settings
        The config's section ``acquisition``, complete with defaults.
    """

    #: Whether a file may hold several images, each listed in the index with its page.
    pages = False
    #: Whether `headers` adds the positions of fields that `files` cannot give.
    positions_in_headers = False
    #: The number of the plane that is a projection of the others, where the instrument makes one.
    projection: int | None = None

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self.settings = settings
        #: Channels found so far that the config does not list, each with all its names.
        self.unlisted: dict[str, tuple[str, ...]] = {}

    @classmethod
    @abstractmethod
    def recognises(cls, folder: Path) -> bool:
        """Return whether the folder looks like an export of this instrument."""

    @abstractmethod
    def files(self, plate: str, excluded: Collection[str] = ()) -> pd.DataFrame:
        """Return one row per image of `plate`, without opening any (columns `wscnn.core.tables.INDEX`).

        Only channels that the config lists, under the names given there; every z plane and time point found;
        `path` begins with `folder`. Stage positions are those of the field's centre in micrometres, y downwards;
        they and the pixel size are NaN where only the images' headers hold them. Excluded wells, whose files may be
        missing or broken, are not checked; they may still be listed.

        Raises
        ------
        UserError
            When the folder or its metadata cannot be read.
        """

    def index(self, plate: str, excluded: Collection[str] = ()) -> pd.DataFrame:
        """Return `files` completed from the headers of the images, without the excluded wells."""
        table = self.files(plate, excluded)
        return self.headers(table[~table["well"].isin(excluded)].reset_index(drop=True))

    def headers(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return an index completed from the headers of its images."""
        return table

    def inspect(self, path: Path, page: int) -> tuple[tuple[int, ...], np.dtype]:
        """Return shape (y, x) and type of an image from its header; raise what `read` would raise for that header."""
        return inspect_tiff(path, page if self.pages else None)

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
            if key in named:
                return named[key]
            if key.isdecimal() and int(key) in self._numbered_channels:
                return self._numbered_channels[int(key)]
        self.unlisted[keys[0]] = keys
        return None

    @cached_property
    def _numbered_channels(self) -> dict[int, str]:
        """The config's names of the channels that are numbers."""
        return {int(key): name for key, name in self.settings["channels"].items() if key.isdecimal()}


def walk(folder: Path) -> Iterator[str]:
    """Yield the paths of all files below `folder`, relative to it with ``/`` between parts, sorted within each folder.

    Hidden files and folders are left out. Linked folders are followed, but not into a folder that contains the link.

    Raises
    ------
    UserError
        When a folder is missing or may not be read.
    """
    # Folders still to enter, each with its parents.
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
    """Return whether an entry of a folder is of a kind; False for links that are circular or may not be followed."""
    try:
        return kind()
    except OSError:
        return False


def without(table: pd.DataFrame, excluded: Collection[str]) -> pd.DataFrame:
    """Return the rows of an index whose wells are not excluded."""
    return table[~table["well"].isin(excluded)].reset_index(drop=True)


def present(table: pd.DataFrame, listing: Path, z: str | int) -> pd.DataFrame:
    """Return the rows of an index whose files exist; metadata also list planned images that were not acquired.

    Parameters
    ----------
    table
        One row per listed image; `path` lies beside `listing`.
    listing
        The file that lists the images. Where none of them lies beside it, they are looked for in the folder right
        below that holds them.
    z
        The planes that are staged, as in the config's section ``acquisition``.

    Raises
    ------
    UserError
        When no listed file exists, several folders below hold some, or a stack that is projected lacks planes.
    """
    if table.empty:
        return table
    names = table["path"].map(os.path.basename)
    folder = _folder_of(set(names), listing)
    table = table.assign(path=f"{folder}/" + names)
    there = names.isin(os.listdir(folder))  # noqa: PTH208 - names alone, for many files
    if z == "max":
        stack = ["well", "field", "channel", "time"]
        begun = there.groupby([table[key] for key in stack]).transform("any")
        if (cut := begun & ~there).any():
            first = table[cut].iloc[0]
            raise UserError(
                f"{first['path']}: this plane of well {first['well']}, field {first['field']}, channel "
                f"{first['channel']} is listed in {listing} and does not exist ({int(cut.sum())} such files in all); "
                "copy the files again, or give the wells role exclude"
            )
    return table[there].reset_index(drop=True)


def _folder_of(names: set[str], listing: Path) -> Path:
    """Return the folder that holds any of the files that `listing` lists: its own, or the only one right below."""
    try:
        if not names.isdisjoint(os.listdir(listing.parent)):  # noqa: PTH208
            return listing.parent
        with os.scandir(listing.parent) as entries:
            below = sorted(entry.path for entry in entries if entry_is(entry.is_dir) and not entry.name.startswith("."))
        found = [Path(path) for path in below if not names.isdisjoint(os.listdir(path))]  # noqa: PTH208
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from None
    if len(found) > 1:
        raise UserError(f"{listing}: {found[0]} and {found[1]} both hold images that it lists; keep one of them")
    if not found:
        raise UserError(
            f"{listing}: none of the {len(names)} images that it lists (such as {min(names)}) lies beside it or in a "
            "folder right below; copy the whole export"
        )
    return found[0]
