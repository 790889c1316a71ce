"""A pattern inferred from the names of images that no known scheme explains."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from wscnn.acquisitions.schemes import (
    ADVICE,
    HINTS,
    STAIN,
    Naming,
    Scheme,
    read_name,
)
from wscnn.core.errors import UserError
from wscnn.core.wells import row_letters

# Names are cut at these; runs of letters and digits within the parts are separated next.
_CUT = re.compile(r"([^A-Za-z\d]+)", re.ASCII)

_RUN = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+", re.ASCII)


@dataclass
class _Part:
    """A part of the names, with its value in each of them; `kind` is empty where it does not describe the image."""

    values: list[str]
    chunk: int
    hint: str = ""
    kind: str = ""

    @property
    def varies(self) -> bool:
        return len(set(self.values)) > 1

    @property
    def digits(self) -> bool:
        return all(value.isdigit() for value in self.values)


def inferred(images: Sequence[str]) -> Naming:
    """Return the scheme that the parts of the names suggest; most names must be cut alike."""
    shapes: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in images:
        shapes[tuple(_CUT.findall(name))].append(name)
    names = max(shapes.values(), key=len)
    if len(names) <= 0.8 * len(images):
        examples = ", ".join(f"'{same[0]}'" for same in list(shapes.values())[:3])
        raise UserError(f"files are named in several ways ({examples}); {ADVICE}")
    parts = _parts(names)
    _find_well(parts, names)
    _find_rest(parts, names)
    scheme = Scheme("", _pattern(parts))
    found = [read_name(scheme, name) for name in names]
    return Naming(scheme, found, sorted(set(images) - set(names)))


def _parts(names: Sequence[str]) -> list[_Part]:
    """Return the parts of names that are cut alike, separators included.

    A part that differs between names only in its digits, or in a well's letter, is cut further: ``T0001F002`` into
    ``T``, ``0001``, ``F``, ``002``.
    """
    parts: list[_Part] = []
    for number, column in enumerate(zip(*(_CUT.split(name) for name in names), strict=True)):
        if number % 2:
            parts.append(_Part(list(column), number))
            continue
        runs = [_RUN.findall(value) for value in column]
        if len({len(run) for run in runs}) > 1:
            parts.append(_Part(list(column), number))
            continue
        run_columns = [list(run) for run in zip(*runs, strict=True)]
        words = [run for run in run_columns if not all(value.isdigit() for value in run)]
        if all(len(set(run)) == 1 or all(len(value) == 1 for value in run) for run in words):
            parts += [_Part(run, number) for run in run_columns]
        else:
            parts.append(_Part(list(column), number))
    for i, part in enumerate(parts):
        if part.digits:
            part.hint = _letters_before(parts, i)
            # A hint may stand apart from its number: "ch 1", "site_3".
            if not part.hint and i > 1 and not parts[i - 1].values[0].isalnum():
                part.hint = _letters_before(parts, i - 1)
    return parts


def _letters_before(parts: Sequence[_Part], end: int) -> str:
    """Return the letters, equal in all names, that stand right before a part: a known hint, or the last run of them."""
    runs: list[str] = []
    while end and parts[end - 1].values[0].isalpha() and not parts[end - 1].varies:
        end -= 1
        runs.insert(0, parts[end].values[0].lower())
    joined = "".join(runs)
    return joined if joined in HINTS or not runs else runs[-1]


def _find_well(parts: list[_Part], names: Sequence[str]) -> None:
    """Mark the parts that name the well: a letter and a number beside each other, or rows and columns as numbers."""
    pairs = []
    words = [i for i, part in enumerate(parts) if part.values[0].isalnum()]
    for i, j in pairwise(words):
        letter, number = parts[i], parts[j]
        lettered = all(re.fullmatch(r"[A-P]|A[A-F]", value, re.IGNORECASE) for value in letter.values)
        # The letter of "plateA" or "exp B" is not a row.
        lettered = lettered and _letters_before(parts, i) in ("", "well", "point")
        numbered = number.digits and all(1 <= int(value) <= 48 for value in number.values)
        # Where all wells are in one row its letter may be mistaken for a hint, as in f01: rows are capital letters.
        single = j == i + 1 and letter.values[0].isupper() and letter.values[0].lower() not in HINTS
        if lettered and numbered and (letter.varies or single):
            pairs.append((i, j))
    rows = [i for i in words if parts[i].digits and parts[i].hint in ("r", "row")]
    columns = [i for i in words if parts[i].digits and parts[i].hint in ("c", "col", "column")]
    if len(rows) == 1 and len(columns) == 1:
        pairs.append((rows[0], columns[0]))
    # What is the same in all names, such as P5 in "HeLa P5", is not the well.
    pairs = [(i, j) for i, j in pairs if parts[i].varies or parts[j].varies or len(names) == 1]
    if not pairs and any(parts[i].digits and parts[i].hint == "well" for i in words):
        raise UserError(f"'{names[0]}' numbers the wells, but not in which order; {ADVICE}")
    if not pairs:
        raise UserError(f"'{names[0]}' does not show which part names the well; {ADVICE}")
    # A well may be named twice, by its folder and its files.
    if len({tuple(_positions(parts[i], parts[j])) for i, j in pairs}) > 1:
        one, two = ("".join(parts[k].values[0] for k in pair) for pair in pairs[:2])
        raise UserError(f"'{names[0]}': both {one} and {two} may be the well; {ADVICE}")
    i, j = pairs[-1]
    parts[i].kind, parts[j].kind = "row", "column"
    if parts[i].digits and 0 in {int(value) for part in (parts[i], parts[j]) for value in part.values}:
        parts[i].kind, parts[j].kind = "row0", "column0"


def _positions(row: _Part, column: _Part) -> list[tuple[str, int]]:
    """Return row and column of the well in each name."""
    rows = (row_letters(int(value) - 1) if row.digits else value.upper() for value in row.values)
    return list(zip(rows, map(int, column.values), strict=True))


def _find_rest(parts: list[_Part], names: Sequence[str]) -> None:
    """Mark the parts that name plate, field, channel, plane and time point.

    A part that another explains (a running number of wells or of files) says nothing.
    """
    words = [part for part in parts if part.values[0].isalnum() and not part.kind]
    wells = _joined(part for part in parts if part.kind)
    unexplained = []
    for part in words:
        kind = HINTS.get(part.hint, "") if part.digits else ""
        if kind and not (part.varies and _follows(part.values, wells)):
            if any(other.kind == kind for other in parts):
                raise UserError(f"'{names[0]}' names the {kind} twice, it seems; {ADVICE}")
            part.kind = kind
        elif part.varies and not _follows(part.values, wells):
            unexplained.append(part)
    well = _row_of(parts)
    # A part is needed if two files would be the same image without it. A part before the well may be a plate once the
    # part that distinguishes channels is known.
    for part in sorted(unexplained, key=lambda part: (part.digits, parts.index(part) < well)):
        others = [other for other in parts if other.kind or (other in unexplained and other is not part)]
        if len(set(_joined(others))) == len(names):
            continue
        taken = {other.kind for other in parts}
        before = parts.index(part) < well
        stains = sum(STAIN.fullmatch(value) is not None for value in set(part.values))
        # A plain number before the well may be anything; one of four digits, or right after letters, is a plate's.
        lettered = part.hint == "plate" or _letters_before(parts, parts.index(part))
        plate = not part.digits or lettered or min(map(len, part.values)) > 3
        if not part.digits and "channel" not in taken and (stains == len(set(part.values)) or (stains and not before)):
            part.kind = "channel"
        elif before and plate and "plate" not in taken and "channel" in taken:
            part.kind = "plate"
        elif part.digits and not before and "channel" in taken and "field" not in taken and _alone(part, parts[well:]):
            part.kind = "field"
    if len(set(_joined(part for part in parts if part.kind))) < len(names):
        example = next((part.values[0] for part in unexplained if not part.kind), names[0])
        raise UserError(f"'{names[0]}': it is not clear what '{example}' means; {ADVICE}")


def _alone(part: _Part, parts: Sequence[_Part]) -> bool:
    """Return whether a number is the only one among `parts` without a hint of what it counts."""
    bare = [other for other in parts if other.digits and not other.kind and not other.hint]
    return bare == [part] and max(map(len, part.values)) < 5


def _row_of(parts: Sequence[_Part]) -> int:
    """Return the position of the part that names the well's row."""
    return next(i for i, part in enumerate(parts) if part.kind in ("row", "row0"))


def _letters(rows: Sequence[str]) -> str:
    """Return an expression that matches the letters of these rows, and as little else as possible."""
    case = "A-Z" if all(map(str.isupper, rows)) else "a-z" if all(map(str.islower, rows)) else "A-Za-z"
    return f"[{case}]" if max(map(len, rows)) == 1 else f"[{case}]{{1,2}}"


def _joined(parts: Iterable[_Part]) -> list[tuple[str, ...]]:
    return list(zip(*(part.values for part in parts), strict=True))


def _follows(values: Sequence[str], others: Sequence[tuple[str, ...]]) -> bool:
    """Return whether each of `others` occurs with one of `values` only, so that the values add no information."""
    return len(set(zip(values, others, strict=True))) == len(set(others))


def _pattern(parts: Sequence[_Part]) -> str:
    """Return a regular expression for names cut into these parts.

    Unexplained parts before the well may differ on another plate; those after it may not.
    """
    well = _row_of(parts)
    adjacent = parts[well + 1].kind == "column"
    plate = next((part.chunk for part in parts if part.kind == "plate"), None)
    text = ""
    for i, part in enumerate(parts):
        if part.chunk == plate:
            # A plate's name is everything between two separators.
            text += "" if i and parts[i - 1].chunk == plate else r"(?P<plate>[^/]+?)"
            continue
        match part.kind:
            case "row":
                group = r"\d+" if part.digits else _letters(part.values)
                text += rf"(?P<well>{group}\d+)" if adjacent and not part.digits else f"(?P<row>{group})"
            case "column":
                text += "" if adjacent and not parts[well].digits else r"(?P<column>\d+)"
            case "field" | "z" | "time" | "row0" | "column0":
                text += rf"(?P<{part.kind}>\d+)"
            case "channel":
                text += r"(?P<channel>\d+)" if part.digits else "(?P<channel>[^/]+?)"
            case _ if part.values[0].isalnum() and (part.varies or i < well):
                text += r"\d+" if part.digits else "[^/]*?"
            case _:
                text += re.escape(part.values[0])
    return re.sub(r"(\[\^/\]\*\?)+", r"[^/]*?", text)
