"""Real RPE-1 nuclei, the rare ones with micronuclei beside them."""

from functools import cache
from typing import NamedTuple

import numpy as np

from wscnn.simulate.cells import Drawn, check_groups, draw_transform, read_tiles, transform

#: The phenotypes that these nuclei can show and the classes of nuclei that count as each.
MICRONUCLEI_PHENOTYPES: dict[str, tuple[str, ...]] = {"micronuclei": ("Micronucleated",)}

# Grey level of the 80th percentile of each nucleus in the sheet (resources/pack_micronuclei.py).
_LEVEL = 120
# Brightness varies as much with micronuclei as without.
_LEVEL_SPREAD = 0.25
# Room to rotate a nucleus and to enlarge it by four standard deviations, pixels.
_ROOM, _MARGIN = 1.45, 2


class MicronucleatedNuclei:
    """RPE-1 nuclei without and with micronuclei (MNFinder; see ``resources/README.md``).

    The image that a nucleus comes from is drawn before the class, in proportion to all nuclei of the image and evenly
    over the dates, so that neither size nor sharpness of an image's nuclei reveals the class.

    Parameters
    ----------
    groups
        Acquisition dates to take nuclei from; all four if none is given.

    Raises
    ------
    UserError
        When a date is not known.
    """

    groups: tuple[str, ...] = ("2022-03-18", "2022-04-14", "2022-05-25", "2022-05-26")
    # Dense, as in culture, with room for micronuclei between nuclei of 25 px.
    spacing = 45.0
    distance = 1.0
    # Overlapping nuclei add up.
    merge: np.ufunc = np.add

    def __init__(self, *groups: str) -> None:
        check_groups(groups, self.groups)
        self._by_date: list[list[_Nucleus]] = []
        self._by_source: dict[tuple[str, str], list[_Nucleus]] = {}
        for date in groups or self.groups:
            nuclei = [nucleus for nucleus in _nuclei() if nucleus.date == date]
            self._by_date.append(nuclei)
            for nucleus in nuclei:
                self._by_source.setdefault((nucleus.source, nucleus.kind), []).append(nucleus)

    def draw(self, rng: np.random.Generator, phenotype: str) -> Drawn:
        kind = MICRONUCLEI_PHENOTYPES[phenotype][0] if phenotype else "Ordinary"
        of_date = self._by_date[rng.integers(len(self._by_date))]
        nuclei = self._by_source[of_date[rng.integers(len(of_date))].source, kind]
        nucleus = nuclei[rng.integers(len(nuclei))]
        inverse = draw_transform(rng, 1.0)
        mask = transform(nucleus.mask, inverse) > 0.5
        signal = transform(nucleus.signal, inverse) * np.float32(rng.lognormal(0, _LEVEL_SPREAD))
        return Drawn(signal, mask, kind, nucleus.source)


class _Nucleus(NamedTuple):
    signal: np.ndarray  # (side, side) float32, brightness 1
    mask: np.ndarray  # (side, side) float32, 1 in the nucleus and its micronuclei
    kind: str
    date: str
    source: str


@cache
def _nuclei() -> list[_Nucleus]:
    """Return all nuclei, each in a frame that holds it at any rotation."""
    tiles, rows = read_tiles("micronuclei")
    return [
        _Nucleus(
            _framed(tile[..., 0], tile[..., 1] > 0) / np.float32(_LEVEL),
            _framed(tile[..., 1] > 0, tile[..., 1] > 0),
            row["class"],
            row["date"],
            row["source"],
        )
        for tile, row in zip(tiles, rows, strict=True)
    ]


def _framed(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return `image` padded or cropped about its centre, so that `mask` can be rotated about it: float32."""
    y, x = np.nonzero(mask)
    middle = image.shape[0] / 2
    radius = np.hypot(y + 0.5 - middle, x + 0.5 - middle).max()
    change = int(np.ceil(_ROOM * radius)) + _MARGIN - image.shape[0] // 2
    cut = slice(-change, change) if change < 0 else slice(None)
    return np.pad(image.astype(np.float32)[cut, cut], max(change, 0))
