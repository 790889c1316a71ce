"""How well scores of negative controls separate positions on the plate, and plates: what a network learned besides."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from wscnn.statistics.arrays import Array, Mask, Numbers
from wscnn.statistics.phenotype import Phenotype
from wscnn.statistics.roc import pairs_won

#: Quantile of the normal distribution at the upper end of a two-sided 95 % interval.
_TWO_SIDED = 1.96
#: Random assignments of scores to plates, from which the upper limit by chance is taken.
_SHUFFLES = 400


@dataclass(frozen=True)
class Separation:
    """An AUC, and the upper end of the range that chance alone gives it.

    Attributes
    ----------
    auc
        NaN where there is nothing to compare.
    chance
        Upper end of the 95 % interval around 0.5; of `between_plates` the 95 % quantile.
    """

    auc: float
    chance: float


def separations(screen: Phenotype) -> dict[str, float]:
    """Return AUCs over control wells of plates that count, and the upper ends of their ranges by chance.

    That of the phenotype compares positive with negative controls; the others show from negative controls alone how
    well the score separates the plate's border from the inside, its right half from the left, and plates.
    """
    kept = np.isfinite(screen.score) & screen.usable[screen.plate]
    control, negative = kept & (screen.positive | screen.negative), kept & screen.negative
    border = screen.border[screen.plate, screen.row, screen.column]
    right = screen.column >= screen.formats[screen.plate, 1] / 2
    found = {
        "phenotype": within_plates(screen.score[control], screen.plate[control], screen.positive[control]),
        "edge": within_plates(screen.score[negative], screen.plate[negative], border[negative]),
        "side": within_plates(screen.score[negative], screen.plate[negative], right[negative]),
        "plate": between_plates(screen.score[negative], screen.plate[negative]),
    }
    values = {f"auc_{name}": one.auc for name, one in found.items()}
    return values | {f"auc_{name}_chance": one.chance for name, one in found.items() if name != "phenotype"}


def in_words(quality: pd.Series) -> str:
    """Return the `separations` in a row of the table of plates as a line of the log."""

    def part(name: str, words: str, low: bool = True) -> str:
        value, chance = quality[f"auc_{name}"], quality[f"auc_{name}_chance"]
        if np.isnan(value):
            return f"{words} not known"
        return f"{words} {value:.2f} (by chance {f'{1 - chance:.2f} to' if low else 'up to'} {chance:.2f})"

    phenotype = quality["auc_phenotype"]
    parts = [
        "AUC of the phenotype " + ("not known" if np.isnan(phenotype) else f"{phenotype:.2f}"),
        part("edge", "from negative controls alone, AUC of the plate's edge"),
        part("side", "of its right half"),
        part("plate", "of the plate", low=False),
    ]
    return ", ".join(parts)


def within_plates(scores: Array, plate: Numbers, group: Mask) -> Separation:
    """Return the chance that a well in `group` scores above another well of its plate, ties counting half.

    The interval is that of the rank sum of Wilcoxon, stratified by plate (van Elteren, Bulletin of the International
    Statistical Institute 1960).

    Parameters
    ----------
    scores, plate, group
        Shape (wells,): finite scores, numbers of plates, and which wells are in the group.
    """
    wins = pairs = variance = 0.0
    for number in np.unique(plate):
        own = plate == number
        inside, outside = scores[own & group], scores[own & ~group]
        n_pairs = len(inside) * len(outside)
        wins += pairs_won(outside, inside)
        pairs += n_pairs
        variance += n_pairs * (len(inside) + len(outside) + 1) / 12
    if not pairs:
        return Separation(np.nan, np.nan)
    return Separation(float(wins / pairs), min(1.0, float(0.5 + _TWO_SIDED * np.sqrt(variance) / pairs)))


def between_plates(scores: Array, plate: Numbers) -> Separation:
    """Return how well scores separate each plate's wells from those of the other plates, on average.

    The AUC of a plate against the others counts from 0.5 in either direction, so that chance gives more than 0.5: the
    limit is the 95 % quantile over random assignments of the same scores, drawn with a fixed seed.

    Parameters
    ----------
    scores, plate
        Shape (wells,): finite scores, and numbers of plates.
    """
    names, own, count = np.unique(plate, return_inverse=True, return_counts=True)
    if len(names) < 2:
        return Separation(np.nan, np.nan)
    in_order = np.sort(scores)
    ranks = (np.searchsorted(in_order, scores, "left") + np.searchsorted(in_order, scores, "right") + 1) / 2

    def auc(some: Array) -> float:
        above = np.bincount(own, weights=some) - count * (count + 1) / 2
        return float(np.mean(0.5 + np.abs(above / (count * (len(ranks) - count)) - 0.5)))

    random = np.random.default_rng(0)
    by_chance = [auc(random.permutation(ranks)) for _ in range(_SHUFFLES)]
    return Separation(auc(ranks), float(np.quantile(by_chance, 0.95)))
