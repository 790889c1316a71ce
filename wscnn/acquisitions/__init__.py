"""Readers of what instruments export, one module each; `open_acquisition` chooses among them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wscnn.acquisitions.base import Acquisition, walk
from wscnn.acquisitions.cellvoyager import CellVoyager
from wscnn.acquisitions.image_table import ImageTable
from wscnn.acquisitions.imagexpress import ImageXpress
from wscnn.acquisitions.naming import recognise_names
from wscnn.acquisitions.omezarr import OmeZarr
from wscnn.acquisitions.pattern import Pattern
from wscnn.acquisitions.phenix import Phenix
from wscnn.acquisitions.scanr import ScanR
from wscnn.core.errors import UserError

_READERS: dict[str, type[Acquisition]] = {
    "pattern": Pattern,
    "table": ImageTable,
    "imagexpress": ImageXpress,
    "phenix": Phenix,
    "cellvoyager": CellVoyager,
    "scanr": ScanR,
    "omezarr": OmeZarr,
}


def open_acquisition(images: Path, acquisition: Mapping[str, Any]) -> Acquisition:
    """Return the reader for a folder of images.

    Parameters
    ----------
    images
        A plate's folder, or an OME-Zarr plate.
    acquisition
        The config's section ``acquisition``, complete with defaults. Format ``auto`` is ``pattern`` or ``table``
        where one is given, else what the folder looks like.

    Raises
    ------
    UserError
        When the folder is missing or looks like no known format.
    """
    images = Path(images)
    try:
        found = images.is_dir()
    except OSError as error:
        raise UserError(f"{images}: cannot be read ({error.strerror}); check the path and its permissions") from None
    if not found:
        raise UserError(f"{images}: no such folder; correct the column images in the table of plates")
    name = acquisition["format"]
    if name == "auto":
        given = [key for key in ("pattern", "table") if acquisition[key]]
        name = given[0] if given else recognise(images)
        if name is None:
            raise UserError(f"{images}: not the export of a known instrument; {_proposed(images)}")
    return _READERS[name](images, acquisition)


def recognise(images: Path) -> str | None:
    """Return the format that a folder of images looks like, None where it is not the export of a known instrument."""
    return next((name for name, reader in _READERS.items() if reader.recognises(images)), None)


def _proposed(images: Path) -> str:
    """Return what to do about a folder whose files are described by nothing but their names."""
    try:
        naming = recognise_names(walk(images))
    except UserError as error:
        return f"give acquisition.pattern, a regular expression for the file names, or acquisition.table ({error})"
    if not naming.scheme.expressible:
        return (
            f"files are named in a way that no pattern expresses ({naming.scheme.name or naming.images[0].path}); "
            "wscnn init lists them in a table of images (acquisition.table)"
        )
    first = naming.images[0]
    plate = f"plate {first.plate}, " if first.plate else ""
    return (
        f"{f'files are named as by {naming.scheme.name}; ' if naming.scheme.name else ''}set acquisition.pattern to "
        f"'{naming.scheme.pattern}', by which {first.path} is {plate}well {first.well}, field {first.field}, channel "
        f"{first.channel}, plane {first.z}, time point {first.time}"
    )
