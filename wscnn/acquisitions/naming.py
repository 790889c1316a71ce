"""What file names say: the naming schemes of instruments, and the pattern that a config needs to read them.

Schemes of known instruments are tried first. Otherwise names are cut into letters, digits and separators, and the
parts that vary are explained one by one: a well, then parts whose letters hint at field, channel, plane or time point.
Where two explanations fit, or none, the user is asked; nothing is guessed.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from wscnn.acquisitions.metadata import well_at
from wscnn.core.errors import UserError
from wscnn.core.wells import PLATE_FORMATS, parse_well, row_letters, well_name

#: Extensions of the files that are taken for images.
IMAGES = (".tif", ".tiff")

_WELL = r"[A-P](?:0?[1-9]|1\d|2[0-4])"
_TIFF = r"(?i:\.tiff?)"
_GUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
# Groups of a scheme that `acquisition.pattern` does not have.
_BEYOND = {"row0", "column0", "number", "field_y", "field_x", "days", "hours", "minutes"}
# The letters before a number, or before a name, that say what it counts.
_HINTS = {
    **dict.fromkeys(("s", "f", "fld", "field", "site", "xy", "pos", "position", "fov", "tile", "m"), "field"),
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
        Matches a whole file name, or the path below the folder where it holds a ``/``. Beside the groups of
        ``acquisition.pattern`` it may have ``row0`` and ``column0`` (counted from 0), ``number`` (of a well, counted
        from 1 along the rows of the plate), ``field_y`` and ``field_x`` (a field that has two numbers), and ``days``,
        ``hours`` and ``minutes`` (of a time point).
    unclear
        What such names do not say, with what to do about it; empty where they say it all.
    """

    name: str
    pattern: str
    unclear: str = ""

    @property
    def expressible(self) -> bool:
        """Whether ``acquisition.pattern`` can say the same."""
        return not set(re.compile(self.pattern).groupindex) & _BEYOND


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
    within
        The pattern for the names within a plate's folder, where each folder at the top is a plate; else empty.
    """

    scheme: Scheme
    images: list[Image]
    ignored: list[str]
    within: str = ""


#: Instruments whose files need no reader of their own, the most telling names first.
SCHEMES = (
    Scheme(
        "Harmony (Operetta, Opera Phenix)",
        r"r(?P<row>\d{2})c(?P<column>\d{2})f(?P<field>\d+)p(?P<z>\d+)-ch(?P<channel>\d+)sk(?P<time>\d+)"
        rf"(?:fk\d+fl\d+)?{_TIFF}",
    ),
    Scheme(
        "Columbus (Operetta)",
        rf"(?P<row>\d{{3}})(?P<column>\d{{3}})-(?P<field>\d+)-(?P<z>\d{{3}})(?P<time>\d{{3}})(?P<channel>\d{{3}}){_TIFF}",
    ),
    Scheme(
        "CellVoyager",
        rf"(?:.+_)?(?P<well>{_WELL})_T(?P<time>\d+)F(?P<field>\d+)L\d+A\d+Z(?P<z>\d+)C(?P<channel>\d+){_TIFF}",
    ),
    Scheme(
        "CellVoyager CV1000, CQ1",
        rf"W(?P<number>\d+)F(?P<field>\d+)T(?P<time>\d+)Z(?P<z>\d+)C(?P<channel>\d+){_TIFF}",
    ),
    Scheme(
        "ScanR",
        rf"(?P<well>{_WELL})--W\d+--P(?P<field>\d+)--Z(?P<z>\d+)--T(?P<time>\d+)--(?P<channel>.+){_TIFF}",
    ),
    Scheme(
        "ScanR",
        rf"W(?P<number>\d+)--P(?P<field>\d+)--Z(?P<z>\d+)--T(?P<time>\d+)--(?P<channel>.+){_TIFF}",
    ),
    Scheme(
        "IN Cell Analyzer",
        r"(?:.+_)?(?P<row>[A-P]) - (?P<column>\d{1,2})\(fld (?P<field>\d+)(?: wv (?P<channel>[^()]+?))?"
        rf"(?: z (?P<z>\d+))?(?: ?-? time (?P<time>\d+) - \d+ ?ms)?\){_TIFF}",
    ),
    Scheme(
        "Gen5 (Cytation)",
        rf"(?P<well>{_WELL})_-?\d+_\d+_(?P<field>\d+)(?:Z(?P<z>\d+))?_(?P<channel>.+)_(?P<time>\d{{3}}){_TIFF}",
    ),
    Scheme(
        "Gen5 (Cytation), regions of interest",
        rf"(?P<well>{_WELL})ROI(?P<field_y>\d+)_-?\d+_\d+_(?P<field_x>\d+)(?:Z(?P<z>\d+))?_(?P<channel>.+)"
        rf"_(?P<time>\d{{3}}){_TIFF}",
    ),
    Scheme(
        "EVOS",
        rf".+_R_p(?P<time>\d+)(?:_z(?P<z>\d+))?_\d+_(?P<well>{_WELL})f(?P<field>\d+)d(?P<channel>\d+){_TIFF}",
    ),
    Scheme(
        "Cellomics (ArrayScan, CellInsight)",
        rf"(?:.+_)?(?P<well>{_WELL})f(?P<field>\d+)d(?P<channel>\d+){_TIFF}",
    ),
    Scheme(
        "Cellomics (ArrayScan, CellInsight), kinetic",
        rf".*i3t(?P<time>\d{{3}})(?P<well>{_WELL})f(?P<field>\d+)d(?P<channel>\d+){_TIFF}",
    ),
    # By the Leica template, U is the well's x position (TokenWellXPos), V its y position.
    Scheme(
        "Leica Matrix Screener",
        r"(?:image|I)--L\d+--S\d+--U(?P<column0>\d+)--V(?P<row0>\d+)--J\d+--E\d+--O\d+--X(?P<field_x>\d+)"
        rf"--Y(?P<field_y>\d+)--T(?P<time>\d+)(?:--Z(?P<z>\d+))?--C(?P<channel>\d+)(?:\.ome)?{_TIFF}",
    ),
    Scheme(
        "Leica LAS X Navigator",
        rf"(?:.*_)?(?P<well>{_WELL})(?:-(?P<field>\d+))?(?:_t(?P<time>\d+))?(?:_z(?P<z>\d+))?_ch(?P<channel>\d+){_TIFF}",
    ),
    Scheme(
        "Acquifer",
        rf"-(?P<well>[A-P]\d{{3}})--PO(?P<field>\d+)--LO(?P<time>\d+)--CO(?P<channel>\d+)--SL(?P<z>\d+)--.+{_TIFF}",
    ),
    Scheme(
        "NIS-Elements (Nikon JOBS)",
        rf"(?:.*_)?Well(?P<well>{_WELL})_(?:Point.*?_(?P<field>\d+)_)?Channel(?P<channel>[^,]+)_Seq\d+{_TIFF}",
    ),
    Scheme(
        "NIS-Elements (Nikon JOBS)",
        rf"(?:.*_)?Well{_WELL}_(?:Point.*_)?Channel.+,.+_Seq\d+{_TIFF}",
        unclear="each file holds several channels; export every channel as a file of its own",
    ),
    Scheme(
        "NIS-Elements (Nikon JOBS)",
        rf"(?:.*_)?Well(?P<well>{_WELL})_Point(?P<field>\d+)_Seq\d+_Z(?P<z>\d+)_CH(?P<channel>\d+){_TIFF}",
    ),
    Scheme(
        "Micro-Manager",
        rf"(?:.*[_/])?(?P<well>{_WELL})-Site_(?P<field>\d+)/img_(?:channel)?\d*_?(?:position\d+_)?"
        rf"(?:time)?(?P<time>\d{{9}})_(?P<channel>[^/]+?)_(?:z)?(?P<z>\d{{3}}){_TIFF}",
    ),
    Scheme("Incucyte", rf"(?:.*_)?(?P<well>{_WELL})_(?P<field>\d+)_\d+d\d+h\d+m{_TIFF}"),
    Scheme(
        "Incucyte",
        rf"(?:.*_)?(?P<well>{_WELL})_(?P<field>\d+)_(?P<days>\d+)d(?P<hours>\d+)h(?P<minutes>\d+)m{_TIFF}",
    ),
    Scheme("BD Pathway", rf"(?:.*/)?Well (?P<well>[A-P]\d{{1,3}})/(?P<channel>[^/]+?) - n000000{_TIFF}"),
    Scheme(
        "BD Pathway",
        rf"(?:.*/)?Well [A-P]\d{{1,3}}/[^/]+? - n\d{{6}}{_TIFF}",
        unclear="whether n000000, n000001, ... are fields, planes or time points is in no name; give --pattern",
    ),
    Scheme(
        "Squid (Cephla)",
        rf"(?P<well>{_WELL})_(?P<field>\d+)_(?P<z>\d+)_(?P<channel>Fluorescence_\d+_nm_Ex|BF_LED_\w+){_TIFF}",
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


def recognise_names(names: Iterable[str], wells: int | None = None) -> Naming:
    """Return how the images among `names` are named.

    Parameters
    ----------
    names
        Paths of files below a folder, with ``/`` between parts. Files with other extensions than `IMAGES` and
        thumbnails of MetaXpress are left out.
    wells
        How many wells a plate has; needed only where names number the wells through the plate.

    Raises
    ------
    UserError
        When the names do not say where an image lies, or may be read in several ways: with what is not known.
    """
    every = sorted(names)
    images = [name for name in every if name.lower().endswith(IMAGES) and "_thumb" not in name.lower()]
    if not images:
        raise UserError(_no_images(every))
    for scheme in SCHEMES:
        matched = [name for name in images if _match(scheme, name)]
        # Among the images there may be overviews and corrections, but not many.
        if len(matched) <= 0.8 * len(images):
            continue
        if scheme.unclear:
            raise UserError(f"'{matched[0]}' is named as by {scheme.name}: {scheme.unclear}")
        ignored = sorted(set(images) - set(matched))
        if found := _distinct(scheme, matched, wells):
            return Naming(scheme, found, ignored)
        plates = Scheme(scheme.name, f"(?P<plate>[^/]+)/{'' if '/' in scheme.pattern else '(?:.*/)?'}{scheme.pattern}")
        if _may_be_plates(matched) and (found := _distinct(plates, matched, wells)):
            return Naming(plates, found, ignored, scheme.pattern)
    return _inferred(images)


def _may_be_plates(names: Sequence[str]) -> bool:
    """Return whether all images lie in folders at the top that may be plates, not time points, planes or channels."""
    folders = {name.partition("/")[0] for name in names}
    counted = (re.fullmatch(r"([A-Za-z]+)[ _-]?\d+", folder) for folder in folders)
    return (
        all("/" in name for name in names)
        and not any(match and match[1].lower() in _HINTS for match in counted)
        and not all(map(_STAIN.fullmatch, folders))
    )


def _no_images(names: Sequence[str]) -> str:
    """Return what to do about a folder without TIFF files."""
    kinds = Counter(name.rpartition("/")[2].rpartition(".")[2] for name in names if "." in name)
    if not kinds:
        return f"holds no file that ends in {' or '.join(IMAGES)}"
    kind, n = kinds.most_common(1)[0]
    return (
        f"holds no file that ends in {' or '.join(IMAGES)}, but {n} that end in .{kind}; export the images as TIFF, or "
        "convert the plate to OME-Zarr"
    )


def _distinct(scheme: Scheme, names: Sequence[str], wells: int | None) -> list[Image]:
    """Return what names say by a scheme; nothing where it does not tell all of them apart."""
    found = [_read(scheme, name, wells) for name in names]
    if "field_y" in scheme.pattern:
        number = {field: n for n, field in enumerate(sorted({image.field for image in found}), 1)}
        found = [replace(image, field=number[image.field]) for image in found]
    return found if len({_key(image) for image in found}) == len(found) else []


def _key(image: Image) -> tuple[str, str, int, str, int, int]:
    return image.plate, image.well, image.field, image.channel, image.z, image.time


def _match(scheme: Scheme, name: str) -> re.Match[str] | None:
    return re.fullmatch(scheme.pattern, name if "/" in scheme.pattern else name.rpartition("/")[2], re.ASCII)


# Fields of a well in one row are fewer than this.
_FIELDS_PER_ROW = 1_000_000


def _read(scheme: Scheme, name: str, wells: int | None = None) -> Image:
    """Return what a name that the scheme matches says."""
    match = _match(scheme, name)
    groups = {key: value for key, value in (match.groupdict() if match else {}).items() if value is not None}
    field, time = int(groups.get("field", 1)), int(groups.get("time", 1))
    if "field_y" in groups:
        field = int(groups["field_y"]) * _FIELDS_PER_ROW + int(groups["field_x"])
    if "days" in groups:
        time = (int(groups["days"]) * 24 + int(groups["hours"])) * 60 + int(groups["minutes"])
    try:
        well = _well(groups, wells)
    except ValueError as error:
        raise UserError(f"'{name}': {error}") from None
    plate, channel, z = groups.get("plate", ""), groups.get("channel", "1"), int(groups.get("z", 1))
    return Image(name, plate, well, field, channel, z, time)


def _well(groups: Mapping[str, str], wells: int | None) -> str:
    """Return the name of the well that the groups of a match give."""
    if "number" in groups:
        if wells is None:
            sizes = ", ".join(map(str, PLATE_FORMATS))
            raise ValueError(
                f"the wells are numbered through the plate, so its size has to be known; give wscnn init --wells with "
                f"one of {sizes}"
            )
        rows, columns = PLATE_FORMATS[wells]
        row, column = divmod(int(groups["number"]) - 1, columns)
        if not 0 <= row < rows:
            raise ValueError(f"a plate of {wells} wells has no well number {int(groups['number'])}; correct --wells")
        return well_name(row, column)
    if "row0" in groups:
        return well_at(str(int(groups["row0"]) + 1), str(int(groups["column0"]) + 1))
    if "row" in groups and groups["row"].isdecimal():
        return well_at(groups["row"], groups["column"])
    return well_name(*parse_well(groups.get("well", "") or groups["row"] + groups["column"]))


_ADVICE = "give a pattern (acquisition.pattern), or list the images in a table (acquisition.table)"
# Names are cut at these; runs of letters and digits within the parts are told apart next.
_CUT = re.compile(r"([^A-Za-z\d]+)", re.ASCII)
_RUN = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+", re.ASCII)
# Names of stains and light by which a varying word is known for a channel.
_STAIN = re.compile(
    r"dapi|hoechst.*|e?gfp|fitc|cy\d.*|tritc|rhod.*|texas.*|m?cherry|tdtomato|rfp|yfp|cfp|alexa.*|af\d{3}|a\d{3}|bf|dic"
    r"|phase.*|bright.*|trans.*|dna|nuc.*|h2b|actin|phalloidin|tubulin|er|cona|rna|syto.*|agp|wga|golgi|mito.*|lamp\d"
    r"|ph3|blue|green|orange|red|far ?red|confocal.*|\d{3}(nm)?",
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
        raise UserError(f"files are named in several ways ({examples}); {_ADVICE}")
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
    return joined if joined in _HINTS or not runs else runs[-1]


def _find_well(parts: list[_Part], names: Sequence[str]) -> None:
    """Mark the parts that name the well: a letter and a number beside each other, or rows and columns as numbers."""
    pairs = []
    words = [i for i, part in enumerate(parts) if part.values[0].isalnum()]
    for i, j in pairwise(words):
        letter, number = parts[i], parts[j]
        lettered = all(re.fullmatch(r"[A-P]|A[A-F]", value, re.IGNORECASE) for value in letter.values)
        # The letter of "plateA" or "exp B" is no row.
        lettered = lettered and _letters_before(parts, i) in ("", "well", "point")
        numbered = number.digits and all(1 <= int(value) <= 48 for value in number.values)
        # Where all wells lie in one row its letter may be taken for a hint, as in f01: rows are capital letters.
        single = j == i + 1 and letter.values[0].isupper() and letter.values[0].lower() not in _HINTS
        if lettered and numbered and (letter.varies or single):
            pairs.append((i, j))
    rows = [i for i in words if parts[i].digits and parts[i].hint in ("r", "row")]
    columns = [i for i in words if parts[i].digits and parts[i].hint in ("c", "col", "column")]
    if len(rows) == 1 and len(columns) == 1:
        pairs.append((rows[0], columns[0]))
    # What is the same in all names, such as P5 in "HeLa P5", is not the well.
    pairs = [(i, j) for i, j in pairs if parts[i].varies or parts[j].varies or len(names) == 1]
    if not pairs and any(parts[i].digits and parts[i].hint == "well" for i in words):
        raise UserError(f"'{names[0]}' numbers the wells, but not in which order; {_ADVICE}")
    if not pairs:
        raise UserError(f"'{names[0]}' does not show which part names the well; {_ADVICE}")
    # A well may be named twice, by its folder and its files.
    if len({tuple(_positions(parts[i], parts[j])) for i, j in pairs}) > 1:
        one, two = ("".join(parts[k].values[0] for k in pair) for pair in pairs[:2])
        raise UserError(f"'{names[0]}': both {one} and {two} may be the well; {_ADVICE}")
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
        kind = _HINTS.get(part.hint, "") if part.digits else ""
        if kind and not (part.varies and _follows(part.values, wells)):
            if any(other.kind == kind for other in parts):
                raise UserError(f"'{names[0]}' names the {kind} twice, it seems; {_ADVICE}")
            part.kind = kind
        elif part.varies and not _follows(part.values, wells):
            unexplained.append(part)
    well = _row_of(parts)
    # Needed are the parts without which two files would be one image. What stands before the well may be a plate once
    # it is known what tells channels apart.
    for part in sorted(unexplained, key=lambda part: (part.digits, parts.index(part) < well)):
        others = [other for other in parts if other.kind or (other in unexplained and other is not part)]
        if len(set(_joined(others))) == len(names):
            continue
        taken = {other.kind for other in parts}
        before = parts.index(part) < well
        stains = sum(_STAIN.fullmatch(value) is not None for value in set(part.values))
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
        raise UserError(f"'{names[0]}': it is not clear what '{example}' means; {_ADVICE}")


def _alone(part: _Part, parts: Sequence[_Part]) -> bool:
    """Return whether a number is the only one among `parts` of which nothing says what it counts."""
    bare = [other for other in parts if other.digits and not other.kind and not other.hint]
    return bare == [part] and max(map(len, part.values)) < 5


def _row_of(parts: Sequence[_Part]) -> int:
    """Return the position of the part that names the well's row."""
    return next(i for i, part in enumerate(parts) if part.kind in ("row", "row0"))


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
    well = _row_of(parts)
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
            case "field" | "z" | "time" | "row0" | "column0":
                text += rf"(?P<{part.kind}>\d+)"
            case "channel":
                text += r"(?P<channel>\d+)" if part.digits else "(?P<channel>[^/]+?)"
            case _ if part.values[0].isalnum() and (part.varies or i < well):
                text += r"\d+" if part.digits else "[^/]*?"
            case _:
                text += re.escape(part.values[0])
    return re.sub(r"(\[\^/\]\*\?)+", r"[^/]*?", text)
