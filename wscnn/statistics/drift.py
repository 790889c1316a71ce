"""Drift: how far a plate's negative controls lie from those of the plates that a model was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from wscnn.statistics.arrays import Array

#: What is measured in each channel, as logarithms in this order, and the standard deviation over ordinary plates that
#: is assumed at least. Noise, relative to the root of the background, is a property of the camera and hardly varies.
MEASURES = {"background": 0.1, "brightness": 0.1, "sharpness": 0.05, "noise": 0.02}
#: The same of features of a network, as a share of their root mean square.
_LEAST_OF_FEATURES = 0.02
#: Number of plates that the assumed spread counts for.
_ASSUMED = 8.0
#: Chance that a measure of an ordinary plate is beyond the threshold, on one side, if it is normally distributed.
_LEVEL = 0.0005


@dataclass(frozen=True)
class Drift:
    """The drift of a plate.

    Attributes
    ----------
    value
        The largest distance from the mean of the training plates, in SDs between plates.
    threshold
        Above it, the plate is unlike those of training. It falls with the number of training plates.
    largest
        What differs most, in words.
    """

    value: float
    threshold: float
    largest: str


def summarise_plates(wells: Mapping[str, Array]) -> dict[str, list[float]]:
    """Return what must be known of training plates to compare others with them.

    Parameters
    ----------
    wells
        For each plate one row per negative control well, as `wscnn.encoder.appearance.describe_negatives` returns them.

    Returns
    -------
    summary
        ``mean`` of the plates' means, standard deviations ``between`` plates' means and ``within`` plates, over wells
        (rounded to six digits), and ``plates``, their number.
    """
    means = np.stack([rows.mean(axis=0) for rows in wells.values()])
    squares = np.sum([((rows - rows.mean(axis=0)) ** 2).sum(axis=0) for rows in wells.values()], axis=0)
    summary = {
        "mean": means.mean(axis=0),
        "between": means.std(axis=0, ddof=1) if len(means) > 1 else np.zeros(means.shape[1]),
        "within": np.sqrt(squares / max(sum(len(rows) - 1 for rows in wells.values()), 1)),
    }
    rounded = {name: [float(f"{value:.6g}") for value in values] for name, values in summary.items()}
    return rounded | {"plates": [float(len(means))]}


def drift_of(wells: Array, summary: Mapping[str, Sequence[float]], channels: Sequence[str]) -> Drift:
    """Return how far a plate lies from the training plates.

    Few training plates do not show how much plates differ. So an assumed spread counts like eight plates more: the
    least of `MEASURES`, or the spread over wells where that is larger. Each measure of a channel counts by itself,
    features of the network by their root mean square.

    Parameters
    ----------
    wells
        One row per negative control well of the plate.
    summary
        What `summarise_plates` returned of the training plates.
    channels
        Names of the channels.
    """
    mean, between, within = (np.asarray(summary[name]) for name in ("mean", "between", "within"))
    n_plates, n_measured = summary["plates"][0], len(MEASURES) * len(channels)
    least = np.full(len(mean), _LEAST_OF_FEATURES * np.sqrt(np.mean(mean[n_measured:] ** 2)))
    least[:n_measured] = np.tile(list(MEASURES.values()), len(channels))
    degrees = n_plates - 1 + _ASSUMED
    variance = ((n_plates - 1) * between**2 + _ASSUMED * np.maximum(within, least) ** 2) / degrees
    z = np.abs(wells.mean(axis=0) - mean) / np.sqrt(np.maximum(variance * (1 + 1 / n_plates), 1e-12))
    values = [*z[:n_measured].tolist(), float(np.sqrt(np.mean(z[n_measured:] ** 2)))]
    words = [f"{measure} of {channel}" for channel in channels for measure in MEASURES]
    largest = int(np.argmax(values))
    return Drift(values[largest], float(student.ppf(1 - _LEVEL, degrees)), [*words, "features of the network"][largest])
