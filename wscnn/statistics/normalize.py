"""Scores of different plates brought to one scale, from each plate's controls or from its sample wells."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wscnn.statistics.arrays import Array

#: Ways to normalise a plate's scores.
METHODS = ("robust_z", "bscore", "control_percent", "none")

#: What a median absolute deviation (MAD), and a mean one, are multiplied by to estimate a normal standard deviation.
MAD_TO_SD = 1.4826022185056018
MEAN_DEVIATION_TO_SD = 1.2533141373155003


class Polish(NamedTuple):
    """A two-way table taken apart by median polish: value = overall + row + column + residual."""

    overall: Array  # (...)
    rows: Array  # (..., R)
    columns: Array  # (..., C)
    residuals: Array  # (..., R, C)


def by_group(values: Array, group: NDArray[np.int64], n_groups: int) -> Array:
    """Return `values` as a table (n_groups, size of the largest group), a row a group, filled up with NaN.

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
        (plates, n) scores of the plates' negative controls, filled up with NaN.
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
    """Return how many negative controls a plate needs beside those that are left out, to be normalised.

    Three for `robust_z`: the MAD of three values, the smaller of their gaps, strays more than that of two, so that next
    to three controls around a treated well two around a control would not be the worse position.
    """
    return {"robust_z": 3, "control_percent": 1}.get(method, 0)


def held_out_groups(
    negatives: Array, positive_median: Array, method: str, size: int = 1, most: int | None = None, seed: int = 0
) -> Array:
    """Return means of groups of negative controls, each group normalised by other negative controls of its plate.

    A treated well is normalised by controls that it is none of; a control well would be by controls that it is one of,
    which draws it towards 0 and makes treated wells look strange next to it. Leaving the group out puts it in the
    position of treated wells, or a worse one, for it has fewer controls around it. Groups of a plate share no well.

    Parameters
    ----------
    negatives, positive_median, method
        As for `centre_and_scale`.
    size
        Wells a group.
    most
        How many controls a group is normalised by at most: as many as the treated wells that it is compared with.
        Few controls make an uncertain centre and scale, and so larger values.
    seed
        Draws the groups where `size` is more than 1, and the controls where there are more than `most`.

    Returns
    -------
    means
        (plates, n // size), NaN where a plate has no further group, or too few controls beside it. Groups of one lie as
        the controls do, unless `most` is given.
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
    """Return two-way tables taken apart by Tukey's median polish.

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


def bscore(values: Array, fitted: NDArray[np.bool_]) -> Array:
    """Return B-scores of whole plates: row and column effects taken off, over the plate's MAD.

    The effects come from the wells in `fitted` alone, as cellHTS2 does, so that controls neither shape nor lose
    what they show. A row or column without such a well has an unknown effect, taken as 0. Source: Brideau et
    al., J. Biomol. Screen. 8, 634 (2003).

    Parameters
    ----------
    values
        (plates, R, C) scores, NaN where there is none.
    fitted
        (plates, R, C) the sample wells.

    Returns
    -------
    scores
        (plates, R, C); NaN on plates without sample wells, or where all of them have residual 0.
    """
    polish = median_polish(np.where(fitted, values, np.nan))
    effects = np.nan_to_num(polish.rows)[:, :, None] + np.nan_to_num(polish.columns)[:, None, :]
    has_samples = np.isfinite(polish.residuals).any(axis=(1, 2))
    overall = np.where(has_samples, polish.overall, np.nan)
    residuals = values - overall[:, None, None] - effects
    scale = spread(polish.residuals.reshape(len(values), -1))
    return residuals / scale[:, None, None]
