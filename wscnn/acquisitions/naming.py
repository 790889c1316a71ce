"""What file names say: the naming schemes of instruments, and the pattern that a config needs to read them.

Schemes of known instruments are tried first. Otherwise names are cut into letters, digits and separators, and the
parts that vary are explained one by one: a well, then parts whose letters hint at field, channel, plane or time point.
Whatever two explanations fit, or none, is a question for the user, never a guess.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from wscnn.core.errors import UserError
from wscnn.core.wells import parse_well, row_letters, well_name

#: Extensions of the files that are taken for images.
IMAGES = (".tif", ".tiff")

_WELL = r"[A-P](?:0?[1-9]|1\d|2[0-4])"
_TIFF = r"(?i:\.tiff?)"
_GUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
# The letters before a number, or before a name, that say what it counts.
_HINTS = {
    **dict.fromkeys(("s", "f", "fld", "field", "site", "xy", "pos", "position", "fov", "tile"), "field"),
    **dict.fromkeys(("w", "c", "ch", "channel", "wv", "wavelength"), "channel"),
    **dict.fromkeys(("z", "plane", "slice", "zstep", "stack"), "z"),
    **dict.fromkeys(("t", "tp", "time", "timepoint"), "time"),
}


@dataclass(frozen=True)
class Scheme:
    """How an instrument names its files.

    Attributes
    ----------
    name
        The instrument or program; empty where the names alone suggest the pattern.
    pattern
        As ``acquisition.pattern``: matches a whole file name, or the path below the folder where it holds a ``/``.
    but
        Why no pattern can say where an image lies; empty where one can.
    """

    name: str
    pattern: str
    but: str = ""


@dataclass(frozen=True)
class Image:
    """What a name says of an image; ``plate`` is empty where it does not say."""

    path: str
    plate: str
    well: str
    field: int
    channel: str
    z: int
    time: int


@dataclass(frozen=True)
class Naming:
    """How the files of a folder are named.

    Attributes
    ----------
    scheme
        The scheme that explains them.
    images
        What each image's name says, in the order of the names.
    ignored
        Image files that the scheme does not match.
    """

    scheme: Scheme
    images: list[Image]
    ignored: list[str]


#: Instruments whose files need no reader of their own, the most telling names first.
SCHEMES = (
    Scheme(
        "Harmony (Operetta, Opera Phenix)",
        r"r(?P<row>\d{2})c(?P<column>\d{2})f(?P<field>\d+)p(?P<z>\d+)-ch(?P<channel>\d+)sk(?P<time>\d+)"
        rf"(?:fk\d+fl\d+)?{_TIFF}",
    ),
    Scheme(
        "Operetta (Harmony 3)",
        rf"(?P<row>\d{{3}})(?P<column>\d{{3}})-(?P<field>\d+)-(?P<z>\d{{3}})(?P<time>\d{{3}})(?P<channel>\d{{3}}){_TIFF}",
    ),
    Scheme(
        "CellVoyager",
        rf"(?:.+_)?(?P<well>{_WELL})_T(?P<time>\d+)F(?P<field>\d+)L\d+A\d+Z(?P<z>\d+)C(?P<channel>\d+){_TIFF}",
    ),
    Scheme(
        "CellVoyager CV1000",
        rf"W\d+F\d+T\d+Z\d+C\d+{_TIFF}",
        but="which number wells through the plate",
    ),
    Scheme(
        "ScanR",
        rf"(?P<well>{_WELL})--W\d+--P(?P<field>\d+)--Z(?P<z>\d+)--T(?P<time>\d+)--(?P<channel>[^/]+){_TIFF}",
    ),
    Scheme(
        "ScanR",
        rf"W\d+--P\d+--Z\d+--T\d+--[^/]+{_TIFF}",
        but="which number wells through the plate",
    ),
    Scheme(
        "IN Cell Analyzer",
        r"(?P<row>[A-P]) - (?P<column>\d{1,2})\(fld (?P<field>\d+) wv (?P<channel>[^()]+?)"
        rf"(?: z (?P<z>\d+))?(?: time (?P<time>\d+) - \d+ ms)?\){_TIFF}",
    ),
    Scheme(
        "Gen5 (Cytation)",
        rf"(?P<well>{_WELL})_-?\d+_\d+_(?P<field>\d+)_(?P<channel>[^/]+)_(?P<time>\d{{3}}){_TIFF}",
    ),
    Scheme(
        "Cellomics (ArrayScan, CellInsight), EVOS",
        rf"(?:.+_)?(?P<well>{_WELL})f(?P<field>\d+)d(?P<channel>\d+){_TIFF}",
    ),
    Scheme(
        "Leica Matrix Screener",
        rf"image--L\d+--S\d+--U\d+--V\d+--J\d+--E\d+--O\d+--X\d+--Y\d+--T\d+--Z\d+--C\d+(?:\.ome)?{_TIFF}",
        but="which count rows and columns from 0 and fields in two directions",
    ),
    Scheme(
        "Acquifer",
        rf"-(?P<well>[A-P]\d{{3}})--PO(?P<field>\d+)--LO(?P<time>\d+)--CO(?P<channel>\d+)--SL(?P<z>\d+)--.+{_TIFF}",
    ),
    Scheme(
        "Micro-Manager",
        rf"(?:.*[_/])?(?P<well>{_WELL})-Site_(?P<field>\d+)/img_(?:channel)?\d*_?(?:position\d+_)?"
        rf"(?:time)?(?P<time>\d{{9}})_(?P<channel>[^/]+?)_(?:z)?(?P<z>\d{{3}}){_TIFF}",
    ),
    Scheme(
        "Incucyte",
        rf"(?:.*_)?(?P<well>{_WELL})_(?P<field>\d+)_\d+d\d+h\d+m{_TIFF}",
    ),
    Scheme(
        "Squid (Cephla)",
        rf"(?:.*/)?(?P<well>{_WELL})_(?P<field>\d+)_(?P<z>\d+)_(?P<channel>[A-Za-z][^/]*){_TIFF}",
    ),
    Scheme(
        "MetaXpress",
        rf"(?:.*_)?(?P<well>{_WELL})_s(?P<field>\d+)_w(?P<channel>\d)(?:{_GUID})?{_TIFF}",
    ),
    Scheme("MetaXpress", rf"(?:.*_)?(?P<well>{_WELL})_w(?P<channel>\d)(?:{_GUID})?{_TIFF}"),
    Scheme("MetaXpress", rf"(?:.*_)?(?P<well>{_WELL})_s(?P<field>\d+)(?:{_GUID})?{_TIFF}"),
    Scheme(
        "CellProfiler's example plates",
        rf"Channel(?P<channel>\d+)-\d{{2}}-(?P<row>[A-P])-(?P<column>\d{{2}}){_TIFF}",
    ),
)


def recognise_names(names: Iterable[str]) -> Naming:
    """Return how the images among `names` are named.

    Parameters
    ----------
    names
        Paths of files below a folder, with ``/`` between parts. Files with other extensions than `IMAGES` and
        thumbnails of MetaXpress are left out.

    Raises
    ------
    UserError
        When the names do not say where an image lies, or may be read in several ways: with what is not known.
    """
    images = sorted(name for name in names if name.lower().endswith(IMAGES) and "_thumb" not in name.lower())
    if not images:
        raise UserError(f"holds no file that ends in {' or '.join(IMAGES)}")
    for scheme in SCHEMES:
        matched = [name for name in images if _match(scheme, name)]
        # Among the images there may be overviews and corrections, but not many.
        if len(matched) <= 0.8 * len(images):
            continue
        if scheme.but:
            raise UserError(
                f"files are named by {scheme.name}, {scheme.but}; name them by well, such as B03_s1_w1.tif, or convert "
                "the plate to OME-Zarr"
            )
        found = [_read(scheme, name) for name in matched]
        if len({_key(image) for image in found}) == len(found):
            return Naming(scheme, found, sorted(set(images) - set(matched)))
    return _inferred(images)


def _key(image: Image) -> tuple[str, str, int, str, int, int]:
    return image.plate, image.well, image.field, image.channel, image.z, image.time


def _match(scheme: Scheme, name: str) -> re.Match[str] | None:
    return re.fullmatch(scheme.pattern, name if "/" in scheme.pattern else name.rpartition("/")[2], re.ASCII)


def _read(scheme: Scheme, name: str) -> Image:
    """Return what a name that the scheme matches says."""
    match = _match(scheme, name)
    groups = {key: value for key, value in (match.groupdict() if match else {}).items() if value is not None}
    if "well" in groups:
        well = groups["well"]
    else:
        row = groups["row"]
        well = f"{row_letters(int(row) - 1) if row.isdecimal() else row}{groups['column']}"
    return Image(
        name,
        groups.get("plate", ""),
        well_name(*parse_well(well)),
        int(groups.get("field", 1)),
        groups.get("channel", "1"),
        int(groups.get("z", 1)),
        int(groups.get("time", 1)),
    )


# Names are cut at these; runs of letters and digits within the parts are told apart next.
_CUT = re.compile(r"([^A-Za-z\d]+)", re.ASCII)
_RUN = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+", re.ASCII)
# Names of stains and light by which a varying word is known for a channel.
_STAIN = re.compile(
    r"dapi|hoechst.*|e?gfp|fitc|cy\d.*|tritc|rhod.*|texas.*|m?cherry|rfp|yfp|cfp|alexa.*|af\d{3}|a\d{3}|bf|dic|phase.*"
    r"|bright.*|dna|actin|tubulin|er|rna|agp|mito.*|ph3|\d{3}(nm)?",
    re.IGNORECASE | re.ASCII,
)


@dataclass
class _Part:
    """A part of the names, with its value in each of them; `kind` is empty where it says nothing of the image."""

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


def _inferred(images: Sequence[str]) -> Naming:
    """Return the scheme that the parts of the names suggest; most names must be cut alike."""
    shapes: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in images:
        shapes[tuple(_CUT.findall(name))].append(name)
    names = max(shapes.values(), key=len)
    if len(names) <= 0.8 * len(images):
        examples = ", ".join(f"'{same[0]}'" for same in list(shapes.values())[:3])
        raise UserError(f"files are named in several ways ({examples}); give acquisition.pattern")
    parts = _parts(names)
    _find_well(parts, names)
    _find_rest(parts, names)
    scheme = Scheme("", _pattern(parts))
    found = [_read(scheme, name) for name in names]
    return Naming(scheme, found, sorted(set(images) - set(names)))


def _parts(names: Sequence[str]) -> list[_Part]:
    """Return the parts of names that are cut alike, separators included.

    A part that is the same run of letters and digits in all names but for the digits, or but for a well's letter, is
    cut further: ``T0001F002`` into ``T``, ``0001``, ``F``, ``002``.
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
    for before, part in pairwise(parts):
        if part.digits and not before.varies:
            part.hint = before.values[0].lower()
    # A hint may stand apart from its number: "ch 1", "site_3".
    for first, between, part in zip(parts, parts[1:], parts[2:], strict=False):
        if part.digits and not part.hint.isalpha() and not between.values[0].isalnum() and not first.varies:
            part.hint = first.values[0].lower()
    return parts


def _find_well(parts: list[_Part], names: Sequence[str]) -> None:
    """Mark the parts that name the well: a letter and a number beside each other, or rows and columns as numbers."""
    pairs = []
    words = [i for i, part in enumerate(parts) if part.values[0].isalnum()]
    for i, j in pairwise(words):
        letter, number = parts[i], parts[j]
        lettered = all(re.fullmatch(r"[A-P]|A[A-F]", value, re.IGNORECASE) for value in letter.values)
        numbered = number.digits and all(1 <= int(value) <= 48 for value in number.values)
        # Where all wells lie in one row its letter may be taken for a hint, as in f01: rows are capital letters.
        single = j == i + 1 and letter.values[0].isupper() and letter.values[0].lower() not in _HINTS
        if lettered and numbered and (letter.varies or single):
            pairs.append((len(set(zip(letter.values, number.values, strict=True))), letter.varies, i, j))
    rows = [i for i in words if parts[i].digits and parts[i].hint in ("r", "row")]
    columns = [i for i in words if parts[i].digits and parts[i].hint in ("c", "col", "column")]
    if pairs:
        _, _, i, j = max(pairs)
    elif len(rows) == 1 and len(columns) == 1:
        i, j = rows[0], columns[0]
    else:
        raise UserError(f"'{names[0]}' does not show which part names the well; give acquisition.pattern")
    parts[i].kind, parts[j].kind = "row", "column"


def _find_rest(parts: list[_Part], names: Sequence[str]) -> None:
    """Mark the parts that name plate, field, channel, plane and time point.

    A part that another explains (a running number of wells or of files) says nothing.
    """
    words = [part for part in parts if part.values[0].isalnum() and not part.kind]
    wells = _joined(part for part in parts if part.kind)
    unexplained = []
    for part in words:
        kind = _HINTS.get(part.hint, "") if part.digits else ""
        if kind and not (part.varies and _follows(part.values, wells)):
            if any(other.kind == kind for other in parts):
                raise UserError(f"'{names[0]}' names the {kind} twice, it seems; give acquisition.pattern")
            part.kind = kind
        elif part.varies and not _follows(part.values, wells):
            unexplained.append(part)
    well = next(i for i, part in enumerate(parts) if part.kind == "row")
    # Needed are the parts without which two files would be one image. What stands before the well may be a plate once
    # it is known what tells channels apart.
    for part in sorted(unexplained, key=lambda part: parts.index(part) < well):
        others = [other for other in parts if other.kind or (other in unexplained and other is not part)]
        if len(set(_joined(others))) == len(names):
            continue
        taken = {other.kind for other in parts}
        before = parts.index(part) < well
        if not part.digits and "channel" not in taken and (not before or all(map(_STAIN.fullmatch, part.values))):
            part.kind = "channel"
        elif before and "plate" not in taken and "channel" in taken:
            part.kind = "plate"
        elif part.digits and not before and "field" not in taken:
            part.kind = "field"
    if len(set(_joined(part for part in parts if part.kind))) < len(names):
        example = next((part.values[0] for part in unexplained if not part.kind), names[0])
        raise UserError(f"'{names[0]}': it is not clear what '{example}' means; give acquisition.pattern")


def _letters(rows: Sequence[str]) -> str:
    """Return what matches the letters of these rows, and as little else as can be."""
    case = "A-Z" if all(map(str.isupper, rows)) else "a-z" if all(map(str.islower, rows)) else "A-Za-z"
    return f"[{case}]" if max(map(len, rows)) == 1 else f"[{case}]{{1,2}}"


def _joined(parts: Iterable[_Part]) -> list[tuple[str, ...]]:
    return list(zip(*(part.values for part in parts), strict=True))


def _follows(values: Sequence[str], others: Sequence[tuple[str, ...]]) -> bool:
    """Return whether each of `others` goes with one of `values` only, so that the values add nothing."""
    return len(set(zip(values, others, strict=True))) == len(set(others))


def _pattern(parts: Sequence[_Part]) -> str:
    """Return a regular expression for names cut into these parts.

    What stands before the well and says nothing may differ on another plate; what follows it may not.
    """
    well = next(i for i, part in enumerate(parts) if part.kind == "row")
    adjacent = parts[well + 1].kind == "column"
    plate = next((part.chunk for part in parts if part.kind == "plate"), None)
    text = ""
    for i, part in enumerate(parts):
        if part.chunk == plate:
            # A plate's name is the whole of what stands between separators.
            text += "" if i and parts[i - 1].chunk == plate else r"(?P<plate>[^/]+?)"
            continue
        match part.kind:
            case "row":
                group = r"\d+" if part.digits else _letters(part.values)
                text += rf"(?P<well>{group}\d+)" if adjacent and not part.digits else f"(?P<row>{group})"
            case "column":
                text += "" if adjacent and not parts[well].digits else r"(?P<column>\d+)"
            case "field" | "z" | "time":
                text += rf"(?P<{part.kind}>\d+)"
            case "channel":
                text += r"(?P<channel>\d+)" if part.digits else "(?P<channel>[^/]+?)"
            case _ if part.values[0].isalnum() and (part.varies or i < well):
                text += r"\d+" if part.digits else "[^/]*?"
            case _:
                text += re.escape(part.values[0])
    return re.sub(r"(\[\^/\]\*\?)+", r"[^/]*?", text)
