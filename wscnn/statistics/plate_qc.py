"""Quality of plates and of control wells: separation of controls, effects of position, suspicious labels."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wscnn.statistics.arrays import Array
from wscnn.statistics.cautions import Caution
from wscnn.statistics.normalize import NEED_CONTROLS, Polish, median, median_polish, spread
from wscnn.statistics.roc import auc_of_rows

Mask = NDArray[np.bool_]

#: A control well nearer to the other class contradicts its label when its z lies on that class's side of this.
SUSPECT_Z = 3.0

#: Beyond this, in robust SDs, the border of plates, or the typical sample, is reported as unlike the rest.
DOUBTFUL_EDGE = 0.5
DOUBTFUL_SHIFT = 1.0

#: More sample wells than this above 95 % of the negative controls are reported.
DOUBTFUL_SHARE = 0.2

#: Why a plate with enough scores has no normalised one, by way of normalising; `none` always gives one.
NO_SCALE = {
    "robust_z": "negative controls all have the same score",
    "samples": "samples and negative controls are missing or all have the same score",
    "surface": "samples and negative controls are missing or leave no residuals",
    "bscore": "samples and negative controls are missing or leave no residuals: B-scores need several rows and columns",
    "control_percent": "positive controls are missing or are not above the negative ones",
}

# Fewer values than this on a side carry no information about a plate.
_FEW = 3


def z_prime(negatives: Array, positives: Array, robust: bool = False) -> Array:
    """Return Z' = 1 - 3 (sd of positives + sd of negatives) / |difference of means|, one plate per row.

    From Zhang, Chung and Oldenburg, J. Biomol. Screen. 4, 67 (1999). `robust`: medians and MADs instead.
    """
    if robust:
        return 1 - 3 * (spread(positives) + spread(negatives)) / np.abs(median(positives) - median(negatives))
    means, deviations = zip(*(_mean_sd(values) for values in (negatives, positives)), strict=True)
    return 1 - 3 * (deviations[0] + deviations[1]) / np.abs(means[1] - means[0])


def ssmd(negatives: Array, positives: Array) -> Array:
    """Return the strictly standardised mean difference of positives and negatives, one plate per row.

    From Zhang, Genomics 89, 552 (2007): the difference of means over the root of the sum of variances.
    """
    low, low_sd = _mean_sd(negatives)
    high, high_sd = _mean_sd(positives)
    return (high - low) / np.sqrt(low_sd**2 + high_sd**2)


def edge_effect(grid: Array, border: Mask) -> Array:
    """Return the median of the sample wells on the border less that of the inner ones, in inner robust SDs.

    Parameters
    ----------
    grid
        (plates, R, C) scores of sample wells, NaN elsewhere.
    border
        (plates, R, C) the outermost wells of each plate.

    Returns
    -------
    effect
        (plates,); NaN where there are fewer than three sample wells on either side.
    """
    outer, inner = (_flat(np.where(side, grid, np.nan)) for side in (border, ~border))
    enough = (np.isfinite(outer).sum(axis=1) >= _FEW) & (np.isfinite(inner).sum(axis=1) >= _FEW)
    return np.where(enough, (median(outer) - median(inner)) / spread(inner), np.nan)


def position_effects(polish: Polish) -> tuple[Array, Array]:
    """Return the root mean square row effect and column effect of plates' median polish.

    They are in robust SDs of the residuals. Noise alone gives about 1.25 / root(wells per row, or column).

    Returns
    -------
    rows, columns
        (plates,) each; NaN where no residual is left to compare with.
    """
    scale = spread(_flat(polish.residuals))
    return _root_mean_square(polish.rows) / scale, _root_mean_square(polish.columns) / scale


def outlier(wells: Array) -> Array:
    """Return how far a plate's samples and negatives lie from those of the other plates: the larger of two robust z.

    One is of the plates' medians, the other of the logarithms of their spreads.

    Returns
    -------
    z
        (plates,), absolute; NaN for fewer than five plates, among which outliers cannot be identified.
    """
    if len(wells) < 5:
        return np.full(len(wells), np.nan)
    with np.errstate(invalid="ignore"):
        features = np.stack([median(wells), np.log(spread(wells))])
    z = np.abs(features - median(features)[:, None]) / spread(features)[:, None]
    return np.fmax(z[0], z[1])


def measure(negatives: Array, positives: Array, grid: Array, border: Mask) -> pd.DataFrame:
    """Return the quality of every plate for one phenotype, one row per plate.

    Parameters
    ----------
    negatives, positives
        (plates, n) scores of control wells, padded with NaN.
    grid, border
        (plates, R, C) scores of sample wells, NaN elsewhere; and the outermost wells.

    Returns
    -------
    table
        ``n_negative, n_positive, negative_median, negative_spread, z_prime, z_prime_robust, z_prime_samples, ssmd, auc,
        auc_samples, sample_shift, edge_effect, row_effect, column_effect, outlier``.
    """
    # Both kinds together: a choice of plates by one of them alone would make inactive samples and controls differ.
    others = np.concatenate([negatives, _flat(grid)], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        rows, columns = position_effects(median_polish(grid))
        return pd.DataFrame(
            {
                "n_negative": np.isfinite(negatives).sum(axis=1).astype("int32"),
                "n_positive": np.isfinite(positives).sum(axis=1).astype("int32"),
                "negative_median": median(negatives),
                "negative_spread": spread(negatives),
                "z_prime": z_prime(negatives, positives),
                "z_prime_robust": z_prime(negatives, positives, robust=True),
                "z_prime_samples": z_prime(others, positives, robust=True),
                "ssmd": ssmd(negatives, positives),
                "auc": auc_of_rows(negatives, positives),
                "auc_samples": auc_of_rows(others, positives),
                "sample_shift": (median(_flat(grid)) - median(negatives)) / spread(negatives),
                "edge_effect": edge_effect(grid, border),
                "row_effect": rows,
                "column_effect": columns,
                "outlier": outlier(others),
            }
        )


def failures(quality: pd.DataFrame, rules: dict[str, Any]) -> list[str]:
    """Return for each plate of `measure` (with ``n_wells, n_missing``) why it is kept out of calls; empty: it is not.

    No rule distinguishes negative controls from samples: plates chosen by low negative controls make inactive samples
    look active, and plates chosen by low samples hide what acts.

    Parameters
    ----------
    quality
        One row per plate and phenotype.
    rules
        The config's ``hits``: ``normalize, min_controls, max_missing, min_auc, min_z_prime, max_edge_effect,
        max_outlier``.
    """
    scored = quality["n_wells"] > quality["n_missing"]
    tests = {"no well has a score": ~scored}
    if rules["normalize"] in NEED_CONTROLS:
        few = quality["n_negative"] < rules["min_controls"]
        tests[f"fewer than {rules['min_controls']} negative controls with a score"] = scored & few
    if rules["normalize"] == "robust_z":
        tests[NO_SCALE["robust_z"]] = scored & ~few & quality["negative_spread"].isna()
    tests[f"more than {rules['max_missing']:.0%} of the wells have no score"] = scored & (
        quality["n_missing"] > rules["max_missing"] * quality["n_wells"]
    )
    for rule, column, words, low in (
        ("min_auc", "auc_samples", "AUC of positive controls against samples and negatives below", True),
        ("min_z_prime", "z_prime_samples", "Z' of positive controls against samples and negatives below", True),
        ("max_edge_effect", "edge_effect", "edge effect above", False),
        ("max_outlier", "outlier", "wells unlike those of other plates, z above", False),
    ):
        if (limit := rules[rule]) is not None:
            value = quality[column]
            tests[f"{words} {limit:g}"] = value < limit if low else value.abs() > limit
    texts = np.array(list(tests), dtype=object)
    table = np.stack([test.to_numpy(dtype=bool) for test in tests.values()], axis=1)
    return ["; ".join(texts[row]) for row in table]


def doubts(quality: pd.DataFrame, above: float, corrected: bool) -> list[Caution]:
    """Return cautions about negative controls as wells in which nothing acts.

    Parameters
    ----------
    quality
        What `measure` returned of the plates that count, one row per plate.
    above
        Share of the sample wells above 95 % of the negative controls, normalised; 0.05 where nothing acts.
    corrected
        Whether row and column effects are removed.
    """
    found = []
    edge, shift = quality["edge_effect"].median(), quality["sample_shift"].median()
    if abs(edge) > DOUBTFUL_EDGE and not corrected:
        found.append(
            Caution(
                "plate_effects",
                f"edge wells score {edge:+.1f} robust SDs relative to the inner ones (median over plates), which may "
                "be mistaken for hits; normalize: surface or bscore removes effects of position",
            )
        )
    if abs(shift) > DOUBTFUL_SHIFT or above > DOUBTFUL_SHARE:
        found.append(
            Caution(
                "unlike_controls",
                f"the typical sample is {shift:+.1f} robust SDs from the negative controls (median over plates), and "
                f"{above:.0%} of the sample wells are above 95% of the negative controls: either many perturbations "
                "act, or the controls differ from samples in something else, such as reagent or position, and p-values "
                "are biased",
            )
        )
    return found


def suspects(z: Array, position: Array, negative: Mask, positive: Mask) -> NDArray[np.object_]:
    """Return for each well why its score contradicts its control label, empty where it does not.

    Parameters
    ----------
    z
        (wells,) distance from the plate's negative controls in their robust SDs.
    position
        (wells,) 0 at the median of the plate's negative controls, 100 at that of the positive ones; NaN where the
        plate has none, or where the positive ones are not above.
    negative, positive
        (wells,) masks.
    """
    reasons = np.full(len(z), "", dtype=object)
    reasons[negative & (z >= SUSPECT_Z) & ~(position < 50)] = "negative control that looks positive"
    reasons[positive & (z < SUSPECT_Z) & ~(position >= 50)] = "positive control that looks negative"
    return reasons


def _mean_sd(values: Array) -> tuple[Array, Array]:
    """Return mean and standard deviation along the last axis, NaN left out; NaN with fewer than one, or two, values."""
    count = np.isfinite(values).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(values, axis=-1) / count
        deviation = np.sqrt(np.nansum((values - mean[..., None]) ** 2, axis=-1) / (count - 1))
    return mean, np.where(count > 1, deviation, np.nan)


def _root_mean_square(values: Array) -> Array:
    """Return the root of the mean square along the last axis, NaN left out."""
    count = np.isfinite(values).sum(axis=-1)
    return np.sqrt(np.nansum(values**2, axis=-1) / np.maximum(count, 1))


def _flat(grid: Array) -> Array:
    return grid.reshape(len(grid), -1)
