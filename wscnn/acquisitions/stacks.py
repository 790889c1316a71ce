"""Images known only from a name or a table: each file may be a stack of planes."""

from abc import abstractmethod
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from wscnn.acquisitions.base import ONLY, Acquisition
from wscnn.acquisitions.tiff import tiff_planes
from wscnn.core.errors import UserError, first_problems
from wscnn.core.progress import progress

# Most broken files that one run reports: an incomplete copy of a plate has thousands.
_MAX_PROBLEMS = 20
# Files opened at a time to read their headers.
_OPENED = 8


class Stacks(Acquisition):
    """Files that are described one by one. With `pages`, the pages of a file are its planes, counted from 1."""

    @abstractmethod
    def listed(self, plate: str, excluded: Collection[str]) -> pd.DataFrame:
        """Return one row per file of `plate` (columns `wscnn.core.tables.INDEX`)."""

    def files(self, plate: str, excluded: Collection[str] = ()) -> pd.DataFrame:
        """Return one row per image of `plate`.

        Where files may be stacks, one is opened: the others are assumed to have as many planes.
        """
        table = self.listed(plate, excluded)
        if not self.pages or table.empty:
            return table
        try:
            planes = tiff_planes(Path(table["path"].iloc[0]))
        except UserError:  # `index` reports a broken file, unless its well is excluded
            planes = [0]
        return _with_planes(table, [planes] * len(table))

    def headers(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return an index with the planes that each file holds.

        Raises
        ------
        UserError
            Naming the files that cannot be read (the first 20).
        """
        if not self.pages:
            return table
        files = table.drop_duplicates("path")
        # Several at a time: on a network file system, opening a file is mostly waiting.
        with ThreadPoolExecutor(_OPENED) as pool:
            found = list(progress(pool.map(_planes_or_problems, files["path"]), len(files), "headers read"))
        problems = [problem for _, wrong in found for problem in wrong]
        if problems:
            raise UserError(first_problems(problems, _MAX_PROBLEMS))
        return _with_planes(files, [planes for planes, _ in found])


def _planes_or_problems(path: str) -> tuple[list[int], list[str]]:
    """Return the planes of a file, and what is wrong with it."""
    try:
        return tiff_planes(Path(path)), []
    except UserError as error:
        return [], error.problems


def _with_planes(files: pd.DataFrame, planes: Sequence[Sequence[int]]) -> pd.DataFrame:
    """Return a table with one row per plane instead of one per file; `planes` holds the pages of each file's planes."""
    table = files.loc[files.index.repeat([len(pages) for pages in planes])].reset_index(drop=True)
    table["page"] = [page for pages in planes for page in pages]
    table["z"] = [ONLY + i for pages in planes for i in range(len(pages))]
    return table
