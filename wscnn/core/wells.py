"""Names of plates and wells: how they are read, written and checked."""

import re
from collections.abc import Iterable
from itertools import groupby

#: Rows and columns of standard plates, by number of wells.
PLATE_FORMATS = {6: (2, 3), 12: (3, 4), 24: (4, 6), 48: (6, 8), 96: (8, 12), 384: (16, 24), 1536: (32, 48)}

#: The phenotype of cells unlike those of any negative control, and all phenotypes that no control is made for: these
#: are a family of tests of their own.
NOVELTY = "novelty"
DISCOVERED = (NOVELTY,)
#: Parts into which a plate's negative controls are divided for these, and the fewest wells that make them.
N_PARTS, LEAST_NEGATIVES = 3, 6
#: Suffix of the saliency's label image, after the phenotype's name.
SALIENCY = "_saliency"

_WELL = re.compile(r"([A-Za-z]{1,2})0*(\d{1,3})", re.ASCII)
# A name becomes a folder, a file and a cell of a table: no separators, nothing a shell or HTML eats, no dot in front
# (hidden) or at the end (dropped by some file systems).
_NAME = re.compile(r"\w(?:[\w.+-]{0,98}[\w+-])?")


def row_letters(row: int) -> str:
    """Return the letters of a row counted from 0: 0 is ``A``, 25 ``Z``, 26 ``AA``, 31 ``AF``."""
    return chr(65 + row) if row < 26 else "A" + chr(65 + row - 26)


def well_name(row: int, column: int) -> str:
    """Return the name of the well at `row` and `column`, both counted from 0: ``well_name(1, 2)`` is ``B03``."""
    return f"{row_letters(row)}{column + 1:02d}"


def parse_well(text: str) -> tuple[int, int]:
    """Return row and column, counted from 0, of a well named like ``B3``, ``b03``, ``B003`` or ``AA01``.

    Raises
    ------
    ValueError
        When the text does not name a well of a plate of at most 32 x 48 wells.
    """
    match = _WELL.fullmatch(str(text).strip())
    if match:
        letters, digits = match[1].upper(), int(match[2])
        row = ord(letters[-1]) - 65 + (26 if len(letters) == 2 else 0)
        if (len(letters) == 1 or letters[0] == "A") and row < 32 and 1 <= digits <= 48:
            return row, digits - 1
    raise ValueError(f"'{text}' is not a well; wells are named like B03 (rows A to AF, columns 1 to 48)")


def plate_format(wells: list[tuple[int, int]]) -> tuple[int, int]:
    """Return rows and columns of the smallest plate that has all these wells (row, column pairs from 0)."""
    rows = max(row for row, _ in wells) + 1
    columns = max(column for _, column in wells) + 1
    for shape in PLATE_FORMATS.values():
        if rows <= shape[0] and columns <= shape[1]:
            return shape
    raise ValueError(f"no plate has {rows} rows and {columns} columns")


def check_name(text: str) -> str:
    """Return a plate's, screen's, channel's or phenotype's name when it is safe as a file name.

    Raises
    ------
    ValueError
        When it is empty, longer than 100 characters, starts or ends with a dot, or holds anything but letters,
        digits and ``_ . + -``.
    """
    # File systems count bytes: a name of 100 letters may be longer than they take.
    if not _NAME.fullmatch(str(text)) or len(str(text).encode()) > 200:
        raise ValueError(
            f"'{text}' cannot name a folder; use letters, digits and _ . + - (at most 100, no dot at either end)"
        )
    return str(text)


def one_of(names: Iterable[str]) -> str:
    """Return a regular expression that matches any of `names` and nothing else.

    Shared beginnings are written once: a match takes time in the length of the name, not in the number of names.
    """
    branches = [
        re.escape(letter) + one_of(name[1:] for name in group) if letter else ""
        for letter, group in groupby(sorted(set(names)), key=lambda name: name[:1])
    ]
    return f"(?:{'|'.join(branches)})" if len(branches) > 1 else "".join(branches)
