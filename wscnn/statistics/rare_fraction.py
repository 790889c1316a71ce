"""The fraction of rare cells of a perturbation, from detected cells, corrected for false negatives and positives."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from wscnn.network.card import Card
from wscnn.statistics.arrays import Array
from wscnn.statistics.effects import group_sum

#: Level of the interval.
_LEVEL = 0.95
#: Least uncertainty of a detector's recall, relative to it: rare cells of samples are not quite those of controls.
_LEAST_ERROR = 0.1


class Recall(NamedTuple):
    """Recall of a detector of rare cells, and its standard error; NaN where it is not known."""

    share: float
    error: float


#: Recall of an unknown detector.
UNKNOWN = Recall(np.nan, np.nan)


def recall_of(cards: Sequence[Card]) -> dict[str, Recall]:
    """Return for each phenotype the recall from the cards of the folds that learned it."""
    found = {}
    for phenotype in cards[0].phenotypes if cards else []:
        shares = [card.recall.get(phenotype) for card in cards if card.learned.get(phenotype, True)]
        known = np.array([share for share in shares if share is not None])
        if len(known):
            error = float(np.hypot(known.std(), _LEAST_ERROR * known.mean()))
            found[phenotype] = Recall(float(known.mean()), error)
    return found


def rare_fraction(
    objects: Array,
    cells: Array,
    group: NDArray[np.int64],
    n_groups: int,
    control_objects: Array,
    control_cells: Array,
    recall: Recall,
) -> tuple[Array, Array, Array]:
    """Return the share of rare cells in excess of negative controls, and the bounds of its 95 % interval.

    Of N cells, a share f of them rare, a detector with recall r that takes a share b of ordinary cells for rare ones
    finds N (f r + (1 - f) b); b is what it finds in held-out negative wells (Rogan and Gladen, American Journal of
    Epidemiology 1978). The interval's variance is that of the three, by the delta method; wells are what varies.

    Parameters
    ----------
    objects, cells
        Detected and all cells of each well, (wells,); NaN where cells were not counted.
    group
        The perturbation of each well, from 0 to `n_groups` - 1.
    control_objects, control_cells
        The same of held-out negative wells.
    recall
        Of the detector. Where it is not known, the share is that of detected cells, and bounds are NaN.

    Returns
    -------
    share, low, high
        Shape (n_groups,), from 0 to 1 where the recall is known; NaN where no cell was counted, or where the detector
        finds in negative controls as large a share as of rare cells.
    """
    counted = np.isfinite(objects) & np.isfinite(cells)
    detected, variance = _ratio(objects[counted], cells[counted], group[counted], n_groups)
    if not np.isfinite(recall.share):
        return detected, np.full(n_groups, np.nan), np.full(n_groups, np.nan)
    known = np.isfinite(control_objects) & np.isfinite(control_cells)
    n_known = int(known.sum())
    (base,), (base_variance,) = _ratio(control_objects[known], control_cells[known], np.zeros(n_known, np.int64), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        span = recall.share - base if recall.share > base else np.nan
        share = (detected - base) / span
        error = np.sqrt(variance + (1 - share) ** 2 * base_variance + share**2 * recall.error**2) / span
    reach = norm.isf((1 - _LEVEL) / 2) * error
    return share.clip(0, 1), (share - reach).clip(0, 1), (share + reach).clip(0, 1)


def _ratio(objects: Array, cells: Array, group: NDArray[np.int64], n: int) -> tuple[Array, Array]:
    """Return the share of objects among cells of each group, and its variance over wells, at least a binomial one."""
    total, counts = group_sum(cells, group, n), np.bincount(group, minlength=n)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = group_sum(objects, group, n) / total
        residual = objects - share[group] * cells
        over_wells = group_sum(residual**2, group, n) / total**2 * counts / np.maximum(counts - 1, 1)
        # With few objects the variance is that of the next larger count: none found does not mean that there are none.
        binomial = (share + 1 / total) * (1 - share) / total
    return share, np.maximum(over_wells, binomial)
