"""Effects of the position on the plate on scores: their size, and the mildest correction that removes them."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import f as f_law

from wscnn.statistics.arrays import Array, Mask
from wscnn.statistics.normalize import polish_residuals, position_terms, surface_residuals, surface_score

#: Position has an effect if noise alone would explain it with a smaller probability than this.
LEVEL = 0.01

#: Row and column effects are polished where they explain more than this share of the variance that a surface leaves.
LEAST_SHARE = 0.15

#: A correction may enlarge the variance of negative controls around their plate's mean by no more than this: it would
#: then remove effects of samples that are laid out in rows or columns.
LARGEST_GROWTH = 1.05

# Scores are clipped at this many robust standard deviations: hits must not look like effects of position.
_CLIP = 2.5


@dataclass(frozen=True)
class Choice:
    """How a screen is normalised.

    Attributes
    ----------
    method
        ``samples``, ``surface`` or ``bscore``.
    why
        The reason, in words.
    """

    method: str
    why: str


def choose(values: Array, fitted: Mask, negative: Mask, rows: Mask, columns: Mask) -> Choice:
    """Return the mildest normalisation that removes effects of position from samples and negative controls.

    Parameters
    ----------
    values
        (plates, R, C) scores of samples and negative controls, NaN elsewhere.
    fitted, negative
        (plates, R, C) all these wells, and the negative controls among them.
    rows, columns
        (plates, R) and (plates, C): those that hold enough perturbations to estimate effects of position.
    """
    flat = surface_score(values, fitted, flat=True)
    smooth_p, smooth_share = _smooth(flat, fitted, rows, columns)
    smooth = smooth_p < LEVEL
    surface = surface_residuals(flat, fitted, rows, columns) if smooth else flat
    lines_p, lines_share = _lines(surface, rows, columns)
    corrections = []
    if lines_p < LEVEL and lines_share > LEAST_SHARE:
        why = f"row and column effects explain {lines_share:.0%} of the variance"
        corrections.append((polish_residuals(flat, fitted, rows, columns), Choice("bscore", why)))
    if smooth:
        why = f"a smooth effect of position explains {smooth_share:.0%} of the variance"
        corrections.append((surface, Choice("surface", why)))
    for corrected, choice in corrections:
        if _growth(flat, corrected, negative) <= LARGEST_GROWTH:
            return choice
    if corrections:
        return Choice("samples", "what looks like an effect of position is not seen in the negative controls")
    return Choice("samples", "no effect of position was measured")


def _smooth(values: Array, fitted: Mask, rows: Mask, columns: Mask) -> tuple[float, float]:
    """Return the p-value of a smooth surface over all plates, and its share of the variance."""
    explained, left = np.zeros(2), np.zeros(2)
    for plate in range(len(values)):
        known = fitted[plate] & np.isfinite(values[plate])
        if not known.any():
            continue
        terms = position_terms(known, rows[plate], columns[plate])[known]
        y = np.clip(values[plate][known], -_CLIP, _CLIP)
        residual = y - terms @ np.linalg.lstsq(terms, y, rcond=None)[0]
        total, rest = float(((y - y.mean()) ** 2).sum()), float((residual**2).sum())
        explained += (total - rest, terms.shape[1] - 1)
        left += (rest, len(y) - terms.shape[1])
    return _f_test(explained, left)


def _lines(values: Array, rows: Mask, columns: Mask) -> tuple[float, float]:
    """Return the smaller p-value of row and column effects over all plates, and the larger share of the variance."""
    found = []
    for axis, telling in ((1, rows), (2, columns)):
        y = np.where(np.expand_dims(telling, 3 - axis), np.clip(values, -_CLIP, _CLIP), np.nan)
        count = np.isfinite(y).sum(axis=3 - axis)
        lines = np.nansum(y, axis=3 - axis) / np.maximum(count, 1)
        centre = np.nansum(y, axis=(1, 2)) / np.maximum(count.sum(axis=1), 1)
        between = float((count * (lines - centre[:, None]) ** 2).sum())
        within = float(np.nansum((y - np.expand_dims(lines, 3 - axis)) ** 2))
        used = (count > 0).sum(axis=1)
        n_between = int(np.maximum(used - 1, 0).sum())
        found.append(_f_test((between, n_between), (within, int(count.sum() - used.sum()))))
    (row_p, row_share), (column_p, column_share) = found
    return 2 * min(row_p, column_p), max(row_share, column_share)


def _f_test(explained: Array | tuple[float, int], left: Array | tuple[float, int]) -> tuple[float, float]:
    """Return the p-value of an F test and the share of variance beyond what noise explains; each (sum, degrees)."""
    if explained[1] < 1 or left[1] < 1 or not left[0] > 0:
        return 1.0, 0.0
    noise = left[0] / left[1]
    share = max(0.0, (explained[0] - explained[1] * noise) / (explained[0] + left[0]))
    return float(f_law.sf(explained[0] / explained[1] / noise, explained[1], left[1])), float(share)


def _growth(before: Array, after: Array, negative: Mask) -> float:
    """Return the factor by which a correction enlarges the variance of negative controls; 1 where it is not known."""

    def variance(values: Array) -> float:
        wells = np.where(negative, np.clip(values, -2 * _CLIP, 2 * _CLIP), np.nan)
        centre = np.nansum(wells, axis=(1, 2)) / np.maximum(np.isfinite(wells).sum(axis=(1, 2)), 1)
        return float(np.nansum((wells - centre[:, None, None]) ** 2))

    return variance(after) / variance(before) if variance(before) > 0 else 1.0
