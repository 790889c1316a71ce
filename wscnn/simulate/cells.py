"""Real nuclei to compose fields from: each cut out with a soft edge, then rotated, mirrored and scaled at random."""

import csv
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, Protocol

import numpy as np
from scipy import ndimage
from skimage.io import imread
from skimage.morphology import h_maxima
from skimage.segmentation import watershed

from wscnn.core.config import shipped
from wscnn.core.errors import UserError

#: The phenotypes that nuclei can show and the classes of nuclei that count as each.
NUCLEI_PHENOTYPES: dict[str, tuple[str, ...]] = {
    "mitotic": ("Prometaphase", "Metaphase", "Anaphase"),
    "prometaphase": ("Prometaphase",),
    "metaphase": ("Metaphase",),
    "anaphase": ("Anaphase",),
}

_TILE = 64
# Condensed chromatin is brighter: mitotic nuclei in the crops are 1.9 times as bright as the interphase nuclei beside
# them (median of 22 neighbours of prometaphases and of 8 of metaphases, each near 2). The spread makes the classes
# overlap.
_MITOTIC_LEVEL = 1.9
_LEVEL_SPREAD = 0.3
# Range of pixels between the two daughters of an anaphase, early to late.
_DAUGHTERS_APART = (14, 19, 24)


class Drawn(NamedTuple):
    """One cell to paste."""

    signal: np.ndarray  # (h, w) float32, zero at the border; the brightness of an ordinary cell is about 1
    mask: np.ndarray  # (h, w) bool, where the cell is
    kind: str
    source: str


class CellBank(Protocol):
    """Interface of a kind of cells."""

    #: Groups of sources that share no cell, to draw controls and samples from different cells; empty for drawn cells.
    groups: tuple[str, ...]
    #: Mean side of the square that one cell occupies, in pixels.
    spacing: float
    #: Minimum distance of two neighbours, over the sum of their radii.
    distance: float
    #: How a cell's light is combined with what is already in the image.
    merge: np.ufunc

    def draw(self, rng: np.random.Generator, phenotype: str) -> Drawn:
        """Return a new cell that shows `phenotype`; an ordinary one where that is empty."""
        ...


class Mixed:
    """Ordinary cells from one bank, cells with a phenotype from another of the same kind."""

    def __init__(self, ordinary: CellBank, rare: CellBank) -> None:
        self._ordinary, self._rare = ordinary, rare
        self.groups, self.spacing, self.distance, self.merge = rare.groups, rare.spacing, rare.distance, rare.merge

    def draw(self, rng: np.random.Generator, phenotype: str) -> Drawn:
        return (self._rare if phenotype else self._ordinary).draw(rng, phenotype)


class Nuclei:
    """Interphase and mitotic HeLa nuclei (MitoCheck; see ``resources/README.md``).

    Parameters
    ----------
    groups
        Halves of the source plates to take nuclei from: ``first``, ``second``; both if none is given. The halves share
        no source, so that a network can be tested on unseen nuclei.

    Raises
    ------
    UserError
        When a group is not known.
    """

    groups: tuple[str, ...] = ("first", "second")
    spacing = 90.0
    distance = 1.0
    # Overlapping nuclei add up.
    merge: np.ufunc = np.add

    def __init__(self, *groups: str) -> None:
        check_groups(groups, self.groups)
        self._by_class: dict[str, list[_Nucleus]] = {}
        for nucleus in _nuclei():
            if nucleus.half in (groups or self.groups):
                self._by_class.setdefault(nucleus.kind, []).append(nucleus)

    def draw(self, rng: np.random.Generator, phenotype: str) -> Drawn:
        kinds = NUCLEI_PHENOTYPES[phenotype] if phenotype else ("Interphase",)
        kind = kinds[rng.integers(len(kinds))]
        nuclei = self._by_class[kind]
        nucleus = nuclei[rng.integers(len(nuclei))]
        variant = nucleus.variants[rng.integers(len(nucleus.variants))]
        signal = transform(variant, draw_transform(rng, nucleus.scale))
        mask = signal > 0.3
        level = (_MITOTIC_LEVEL if phenotype else 1.0) * rng.lognormal(0, _LEVEL_SPREAD)
        return Drawn(signal * np.float32(level), mask, kind, nucleus.source)


class _Nucleus(NamedTuple):
    variants: list[np.ndarray]  # each (64, 64) float32, brightness 1
    kind: str
    source: str
    half: str
    scale: float


@cache
def _nuclei() -> list[_Nucleus]:
    """Return all usable nuclei, cut out of their crops."""
    images, rows = read_tiles("nuclei")
    nuclei = []
    for image, row in zip(images, rows, strict=True):
        if not row["left_out"]:
            signal = cut_out(image)
            variants = [pair(signal, apart) for apart in _DAUGHTERS_APART] if row["class"] == "Anaphase" else [signal]
            nuclei.append(_Nucleus(variants, row["class"], row["source"], row["half"], float(row["scale"])))
    return nuclei


def read_tiles(name: str) -> tuple[np.ndarray, list[dict[str, str]]]:
    """Return the tiles of a sheet that ships with the package, and its table.

    Parameters
    ----------
    name
        ``nuclei`` or ``micronuclei``: the names of both files in ``resources`` without their endings.

    Returns
    -------
    tiles
        (n, 64, 64) uint8, or (n, 64, 64, 2) where the sheet has an alpha channel.
    rows
        One row per tile; ``resources/README.md`` describes the columns.
    """
    with shipped(f"resources/{name}.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    sheet = imread(shipped(f"resources/{name}.png"))
    down, across = (side // _TILE for side in sheet.shape[:2])
    tiles = sheet.reshape(down, _TILE, across, _TILE, *sheet.shape[2:]).swapaxes(1, 2)
    return tiles.reshape(-1, _TILE, _TILE, *sheet.shape[2:])[: len(rows)], rows


def cut_out(crop: np.ndarray) -> np.ndarray:
    """Return the nucleus in the middle of a crop, without background and neighbours, fading to 0 at its edge.

    Parameters
    ----------
    crop
        (h, w), any dtype.

    Returns
    -------
    np.ndarray
        (h, w) float32; 1 is the 80th percentile of the nucleus' brightness.
    """
    # Light smoothing removes the noise of the source camera: the field gets its own noise.
    smooth = ndimage.gaussian_filter(crop.astype(np.float32), 0.8)
    smooth -= np.percentile(smooth, 20)
    y, x = np.indices(crop.shape) - (np.array(crop.shape)[:, None, None] - 1) / 2
    centre = np.hypot(y, x)
    bright = smooth > 0.3 * np.percentile(smooth[centre < 7], 80)
    bright = ndimage.binary_fill_holes(ndimage.binary_closing(bright, iterations=2))
    # Touching nuclei are separated at the waist between them, where it is at least half a pixel narrower than either.
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(bright), 1.5)
    parts = watershed(-depth, ndimage.label(h_maxima(depth, 0.5))[0], mask=bright)
    own = parts == parts.flat[np.where(parts > 0, centre, np.inf).argmin()]
    others = ndimage.binary_dilation(bright & ~own)
    reach = own | (ndimage.binary_dilation(own, iterations=2) & ~others)
    signal = np.clip(smooth, 0, None) * ndimage.gaussian_filter(reach.astype(np.float32), 0.8)
    return (signal / np.percentile(signal[own], 80)).astype(np.float32)


def pair(daughter: np.ndarray, apart: float) -> np.ndarray:
    """Return a late anaphase: a daughter plate and its mirror image, `apart` pixels between them.

    Crops of anaphases are centred on one daughter and cut off the other; alone it would look like a metaphase.
    """
    y, x = np.indices(daughter.shape, dtype=np.float64)
    weight = daughter / daughter.sum()
    y -= (weight * y).sum()
    x -= (weight * x).sum()
    # The long axis of the plate, by second moments, is rotated upright.
    angle = 0.5 * np.arctan2(2 * (weight * y * x).sum(), (weight * (x * x - y * y)).sum())
    cos, sin = np.cos(angle - np.pi / 2), np.sin(angle - np.pi / 2)
    middle = (np.array(daughter.shape) - 1) / 2
    shift = np.array([0, apart / 2])
    turn = np.array([[cos, sin], [-sin, cos]])
    one = ndimage.affine_transform(daughter, turn, middle - turn @ (middle + shift), order=1)
    return one + one[:, ::-1]


def draw_transform(rng: np.random.Generator, scale: float) -> np.ndarray:
    """Return a random transform for `transform`: rotation, mirroring, scaling by about `scale`, slight stretching.

    Returns
    -------
    np.ndarray
        (2, 2), from positions (y, x) in the new image to those in the old one, both relative to the middle.
    """
    angle = rng.uniform(0, 2 * np.pi)
    zoom = scale * rng.lognormal(0, 0.08) * np.exp(rng.uniform(-0.06, 0.06) * np.array([1.0, -1.0]))
    cos, sin = np.cos(angle), np.sin(angle)
    mirror = np.array([1.0, rng.choice([-1.0, 1.0])])
    return (mirror / zoom)[:, None] * np.array([[cos, -sin], [sin, cos]])


def transform(image: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Return `image` transformed by `inverse` (see `draw_transform`) about its centre, in the same frame."""
    middle = (np.array(image.shape) - 1) / 2
    return ndimage.affine_transform(image, inverse, middle - inverse @ middle, order=1)


def check_groups(groups: Sequence[str], known: Sequence[str]) -> None:
    """Raise a UserError unless every group of sources in `groups` is `known`."""
    for group in groups:
        if group not in known:
            raise UserError(f"'{group}' is not a group of sources of these cells; use {', '.join(known) or 'none'}")


def check_phenotypes(phenotypes: Sequence[str], known: dict[str, tuple[str, ...]]) -> None:
    """Raise a UserError unless `phenotypes` are `known`, named once and share no class of cells."""
    for phenotype in phenotypes:
        if phenotype not in known:
            raise UserError(f"phenotypes: '{phenotype}' is not known for these cells; use {', '.join(known)}")
    classes = [kind for phenotype in phenotypes for kind in known[phenotype]]
    if len(set(classes)) < len(classes):
        raise UserError(f"phenotypes: {', '.join(phenotypes)} overlap; choose some that share no class of cells")
