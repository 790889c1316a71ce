"""Uneven illumination of the fields, estimated per plate and channel and divided out.

The model is that of retrospective correction: a field is ``offset + gain * scene``, with a smooth gain (lamp and
lens) common to all fields of a channel and the camera's offset, which does not depend on the optics. It follows the
idea of CIDRE (Smith et al., Nature Methods 12, 404-406, 2015): at each position in the field, the values of many fields
have, once sorted, the same distribution up to gain and offset. So background and cells of all densities contribute:
sparse fields show the gain by their background, confluent ones by their cells, and what occurs in few fields (dirt,
fibres) changes only the highest values, which are left out.
"""

import numpy as np

from wscnn.core.robust import MAD_TO_SD

# Side of the grid of tiles on which the gain is estimated. Gains are smooth; tiles of a twentieth of the field follow
# them closely and hold enough pixels for the noise to vanish.
_TILES = 20
# Quantiles over fields that are compared between tiles. None above 0.9: one field in ten may hold dirt anywhere.
_QUANTILES = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
# With fewer fields than this the gain cannot be separated from the cells: no correction.
_MIN_FIELDS = 4
# With fewer fields than this only the coarsest shape (a paraboloid) is fitted.
_MANY_FIELDS = 24
_ROUNDS = 12
# Lower bound of the gain as a fraction of its mean: a guard against division by almost zero.
_MIN_GAIN = 0.1
# With fewer fields than this the camera's offset cannot be separated from their own unevenness: no offset is assumed.
_OFFSET_FIELDS = 64
# By how much (twice the log likelihood) an offset must improve the fit to be accepted. In simulated plates chance
# reached 48; true offsets of at least a third of the background gave 110 to 380.
_OFFSET_GAIN = 80.0
_INDEPENDENT = 3


def tiles(field: np.ndarray) -> np.ndarray:
    """Return the mean of each tile of a field (y, x) as a grid (float64, at most 20 x 20) for `estimate`."""
    rows, columns = (np.linspace(0, side, min(_TILES, side), endpoint=False).astype(int) for side in field.shape)
    sums = np.add.reduceat(np.add.reduceat(field, rows, axis=0, dtype=np.float64), columns, axis=1)
    heights, widths = np.diff(rows, append=field.shape[0]), np.diff(columns, append=field.shape[1])
    return sums / np.outer(heights, widths)


def estimate(grids: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, float]:
    """Return gain map (y, x; float32, mean 1) and offset of a channel from a sample of its fields.

    The gain is estimated from two halves of the sample as well; what the halves do not agree on is noise, and the
    estimate is shrunk towards a flat one by that fraction. A plate that is flat already therefore stays unchanged, as
    does one with too few fields.

    Parameters
    ----------
    grids
        Shape (field, tile row, tile column): `tiles` of each sampled field.
    shape
        Height and width of the map to return.
    """
    n, rows, columns = grids.shape
    flat = np.ones(shape, np.float32)
    if n < _MIN_FIELDS or min(rows, columns) < 3:
        return flat, 0.0
    values = grids.reshape(n, -1).astype(np.float64)
    basis = _polynomials((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, _degree(n))
    quantiles = np.quantile(values, _QUANTILES, axis=0)
    if quantiles.max() <= 0:
        return flat, 0.0
    offset = _offset(quantiles, basis) if n >= _OFFSET_FIELDS else 0.0
    coefficients = _fit(quantiles - offset, basis)[0]
    halves = (np.quantile(values[half::2], _QUANTILES, axis=0) for half in (0, 1))
    first, second = (basis @ _fit(half - offset, basis)[0] - 1 for half in halves)
    agreed, total = float(np.mean(first * second)), float(np.mean(first**2 + second**2)) / 2
    r = max(0.0, agreed / total) if total > 0 else 0.0
    trust = 2 * r / (1 + r)  # Spearman-Brown: from the reliability of half the sample to that of the whole
    fine = _polynomials((np.arange(shape[0]) + 0.5) / shape[0], (np.arange(shape[1]) + 0.5) / shape[1], _degree(n))
    gain = np.maximum(1 + trust * (fine @ coefficients - 1), _MIN_GAIN).reshape(shape)
    return (gain / gain.mean()).astype(np.float32), offset


def correct(field: np.ndarray, gain: np.ndarray, offset: float) -> np.ndarray:
    """Return the field (float32) as even illumination would show it: ``(field - offset) / gain + offset``."""
    corrected = np.subtract(field, np.float32(offset), dtype=np.float32)
    corrected /= gain
    corrected += np.float32(offset)
    return corrected


def _degree(n_fields: int) -> int:
    return 4 if n_fields >= _MANY_FIELDS else 2


def _polynomials(y: np.ndarray, x: np.ndarray, degree: int) -> np.ndarray:
    """Return all products of Legendre polynomials in y and x up to a total degree, shape (len(y) * len(x), terms)."""
    along = [np.polynomial.legendre.legvander(2 * axis - 1, degree) for axis in (y, x)]
    terms = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i)]
    return np.stack([np.outer(along[0][:, i], along[1][:, j]).ravel() for i, j in terms], axis=1)


def _offset(quantiles: np.ndarray, basis: np.ndarray) -> float:
    """Return the camera's offset that explains the quantiles (quantile, tile) best; 0 unless clearly better."""
    lowest = float(quantiles.min())
    # The offset is below the darkest tile, perhaps only just: the medium may be almost black.
    offsets = lowest * (1 - np.geomspace(0.004, 1, 60))
    misfits = [_fit(quantiles - offset, basis)[1] for offset in offsets]
    best = int(np.argmin(misfits))
    return float(offsets[best]) if misfits[best] < misfits[-1] - _OFFSET_GAIN else 0.0


def _fit(quantiles: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, float]:
    """Fit ``quantiles[q, tile] = level[q] * gain[tile]``; return the gain's coefficients (mean 1) and the misfit.

    Each quantile is weighted by its own scatter about the fit (the background is more informative than the cells);
    tiles far from the fit (dirt on the optics) lose weight. The misfit is minus twice the logarithm of the likelihood.
    """
    levels = np.median(quantiles, axis=1)
    scatter = np.maximum(levels, 1e-9)
    trusted = np.ones(quantiles.shape[1])
    for _ in range(_ROUNDS):
        weights = (levels / scatter) ** 2 + 1e-12
        ratio = (weights @ (quantiles / np.maximum(levels, 1e-9)[:, None])) / weights.sum()
        root = np.sqrt(trusted)
        coefficients = np.linalg.lstsq(basis * root[:, None], ratio * root, rcond=None)[0]
        gain = basis @ coefficients
        coefficients, gain = coefficients / gain.mean(), gain / gain.mean()
        levels = (quantiles * trusted) @ gain / ((trusted * gain) @ gain)
        residual = quantiles - levels[:, None] * gain
        scatter = np.maximum(MAD_TO_SD * np.median(np.abs(residual), axis=1), 1e-6 * np.maximum(levels, 1e-3))
        off = np.abs(ratio - gain) / max(MAD_TO_SD * float(np.median(np.abs(ratio - gain))), 1e-9)
        trusted = np.minimum(1.0, 3.0 / np.maximum(off, 1e-9)) ** 2
    # Neighbouring quantiles are strongly correlated: together they count as a few.
    return coefficients, quantiles.shape[1] * _INDEPENDENT * 2 * float(np.log(scatter).mean())
