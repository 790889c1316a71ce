"""Naming schemes of instruments: what the name of a file says of its image."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from wscnn.acquisitions.metadata import well_at
from wscnn.core.errors import UserError
from wscnn.core.wells import PLATE_FORMATS, parse_well, well_name

#: Extensions of the files that are treated as images.
IMAGES = (".tif", ".tiff")

_WELL = r"[A-P](?:0?[1-9]|1\d|2[0-4])"

_TIFF = r"(?i:\.tiff?)"

_GUID = r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"

# Groups of a scheme that `acquisition.pattern` does not have.
_BEYOND = {"row0", "column0", "number", "field_y", "field_x", "days", "hours", "minutes"}

# The letters before a number, or before a name, that say what it counts.
HINTS = {
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
        What such names leave open, with what to do about it; empty where they are complete.
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


#: Instruments whose files need no reader of their own, the most specific names first.
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


def match_name(scheme: Scheme, name: str) -> re.Match[str] | None:
    return re.fullmatch(scheme.pattern, name if "/" in scheme.pattern else name.rpartition("/")[2], re.ASCII)


# Fields of a well in one row are fewer than this.
_FIELDS_PER_ROW = 1_000_000


def read_name(scheme: Scheme, name: str, wells: int | None = None) -> Image:
    """Return what a name that the scheme matches says."""
    match = match_name(scheme, name)
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


ADVICE = "give a pattern (acquisition.pattern), or list the images in a table (acquisition.table)"

# Names of stains and light by which a varying word is recognised as a channel.
STAIN = re.compile(
    r"dapi|hoechst.*|e?gfp|fitc|cy\d.*|tritc|rhod.*|texas.*|m?cherry|tdtomato|rfp|yfp|cfp|alexa.*|af\d{3}|a\d{3}|bf|dic"
    r"|phase.*|bright.*|trans.*|dna|nuc.*|h2b|actin|phalloidin|tubulin|er|cona|rna|syto.*|agp|wga|golgi|mito.*|lamp\d"
    r"|ph3|blue|green|orange|red|far ?red|confocal.*|\d{3}(nm)?",
    re.IGNORECASE | re.ASCII,
)
