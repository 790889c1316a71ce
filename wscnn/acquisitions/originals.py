"""Whether a plate's raw images are still those that were indexed and staged.

Size, then time of modification, then a digest of the content decide, so that an image that was overwritten in place is
noticed and one that was copied or touched is not.
"""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

import google_crc32c
import pandas as pd

from wscnn.acquisitions import open_acquisition
from wscnn.acquisitions.base import Acquisition, walk
from wscnn.acquisitions.image_table import table_path
from wscnn.core.atomic import atomic_path
from wscnn.core.errors import UserError
from wscnn.core.screen_folder import ScreenFolder, record_of
from wscnn.core.tables import INDEX, ORIGINAL, read_notes, read_table, write_table

# Files that a thread stats at a time, and threads: on a network file system, stat is mostly waiting.
_BATCH = 500
_THREADS = 8
_BLOCK = 2**20


def stamp(path: str) -> tuple[int, int]:
    """Return size in bytes and time of modification (ns) of a file; of a folder, the sums over all its files.

    The sum of times, modulo 2^63, changes with each of them; the latest time would not.
    """
    status = os.stat(path)  # noqa: PTH116 - many files
    if not os.path.isdir(path):  # noqa: PTH112
        return status.st_size, status.st_mtime_ns
    found = [os.stat(f"{path}/{name}") for name in walk(Path(path))]  # noqa: PTH116
    return sum(file.st_size for file in found), sum(file.st_mtime_ns for file in found) % 2**63


def stamps(paths: Sequence[str]) -> list[tuple[int, int]]:
    """Return `stamp` of each path; (-1, -1) where it does not exist."""

    def of(batch: Sequence[str]) -> list[tuple[int, int]]:
        return [_stamp_if_there(path) for path in batch]

    with ThreadPoolExecutor(_THREADS) as pool:
        batches = [paths[i : i + _BATCH] for i in range(0, len(paths), _BATCH)]
        return list(chain.from_iterable(pool.map(of, batches)))


def _stamp_if_there(path: str) -> tuple[int, int]:
    try:
        return stamp(path)
    except (OSError, UserError):
        return -1, -1


def digest(path: str) -> str:
    """Return a digest of the content of a file, or of a folder with the names of its files.

    It is a CRC-32C, which detects accidental changes, not those of an attacker. It takes a tenth of the time of
    SHA-256, so that `stage` can compute it for every image.
    """
    if not os.path.isdir(path):  # noqa: PTH112
        return f"{_crc(path):08x}"
    parts = "".join(f"{name}\0{_crc(f'{path}/{name}'):08x}\0" for name in walk(Path(path)))
    return f"{google_crc32c.value(parts.encode()):08x}"


def _crc(path: str) -> int:
    value = 0
    with open(path, "rb") as file:  # noqa: PTH123
        while block := file.read(_BLOCK):
            value = google_crc32c.extend(value, block)
    return value


def verified(path: str, size: int, mtime_ns: int, before: str) -> str:
    """Return the digest of an image, verified to be the one that was indexed.

    Parameters
    ----------
    path
        The file, or the folder of an OME-Zarr array.
    size, mtime_ns
        As the index has them.
    before
        Its digest when it was staged before, empty where it was not.

    Raises
    ------
    UserError
        When it is missing, or differs from the one that was indexed.
    """
    try:
        found = stamp(path)
        now = digest(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if found != (size, mtime_ns) and (found[0] != size or now != before):
        raise UserError(f"{path}: was changed after the plate was indexed; start again, and it is indexed again")
    return now


def describe(table: pd.DataFrame, images: Path) -> str:
    """Return a digest of a plate's index without size, time and content of the images.

    Parameters
    ----------
    table
        What a reader lists (`wscnn.acquisitions.base.Acquisition.files`).
    images
        The plate's folder; its own path is not part of the digest.
    """
    rows = table[list(INDEX)].assign(path=relative(table["path"], images)).sort_values(list(INDEX))
    return sha256(rows.to_csv(index=False).encode()).hexdigest()


def relative(paths: pd.Series, images: Path) -> pd.Series:
    """Return the paths of images without their folder."""
    return paths.str.removeprefix(f"{images}/")


def write_record(index: pd.DataFrame, digests: Mapping[str, str], images: Path, manifest: Path) -> None:
    """Record the images that were staged: path below the folder, size and time as in the index, digest."""
    table = index.drop_duplicates("path")[["path", *ORIGINAL]]
    table = table.assign(digest=table["path"].map(digests)).sort_values("path")
    write_table(table.assign(path=relative(table["path"], images)), record_of(manifest), kind="raw")


def read_digests(manifest: Path) -> dict[tuple[str, int, int], str]:
    """Return the digests of the images that were staged, by path, size and time of modification in their index.

    None are known where the plate was not staged or the record cannot be read.
    """
    with suppress(UserError, KeyError):
        table = read_table(record_of(manifest))
        keys = zip(table["path"], table["size"], table["mtime_ns"], strict=True)
        return dict(zip(keys, table["digest"], strict=True))
    return {}


class _Folder:
    """A folder of images, listed once for all its plates."""

    def __init__(self, path: str, acquisition: Mapping[str, Any]) -> None:
        self.path = path
        self._acquisition = acquisition

    @cached_property
    def snapshot(self) -> str:
        """A digest of names, sizes and times of all files, and of the table of images, as far as they can be read."""
        names: list[str] = []
        with suppress(UserError):
            names.extend(walk(Path(self.path)))
        found = stamps([f"{self.path}/{name}" for name in names])
        table = ""
        if self._acquisition["table"]:
            # It may be outside the folder.
            with suppress(OSError, UserError):
                table = digest(str(table_path(Path(self.path), self._acquisition["table"])))
        return sha256(json.dumps([names, found, table]).encode()).hexdigest()

    @cached_property
    def reader(self) -> Acquisition:
        """Its reader."""
        return open_acquisition(Path(self.path), self._acquisition)


class Watch:
    """State of a screen's raw images when the workflow starts.

    The state of a plate's images is a string, which changes when they change and is a parameter of the rule `index`.
    Plates that were not indexed have no state yet, and the images of a plate whose folder is gone count as unchanged.

    Parameters
    ----------
    plates
        The folder of images of each plate.
    acquisition
        The config's section.
    excluded
        The wells of each plate that have role ``exclude``.
    results
        The screen's results.
    """

    def __init__(
        self,
        plates: Mapping[str, str],
        acquisition: Mapping[str, Any],
        excluded: Mapping[str, Collection[str]],
        results: Path,
    ) -> None:
        self.results = ScreenFolder(results)
        self._file = self.results.images
        self._known: dict[str, dict[str, str]] = self._read()
        #: The state of each plate.
        self.states: dict[str, str] = {}
        seen_anew = False
        here: _Folder | None = None
        # Plates that share a folder share its listing.
        for plate, folder in sorted(plates.items(), key=lambda pair: pair[1]):
            entry = self._known.get(plate, {})
            self.states[plate] = entry.get("state", "")
            if not self._index(plate).is_file() or not os.path.isdir(folder):  # noqa: PTH112
                continue
            if here is None or here.path != folder:
                here = _Folder(folder, acquisition)
            status = self._index(plate).stat()
            seen = sha256(f"{here.snapshot} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()
            if entry.get("seen") == seen:
                continue
            now = self._changed(plate, here, excluded.get(plate, ()))
            if now is not None:
                self.states[plate] = now
            else:
                self._known[plate] = {"state": self.states[plate], "seen": seen}
                seen_anew = True
        if seen_anew:
            # Saves the next comparison; without permission to write, the next start compares again.
            with suppress(OSError):
                self._write()

    def keep(self) -> None:
        """Save the states: what depends on them is made now."""
        for plate, state in self.states.items():
            if state != self._known.get(plate, {}).get("state", ""):
                self._known[plate] = {"state": state}
        self._write()

    def _index(self, plate: str) -> Path:
        return self.results.index(plate)

    def _read(self) -> dict[str, dict[str, str]]:
        # Without it, plates are indexed once more than necessary, with the same result.
        with suppress(OSError, ValueError):
            known = json.loads(self._file.read_bytes())
            if isinstance(known, dict) and all(isinstance(entry, dict) for entry in known.values()):
                return known
        return {}

    def _write(self) -> None:
        with atomic_path(self._file) as partial:
            partial.write_text(json.dumps(self._known, indent=0, sort_keys=True) + "\n")

    def _changed(self, plate: str, here: _Folder, excluded: Collection[str]) -> str | None:
        """Return the state of the present images of a plate, None where they are those in its index."""
        images = Path(here.path)
        try:
            table = here.reader.files(plate)
        except UserError as error:
            return sha256("\n".join(error.problems).encode()).hexdigest()
        table = table[~table["well"].isin(excluded)]
        listed = describe(table, images)
        paths = table["path"].unique().tolist()
        found = stamps(paths)
        now = sha256(json.dumps([listed, sorted(zip(paths, found, strict=True))]).encode()).hexdigest()
        try:
            notes, index = read_notes(self._index(plate)), read_table(self._index(plate))
            recorded = dict(zip(index["path"], zip(index["size"], index["mtime_ns"], strict=True), strict=True))
        except (UserError, KeyError):
            return now
        if notes.get("listed") != listed:
            return now
        digests = read_digests(self.results.manifest(plate))
        names = relative(pd.Series(paths, dtype="str"), images)
        for path, name, (size, mtime_ns) in zip(paths, names, found, strict=True):
            before = recorded.get(name)
            if before == (size, mtime_ns):
                continue
            if before is None or before[0] != size or digests.get((name, *before)) != digest(path):
                return now
        return None
