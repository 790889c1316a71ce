"""Dose series: a four-parameter curve per compound with the EC50 and its interval, and a test of a monotone trend."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import f as f_law
from scipy.stats import kendalltau

from wscnn.core.robust import MAD_TO_SD
from wscnn.core.tables import DOSES, conform
from wscnn.core.user_tables import as_numbers, as_text
from wscnn.statistics.arrays import Array
from wscnn.statistics.cautions import Caution

#: Fewer different doses than this give no curve of four parameters.
FEWEST_DOSES = 5

#: A trend, or a curve beside a constant, counts where chance alone would do as much with a smaller probability.
LEVEL = 0.05

#: Of the interval of the EC50.
COVERAGE = 0.95

# Grid of the fit: steps of the EC50 between a tenfold below the lowest and above the highest dose; hill slopes.
_STEPS = 241
_HILLS = np.geomspace(0.3, 8, 25)
# Robust fit: reweighting steps, and Huber's constant for 95 % efficiency.
_ROBUST_STEPS, _HUBER = 5, 1.345


@dataclass(frozen=True)
class Curve:
    """The fit of response = bottom + (top - bottom) / (1 + (ec50 / dose) ^ hill), top above bottom.

    Attributes
    ----------
    status
        ``ok``; ``flat`` (no rising trend, or no better than a constant); ``open`` (the interval of the EC50 is not
        within the doses); ``few doses``. The numbers of the curve are NaN unless it is ``ok``.
    trend_p
        One-sided p of Kendall's rank correlation of dose and response.
    """

    status: str
    trend_p: float
    ec50: float = np.nan
    ec50_low: float = np.nan
    ec50_high: float = np.nan
    hill: float = np.nan
    bottom: float = np.nan
    top: float = np.nan


def fit_curve(dose: Array, response: Array) -> Curve:
    """Return the robust four-parameter fit of a response that rises with the dose.

    Over a grid of EC50 and hill slope, bottom and top are found by weighted least squares with Huber's weights. The
    interval of the EC50 is that of its profile: where the weighted sum of squares, at best for the other three, exceeds
    the smallest by no more than an F law with 1 and n - 4 degrees of freedom allows (Bates and Watts, Nonlinear
    Regression Analysis, 1988, chapter 6).

    Parameters
    ----------
    dose, response
        (n,) doses above 0 and responses, finite.
    """
    if len(np.unique(dose)) < FEWEST_DOSES or len(dose) < FEWEST_DOSES + 1:
        return Curve("few doses", _trend(dose, response))
    trend = _trend(dose, response)
    if not trend <= LEVEL:
        return Curve("flat", trend)
    x = np.log10(dose)
    centres = np.linspace(x.min() - 1, x.max() + 1, _STEPS)
    shapes = 1 / (1 + 10 ** (_HILLS[None, :, None] * (centres[:, None, None] - x)))
    weights = np.ones(len(x))
    for _ in range(_ROBUST_STEPS):
        squares, bottom, height = _least_squares(shapes, response, weights)
        at = np.unravel_index(np.argmin(squares), squares.shape)
        residuals = response - bottom[at] - height[at] * shapes[at]
        scale = MAD_TO_SD * float(np.median(np.abs(residuals)))
        if not scale > 0:
            break
        weights = np.minimum(1, _HUBER * scale / np.maximum(np.abs(residuals), _HUBER * scale))
    squares, bottom, height = _least_squares(shapes, response, weights)
    at = np.unravel_index(np.argmin(squares), squares.shape)
    smallest, free = float(squares[at]), len(x) - 4
    mean = np.average(response, weights=weights)
    constant = float((weights * (response - mean) ** 2).sum())
    if smallest > 0 and f_law.sf((constant - smallest) / 3 / (smallest / free), 3, free) > LEVEL:
        return Curve("flat", trend)
    profile = squares.min(axis=1)
    limit = smallest * (1 + f_law.ppf(COVERAGE, 1, free) / free)
    inside = np.flatnonzero(profile <= limit)
    low, high = _crossing(centres, profile, limit, inside[0], -1), _crossing(centres, profile, limit, inside[-1], 1)
    if low < x.min() or high > x.max():
        return Curve("open", trend)
    centre = _vertex(centres, profile, int(at[0]))
    # An interval narrower than the grid's steps holds at least the estimate.
    low, high = min(low, centre), max(high, centre)
    return Curve(
        status="ok",
        trend_p=trend,
        ec50=float(10**centre),
        ec50_low=float(10**low),
        ec50_high=float(10**high),
        hill=float(_HILLS[at[1]]),
        bottom=float(bottom[at]),
        top=float(bottom[at] + height[at]),
    )


def _trend(dose: Array, response: Array) -> float:
    """Return the p-value of a rising trend; 1 where all doses or all responses are equal."""
    p = float(kendalltau(dose, response, alternative="greater").pvalue) if len(dose) > 1 else 1.0
    return p if np.isfinite(p) else 1.0


def _least_squares(shapes: Array, response: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Return the weighted sum of squares, bottom and height (not below 0) for each of `shapes` (..., n)."""
    total = weights.sum()
    mean_shape, mean = (shapes * weights).sum(axis=-1) / total, (weights * response).sum() / total
    centred = shapes - mean_shape[..., None]
    spread = (weights * centred**2).sum(axis=-1)
    product = (weights * centred * (response - mean)).sum(axis=-1)
    height = np.maximum(product / np.maximum(spread, 1e-12), 0)
    squares = (weights * (response - mean) ** 2).sum() - 2 * height * product + height**2 * spread
    return squares, mean - height * mean_shape, height


def _crossing(centres: Array, profile: Array, limit: float, end: int, step: int) -> float:
    """Return where the profile crosses the limit outwards from the grid's point `end`; infinite where it does not."""
    if not 0 <= end + step < len(centres):
        return step * np.inf
    part = (limit - profile[end]) / (profile[end + step] - profile[end])
    return float(centres[end] + part * (centres[end + step] - centres[end]))


def _vertex(centres: Array, profile: Array, at: int) -> float:
    """Return the lowest point of the parabola through the grid's lowest point and its neighbours."""
    if not 0 < at < len(centres) - 1:
        return float(centres[at])
    before, here, after = profile[at - 1 : at + 2]
    bend = before - 2 * here + after
    shift = 0.5 * (before - after) / bend if bend > 0 else 0.0
    return float(centres[at] + shift * (centres[1] - centres[0]))


def dose_cautions(layout: pd.DataFrame) -> list[Caution]:
    """Return that the column ``dose`` of a layout holds something else than doses, so that no curve is fitted.

    Parameters
    ----------
    layout
        ``plate, well, role`` and possibly ``dose``, one row per well.
    """
    if "dose" not in layout:
        return []
    samples = layout[layout["role"] == "sample"]
    given, wrong = as_numbers(samples["dose"])
    wrong = wrong | (np.isfinite(given) & (given <= 0))
    if not wrong.any():
        return []
    first = samples[wrong].iloc[0]
    return [
        Caution(
            "doses",
            f"column dose of the layout: '{first['dose']}' (plate '{first['plate']}', well {first['well']}) is not a "
            f"number above 0, as in {int(wrong.sum())} sample wells, so that no dose series is fitted; write all doses "
            "as numbers of one unit, leave them empty for wells of no series, or rename the column if it is no dose",
        )
    ]


def dose_series(wells: pd.DataFrame) -> pd.DataFrame:
    """Return the curves of a screen's compounds, one row per compound and phenotype, sorted by both.

    Parameters
    ----------
    wells
        ``plate, well, perturbation, role, phenotype, z, used``, and ``dose`` (above 0 in samples; empty for wells that
        belong to no series). Samples of one ``compound`` are a series; without such a column each perturbation is one.

    Returns
    -------
    table
        Without a row where there is no column ``dose``, or `dose_cautions` has something to say of it.
    """
    rows = []
    if "dose" in wells and not dose_cautions(wells):
        samples = wells[(wells["role"] == "sample") & wells["used"]]
        names = samples["perturbation"]
        if "compound" in samples:
            compound = as_text(samples["compound"])
            names = compound.where(compound != "", names)
        doses, _ = as_numbers(samples["dose"])
        series = samples.assign(compound=names, dose=doses).dropna(subset=["dose", "z"])
        for (name, phenotype), own in series.groupby(["compound", "phenotype"], sort=True):
            dose = own["dose"].to_numpy(dtype=float)
            curve = fit_curve(dose, own["z"].to_numpy(dtype=float))
            counts = {"n_doses": len(np.unique(dose)), "n_wells": len(own)}
            ends = {"lowest_dose": dose.min(), "highest_dose": dose.max()}
            rows.append({"compound": name, "phenotype": phenotype, **counts, **ends, **vars(curve)})
    return conform(pd.DataFrame(rows, columns=list(DOSES)), DOSES)
