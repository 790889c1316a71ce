"""Drawn cells stained in the cytoplasm, nuclei showing as holes; the rare ones have two to four."""

import numpy as np
import pandas as pd
from scipy import ndimage

from wscnn.core.errors import UserError
from wscnn.simulate.cells import Drawn
from wscnn.simulate.fields import compose, expose, optics

#: The phenotypes that drawn cells can show and the classes of cells that count as each.
MULTINUCLEATE_PHENOTYPES: dict[str, tuple[str, ...]] = {"multinucleate": ("2 nuclei", "3 nuclei", "4 nuclei")}

# Probability that a multinucleate cell has two, three and four nuclei.
_NUCLEI = np.array([0.6, 0.25, 0.15])
_PATCH = 176
_TEXTURE = 1024
# Stain that remains where a nucleus is: light from above and below it.
_HOLE = 0.28


class MultinucleateCells:
    """Cells as an antibody against the endoplasmic reticulum shows them at 40x: bright around the nuclei, a grainy
    network that thins out towards the edge, dark nuclei. Multinucleate cells are somewhat larger, their nuclei smaller,
    after the cells that failed to divide in Sailem et al. (ICCV Workshops 2017).
    """

    groups: tuple[str, ...] = ()
    spacing = 120.0
    distance = 0.88
    # Cells abut, and their light does not add up.
    merge: np.ufunc = np.maximum

    def __init__(self) -> None:
        # One large sheet of grain, from which each cell gets a random part; the same for every screen.
        rng = np.random.default_rng(0)
        fine, coarse = (_grain(rng, sigma) for sigma in (1.2, 4.0))
        self._texture = np.exp(0.22 * fine + 0.18 * coarse).astype(np.float32)

    def draw(self, rng: np.random.Generator, phenotype: str) -> Drawn:
        n = int(rng.choice([2, 3, 4], p=_NUCLEI)) if phenotype else 1
        radius = 42 * rng.lognormal(0, 0.14) * (1.12 if n > 1 else 1.0)
        radius = min(radius, 0.36 * _PATCH)
        y, x = _axes()
        # An outline with a few waves around an ellipse.
        angle, stretch = rng.uniform(0, np.pi), rng.lognormal(0, 0.12)
        along = (x * np.cos(angle) + y * np.sin(angle)) / np.float32(stretch)
        across = (y * np.cos(angle) - x * np.sin(angle)) * np.float32(stretch)
        far = np.hypot(along, across) + np.float32(1e-3)
        turn = (along + 1j * across) / far
        outline = np.ones_like(far)
        wave = np.ones_like(turn)
        for k in range(1, 6):
            wave = wave * turn
            if k > 1:
                outline += (wave * np.complex64(rng.normal(0, 0.13 / k) + 1j * rng.normal(0, 0.13 / k))).real
        inside = far / (np.float32(radius) * outline)
        edge = 1 / (1 + np.exp(np.clip((inside - 1) * 14, -30, 30)))
        centre = 0.1 * radius * rng.normal(size=2)
        holes = _nuclei(rng, n, 0.43 * radius, centre, y, x)
        # The stain is densest around the nuclei and thins out where the cell is flat.
        body = (0.35 + 0.75 * np.exp(-1.6 * np.clip(holes - 1, 0, None))) * edge
        signal = body * self._cut(rng)
        nucleus = 1 / (1 + np.exp(np.clip((holes - 1) * 11, -30, 30)))
        signal *= 1 - (1 - _HOLE) * nucleus
        signal *= rng.lognormal(0, 0.2)
        return Drawn(signal.astype(np.float32), inside < 1, f"{n} nuclei" if n > 1 else "1 nucleus", "drawn")

    def _cut(self, rng: np.random.Generator) -> np.ndarray:
        top, left = rng.integers(0, _TEXTURE - _PATCH, 2)
        texture = self._texture[top : top + _PATCH, left : left + _PATCH]
        return texture.T if rng.random() < 0.5 else texture


def _axes() -> tuple[np.ndarray, np.ndarray]:
    along = np.arange(_PATCH, dtype=np.float32) - _PATCH // 2
    return along[:, None], along[None, :]


def _nuclei(
    rng: np.random.Generator, n: int, radius: float, centre: np.ndarray, y: np.ndarray, x: np.ndarray
) -> np.ndarray:
    """Return the distance of each position to the nearest of `n` nuclei, in radii of it: below 1 is inside."""
    radius *= n**-0.3
    # Nuclei of one cell are near its centre, side by side, with a narrow seam of cytoplasm between them.
    turn = rng.uniform(0, 2 * np.pi)
    spread = 0.0 if n == 1 else 1.12 * radius / np.sin(np.pi / n)
    nearest = np.full(np.broadcast_shapes(y.shape, x.shape), np.inf, np.float32)
    for i in range(n):
        at = turn + 2 * np.pi * i / n + rng.normal(0, 0.1)
        cy, cx = centre + spread * rng.uniform(0.95, 1.2) * np.array([np.sin(at), np.cos(at)])
        own = radius * rng.lognormal(0, 0.07)
        angle, stretch = rng.uniform(0, np.pi), np.exp(rng.uniform(0.0, 0.16))
        along = ((x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)) / (own * stretch)
        across = ((y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)) / (own / stretch)
        nearest = np.minimum(nearest, np.hypot(along, across))
    return nearest


def _grain(rng: np.random.Generator, sigma: float) -> np.ndarray:
    noise = ndimage.gaussian_filter(rng.standard_normal((_TEXTURE, _TEXTURE), dtype=np.float32), sigma, mode="wrap")
    return noise / noise.std()


def draw_multinucleate(
    n_per_class: int, *, size: int = 540, fraction: float = 0.1, label_noise: float = 0.05, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Draw a stand-in for the cell images of Sailem et al. (ICCV Workshops 2017), which were never published.

    Each field holds 5 to 30 cells. In a positive field each cell is multinucleate with probability `fraction`, and one
    always is.

    Parameters
    ----------
    n_per_class
        Fields of each class.
    size
        Side of a field, pixels.
    fraction
        Probability that a cell in a positive field is multinucleate.
    label_noise
        Fraction of the negative fields that hold one multinucleate cell nevertheless.
    seed
        The same seed gives the same fields.

    Returns
    -------
    images
        (2 * n_per_class, size, size) uint16, negative fields first.
    labels
        (2 * n_per_class,) int64: 0 negative, 1 positive.
    boxes
        One row per cell: ``image, class, rare, y, x, y0, x0, y1, x1`` (pixels, boxes half open).

    Raises
    ------
    UserError
        When a number is out of range.
    """
    if n_per_class < 1 or size < _PATCH:
        raise UserError(f"n_per_class: {n_per_class}, size: {size}; use 1 or more fields of {_PATCH} pixels or more")
    if not (0 <= fraction <= 1 and 0 <= label_noise <= 1):
        raise UserError(f"fraction: {fraction}, label_noise: {label_noise}; use numbers from 0 to 1")
    bank = MultinucleateCells()
    labels = np.repeat([0, 1], n_per_class)
    planted = labels == 1
    rng = np.random.default_rng(seed)
    planted[rng.permutation(n_per_class)[: round(label_noise * n_per_class)]] = True
    images = np.empty((len(labels), size, size), np.uint16)
    rows: list[dict[str, object]] = []
    for i, label in enumerate(labels):
        rng = np.random.default_rng([seed, i])
        light = optics(rng, size, 1.0)
        prevalence = {"multinucleate": fraction * float(label)}
        composed = compose(rng, bank, size, int(rng.integers(5, 31)), prevalence, "multinucleate" if planted[i] else "")
        images[i] = expose(rng, composed.signal, light, 1.0)
        rows += [{"image": i} | cell for cell in composed.cells]
    return images, labels, pd.DataFrame(rows).drop(columns=["phenotype", "source"])
