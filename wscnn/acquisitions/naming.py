"""What file names say: the naming schemes of instruments, and the pattern that a config needs to read them.

Schemes of known instruments are tried first. Otherwise names are cut into letters, digits and separators, and the
parts that vary are explained one by one: a well, then parts whose letters hint at field, channel, plane or time point.
Where two explanations fit, or none, a `UserError` asks the user; nothing is guessed.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from wscnn.acquisitions.inference import inferred
from wscnn.acquisitions.schemes import (
    HINTS,
    IMAGES,
    SCHEMES,
    STAIN,
    Image,
    Naming,
    Scheme,
    match_name,
    read_name,
)
from wscnn.core.errors import UserError


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
        When the names do not identify the images, or may be read in several ways; it says what is not known.
    """
    every = sorted(names)
    images = [name for name in every if name.lower().endswith(IMAGES) and "_thumb" not in name.lower()]
    if not images:
        raise UserError(_no_images(every))
    for scheme in SCHEMES:
        matched = [name for name in images if match_name(scheme, name)]
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
    return inferred(images)


def _may_be_plates(names: Sequence[str]) -> bool:
    """Return whether all images are in top-level folders that may be plates, not time points, planes or channels."""
    folders = {name.partition("/")[0] for name in names}
    counted = (re.fullmatch(r"([A-Za-z]+)[ _-]?\d+", folder) for folder in folders)
    return (
        all("/" in name for name in names)
        and not any(match and match[1].lower() in HINTS for match in counted)
        and not all(map(STAIN.fullmatch, folders))
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
    """Return what names say by a scheme; nothing where two names would be the same image."""
    found = [read_name(scheme, name, wells) for name in names]
    if "field_y" in scheme.pattern:
        number = {field: n for n, field in enumerate(sorted({image.field for image in found}), 1)}
        found = [replace(image, field=number[image.field]) for image in found]
    return found if len({_key(image) for image in found}) == len(found) else []


def _key(image: Image) -> tuple[str, str, int, str, int, int]:
    return image.plate, image.well, image.field, image.channel, image.z, image.time
