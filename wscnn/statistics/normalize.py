"""Scores of different plates brought to one scale, from each plate's controls or from its sample wells."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wscnn.core.robust import MAD_TO_SD
from wscnn.statistics.arrays import Array, Mask

#: Ways to normalise a plate's scores.
METHODS = ("auto", "robust_z", "samples", "surface", "bscore", "control_percent", "none")

#: Ways that take centre, position effects and scale from samples and negative controls together.
FITTED = ("samples", "surface", "bscore")

#: Ways that keep a plate with fewer than `hits.min_controls` negative controls out of the calls.
NEED_CONTROLS = ("auto", "robust_z", "samples", "surface", "control_percent")

#: A row or column with fewer different perturbations carries no information about position.
FEWEST_PERTURBATIONS = 3

# Robust fits: steps, those by Huber's weights before Tukey's, and the tuning constants for 95 % efficiency.
_STEPS, _HUBER_STEPS, _HUBER, _TUKEY = 30, 8, 1.345, 4.685

#: What a mean absolute deviation is multiplied by to estimate a normal standard deviation.
MEAN_DEVIATION_TO_SD = 1.2533141373155003


class Polish(NamedTuple):
    """A two-way table decomposed by median polish: value = overall + row + column + residual."""

    overall: Array  # (...)
    rows: Array  # (..., R)
    columns: Array  # (..., C)
    residuals: Array  # (..., R, C)


def by_group(values: Array, group: NDArray[np.int64], n_groups: int) -> Array:
    """Return `values` as a table (n_groups, size of the largest group), one row per group, padded with NaN.

    Within a group the order is kept.
    """
    order = np.argsort(group, kind="stable")
    counts = np.bincount(group, minlength=n_groups)
    place = np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)
    table = np.full((n_groups, counts.max(initial=0)), np.nan)
    table[group[order], place] = values[order]
    return table


def median(values: Array) -> Array:
    """Return the median along the last axis, NaN left out; NaN where nothing is left."""
    if values.shape[-1] == 0:
        return np.full(values.shape[:-1], np.nan)
    ordered = np.sort(values, axis=-1)  # NaN comes last
    count = np.isfinite(values).sum(axis=-1)
    low = np.take_along_axis(ordered, np.maximum(count - 1, 0)[..., None] // 2, axis=-1)
    high = np.take_along_axis(ordered, np.minimum(count // 2, values.shape[-1] - 1)[..., None], axis=-1)
    return np.where(count > 0, (low + high)[..., 0] / 2, np.nan)


def spread(values: Array) -> Array:
    """Return a robust standard deviation along the last axis, NaN left out.

    It is the MAD times 1.4826, or where more than half of the values are equal, so that the MAD is 0, the mean
    absolute deviation from the median times 1.2533. NaN where all values are equal: nothing can be scaled by 0.
    """
    deviation = np.abs(values - median(values)[..., None])
    mad = MAD_TO_SD * median(deviation)
    count = np.isfinite(deviation).sum(axis=-1)
    mean = MEAN_DEVIATION_TO_SD * np.nansum(deviation, axis=-1) / np.maximum(count, 1)
    scale = np.where(mad > 0, mad, mean)
    return np.where(scale > 0, scale, np.nan)


def centre_and_scale(negatives: Array, positive_median: Array, method: str) -> tuple[Array, Array]:
    """Return what is subtracted from a plate's scores and what they are then divided by.

    Parameters
    ----------
    negatives
        (plates, n) scores of the plates' negative controls, padded with NaN.
    positive_median
        (plates,) median score of the plates' positive controls.
    method
        ``robust_z``: median and MAD of the negative controls (as standard deviation). ``control_percent``: median of
        the negative controls is 0, of the positive controls 100. Else nothing is done: 0 and 1.

    Returns
    -------
    centre, scale
        (plates,) each; NaN where the controls are missing, all equal, or the positive ones not above the negative.
    """
    plates = negatives.shape[0]
    if method == "robust_z":
        return median(negatives), spread(negatives)
    if method == "control_percent":
        centre = median(negatives)
        height = (positive_median - centre) / 100
        return centre, np.where(height > 0, height, np.nan)
    return np.zeros(plates), np.ones(plates)


def smallest_rest(method: str) -> int:
    """Return how many negative controls beside those that are left out are needed to normalise a plate.

    Three for `robust_z`: a MAD of three values (the smaller of their gaps) varies more than one of two, so a held-out
    control normalised by only two others would not be conservative beside a treated well with three.
    """
    return {"robust_z": 3, "control_percent": 1}.get(method, 0)


def held_out_groups(
    negatives: Array, positive_median: Array, method: str, size: int = 1, most: int | None = None, seed: int = 0
) -> Array:
    """Return means of groups of negative controls, each group normalised by other negative controls of its plate.

    A treated well is normalised by controls that do not include it; a control well would be normalised by controls that
    include itself, which shrinks it towards 0 and makes treated wells look extreme beside it. Leaving the group out
    makes it comparable with treated wells, or conservative, since it has fewer controls for its normalisation. Groups
    of a plate share no well.

    Parameters
    ----------
    negatives, positive_median, method
        As for `centre_and_scale`.
    size
        Wells per group.
    most
        Most controls by which a group is normalised: as many as for the treated wells that it is compared with. Few
        controls make an uncertain centre and scale, and so larger values.
    seed
        Draws the groups where `size` is more than 1, and the controls where there are more than `most`.

    Returns
    -------
    means
        (plates, n // size), NaN where a plate has no further group, or too few controls beside it. Groups of one are in
        the order of the controls, unless `most` is given.
    """
    count = int(np.isfinite(negatives).sum(axis=1).max(initial=0))
    if most is not None and most >= count - size:
        most = None
    if size > 1 or most is not None:
        key = np.where(np.isfinite(negatives), np.random.default_rng([seed, size]).random(negatives.shape), np.inf)
        negatives = np.take_along_axis(negatives, np.argsort(key, axis=1), axis=1)
    n_groups = negatives.shape[1] // size
    means = np.full((len(negatives), n_groups), np.nan)
    for group in range(n_groups):
        own = np.arange(group * size, (group + 1) * size)
        rest = np.delete(negatives, own, axis=1)[:, :most]
        enough = np.isfinite(rest).sum(axis=1) >= smallest_rest(method)
        centre, scale = centre_and_scale(rest, positive_median, method)
        means[:, group] = np.where(enough, (negatives[:, own].mean(axis=1) - centre) / scale, np.nan)
    return means


def median_polish(values: Array, eps: float = 1e-5, max_iterations: int = 200) -> Polish:
    """Return two-way tables decomposed by Tukey's median polish.

    Rows are swept first, then columns, until the sum of absolute residuals changes by less than `eps` of itself.
    The source is J. W. Tukey, Exploratory Data Analysis (1977), in the order of steps of R's ``medpolish``.

    Parameters
    ----------
    values
        (..., R, C) tables; NaN is left out.
    eps, max_iterations
        When to stop; the defaults are those of cellHTS2 (Boutros, Bras and Huber, Genome Biology 2006).

    Returns
    -------
    Polish
        A row or column without a single value has effect NaN.
    """
    residuals = np.array(values, dtype=np.float64).reshape(-1, *values.shape[-2:])
    n, rows, columns = residuals.shape
    overall, row, column = np.zeros(n), np.zeros((n, rows)), np.zeros((n, columns))
    before = np.zeros(n)
    active = np.arange(n)
    for _ in range(max_iterations):
        z, r, c = residuals[active], row[active], column[active]
        step = median(z)
        z -= step[:, :, None]
        r += step
        centre = median(c)
        c -= centre[:, None]
        overall[active] += np.nan_to_num(centre)
        step = median(z.swapaxes(1, 2))
        z -= step[:, None, :]
        c += step
        centre = median(r)
        r -= centre[:, None]
        overall[active] += np.nan_to_num(centre)
        residuals[active], row[active], column[active] = z, r, c
        now = np.nansum(np.abs(z), axis=(1, 2))
        done = (now == 0) | (np.abs(now - before[active]) < eps * now)
        before[active] = now
        active = active[~done]
        if active.size == 0:
            break
    shape = values.shape[:-2]
    return Polish(
        overall.reshape(shape),
        row.reshape(*shape, rows),
        column.reshape(*shape, columns),
        residuals.reshape(values.shape),
    )


def bscore(values: Array, fitted: NDArray[np.bool_], rows: Mask | None = None, columns: Mask | None = None) -> Array:
    """Return B-scores of whole plates: row and column effects subtracted, divided by the plate's MAD.

    The effects come from the wells in `fitted` alone. Source: Brideau et al., J. Biomol. Screen. 8, 634 (2003); there
    and in cellHTS2 those are the samples, so that a control column keeps an effect of its own.

    Parameters
    ----------
    values
        (plates, R, C) scores, NaN where there is none.
    fitted
        (plates, R, C) the wells that show what position does.
    rows, columns
        (plates, R) and (plates, C): those that are corrected; None corrects all that hold a fitted well.

    Returns
    -------
    scores
        (plates, R, C); NaN on plates without fitted wells, or where all of them have residual 0.
    """
    return _over_spread(polish_residuals(values, fitted, rows, columns), fitted)


def polish_residuals(
    values: Array, fitted: NDArray[np.bool_], rows: Mask | None = None, columns: Mask | None = None
) -> Array:
    """Return the residuals of whole plates after row and column effects; arguments as for `bscore`."""
    polish = median_polish(np.where(fitted, values, np.nan))
    row, column = np.nan_to_num(polish.rows), np.nan_to_num(polish.columns)
    row = row if rows is None else np.where(rows, row, 0.0)
    column = column if columns is None else np.where(columns, column, 0.0)
    has_wells = np.isfinite(polish.residuals).any(axis=(1, 2))
    overall = np.where(has_wells, polish.overall, np.nan)
    residuals = values - overall[:, None, None] - row[:, :, None] - column[:, None, :]
    return residuals


def surface_score(
    values: Array, fitted: NDArray[np.bool_], rows: Mask | None = None, columns: Mask | None = None, flat: bool = False
) -> Array:
    """Return residuals of whole plates from a smooth surface, divided by their MAD.

    The surface is a quadratic of row and column plus a step at the plate's border, fitted robustly (Huber's weights,
    then Tukey's biweight), so that wells far from it hardly count.

    Parameters
    ----------
    values, fitted
        As for `bscore`.
    rows, columns
        (plates, R) and (plates, C): those that show effects of position. Where fewer than half of a plate's rows (or
        columns) with a fitted well do, the surface does not vary along that axis.
    flat
        Fit a robust centre alone.

    Returns
    -------
    scores
        (plates, R, C); NaN on plates without fitted wells, or where all of them have residual 0.
    """
    return _over_spread(surface_residuals(values, fitted, rows, columns, flat), fitted)


def surface_residuals(
    values: Array, fitted: NDArray[np.bool_], rows: Mask | None = None, columns: Mask | None = None, flat: bool = False
) -> Array:
    """Return the residuals of whole plates from a smooth surface; arguments as for `surface_score`."""
    known = fitted & np.isfinite(values)
    surface = np.full(values.shape, np.nan)
    for plate in np.flatnonzero(known.any(axis=(1, 2))):
        terms = position_terms(
            known[plate], None if rows is None else rows[plate], None if columns is None else columns[plate], flat
        )
        surface[plate] = terms @ _robust_fit(terms[known[plate]], values[plate][known[plate]])
    return values - surface


def position_terms(known: Mask, rows: Mask | None, columns: Mask | None, flat: bool = False) -> Array:
    """Return the terms of a plate's surface, (R, C, terms): 1, then quadratics of position and the border's step.

    Parameters
    ----------
    known
        (R, C) the wells to fit.
    rows, columns, flat
        As for `surface_score`, of one plate.
    """
    where = np.indices(known.shape)
    terms = [np.ones(known.shape)]
    border = np.zeros(known.shape, dtype=bool)
    axes = []
    for axis, informative in enumerate((rows, columns)):
        there = known.any(axis=1 - axis)
        known_lines = there if informative is None else np.asarray(informative & there)
        if flat or known_lines.sum() < max(4, there.sum() / 2):
            continue
        last = known.shape[axis] - 1
        axes.append(2 * where[axis] / last - 1)
        border |= (where[axis] == 0) | (where[axis] == last)
    terms += axes + [a * a for a in axes] + ([axes[0] * axes[1]] if len(axes) == 2 else [])
    if axes and 0 < (border & known).sum() < known.sum():
        terms.append(border.astype(float))
    # More terms than a third of the wells would fit noise.
    return np.stack(terms if len(terms) * 3 <= known.sum() else terms[:1], axis=-1)


def informative_lines(table_of: NDArray[np.int64], axis: int) -> Mask:
    """Return which rows (axis 1) or columns (axis 2) hold enough perturbations to estimate effects of position.

    Parameters
    ----------
    table_of
        (plates, R, C) number of each well's perturbation, -1 where there is no well to fit.

    Returns
    -------
    informative
        (plates, R) or (plates, C).
    """
    ordered = np.sort(table_of, axis=3 - axis)
    first = np.take(ordered, [0], axis=3 - axis) >= 0
    new = (np.diff(ordered, axis=3 - axis) > 0) & (np.take(ordered, range(1, ordered.shape[3 - axis]), 3 - axis) >= 0)
    return np.asarray(first.sum(axis=3 - axis) + new.sum(axis=3 - axis) >= FEWEST_PERTURBATIONS)


def _robust_fit(terms: Array, values: Array) -> Array:
    """Return the coefficients (k,) of a robust linear fit of `values` (n,) by `terms` (n, k)."""
    weights: Array = np.ones(len(values))
    coefficients: Array = np.zeros(terms.shape[1])
    for step in range(_STEPS):
        root, before = np.sqrt(weights)[:, None], coefficients.copy()
        coefficients = np.asarray(np.linalg.lstsq(terms * root, values * root[:, 0], rcond=None)[0], dtype=np.float64)
        residuals = values - terms @ coefficients
        scale = MAD_TO_SD * float(np.median(np.abs(residuals - np.median(residuals))))
        if not scale > 0 or (step > _HUBER_STEPS and np.abs(coefficients - before).max() < 1e-4 * scale):
            break
        distance = np.abs(residuals) / scale
        if step < _HUBER_STEPS:
            weights = np.minimum(1, _HUBER / np.maximum(distance, _HUBER))
        else:
            weights = np.where(distance < _TUKEY, (1 - (distance / _TUKEY) ** 2) ** 2, 0.0)
    return np.asarray(coefficients)


def _over_spread(residuals: Array, fitted: Mask) -> Array:
    """Return residuals divided by the robust standard deviation of those of the fitted wells of their plate."""
    scale = spread(np.where(fitted, residuals, np.nan).reshape(len(residuals), -1))
    return residuals / scale[:, None, None]
