"""Novelty: how far a cell lies from the nearest cells of negative control wells, in the space of an encoder.

Negative control wells are dealt into three parts. Reference k holds cells of the wells outside part k, and judges the
wells of part k and all other wells. So a held-out negative control is treated exactly as a sample is: by references
that it had no share in, on a scale of its plate's negative controls that it had no share in.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from wscnn.core.atomic import atomic_path
from wscnn.core.errors import UserError
from wscnn.core.robust import MAD_TO_SD
from wscnn.core.wells import LEAST_NEGATIVES, N_PARTS
from wscnn.staging.cell_measures import n_measures

Features = NDArray[np.float32]

#: The fewest of a plate's negative control wells that a part needs.
LEAST_OF_PART = LEAST_NEGATIVES // N_PARTS
#: Neighbors to which a cell's distance is averaged.
_NEIGHBORS = 5
#: Cells of a reference, and held-out cells that give its scale, at most.
_REFERENCE, _HELD_OUT = 4000, 8000
#: Quantiles of held-out negative cells at which a score is 0 and 1; cells above 1 make a well's score.
_MIDDLE, _LIMIT = 0.5, 0.95
#: Quantile of held-out negative cells above which a cell is an object.
_OBJECT = 0.99
#: A feature's robust deviation is at least this share of its standard deviation; standardized values end here.
_LEAST_SPREAD, _FARTHEST = 0.2, 10.0
#: Weight of the measures of cells together, relative to that of all features of the encoder.
_OF_MEASURES = 0.25
#: Cells whose distances are computed at a time.
_BLOCK = 512


@dataclass(frozen=True)
class PlateScale:
    """Center and spread of the features of a plate's negative controls, each of shape (F,)."""

    center: Features
    spread: Features

    @classmethod
    def of(cls, features: np.ndarray, n_measures: int = 0) -> "PlateScale":
        """Return median and robust standard deviation of cells (n, F).

        The last `n_measures` features count more than the others, as far fewer of them describe the whole cell: they
        are standardized to larger values.
        """
        values = features.astype(np.float32)
        center = np.median(values, 0)
        spread = MAD_TO_SD * np.median(np.abs(values - center), 0)
        spread = np.maximum(spread, _LEAST_SPREAD * values.std(0)) + 1e-6
        n_encoded = len(spread) - n_measures
        spread[n_encoded:] /= np.sqrt(_OF_MEASURES * n_encoded / max(n_measures, 1))
        return cls(center, spread)

    def __call__(self, features: np.ndarray) -> Features:
        """Return standardized features."""
        standard = (features.astype(np.float32) - self.center) / self.spread
        return np.asarray(standard.clip(-_FARTHEST, _FARTHEST), np.float32)


@dataclass(frozen=True)
class Reference:
    """Standardized cells of negative control wells, and the scale of distances to them.

    Attributes
    ----------
    cells
        Shape (n, F).
    middle, limit
        Distances of held-out negative cells at the median and at the 95th percentile: scores 0 and 1.
    """

    cells: Features
    middle: float
    limit: float

    def score(self, features: Features) -> NDArray[np.float64]:
        """Return the score of standardized cells (n, F): 0 for a typical held-out negative cell, 1 for one in 20."""
        return (nearest(features, self.cells) - self.middle) / (self.limit - self.middle)


def nearest(features: Features, reference: Features) -> NDArray[np.float64]:
    """Return the mean distance of cells (n, F) to the five nearest of a reference (m, F)."""
    known = torch.from_numpy(np.ascontiguousarray(reference))
    squares = known.square().sum(1)
    k = min(_NEIGHBORS, len(known))
    parts = [np.zeros(0)]
    for some in torch.from_numpy(np.ascontiguousarray(features)).split(_BLOCK):
        distances = some.square().sum(1)[:, None] + squares - 2 * some @ known.T
        closest = distances.topk(k, largest=False).values.clamp_min(0).sqrt()
        parts.append(closest.mean(1).numpy().astype(float))
    return np.concatenate(parts)


def deal(wells: Sequence[str], seed: int) -> dict[str, int]:
    """Return the part of each of a plate's negative control wells, dealt evenly, whatever their order."""
    random = np.random.default_rng(seed)
    order = random.permutation(sorted(wells))
    return {str(well): n % N_PARTS for n, well in enumerate(order)}


@dataclass(frozen=True)
class NoveltyModel:
    """References of all parts, and what must be known to apply them.

    Attributes
    ----------
    references
        One for each part.
    objects
        Score above which a cell is an object.
    screen
        Where it was learned.
    channels, pixel_size_um
        As of the encoder.
    encoder
        Digest of the encoder's weights.
    outlined
        Whether cells are found in the images; otherwise squares take their place.
    parts
        Part of each negative control well, as ``plate/well``, of all plates.
    n_cells
        Cells of each reference.
    settings
        The section ``discovery`` of the config.
    """

    references: list[Reference]
    objects: float
    screen: str
    channels: list[str]
    pixel_size_um: float | None
    encoder: str
    outlined: bool
    parts: dict[str, int]
    n_cells: list[int] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def n_measures(self) -> int:
        """How many of the features are measures of the whole cell, the last ones."""
        return measured(self.channels, self.outlined)

    def folds_of(self, well: str) -> list[int]:
        """Return which references judge a well (``plate/well``): that of its own part, or all."""
        return [self.parts[well]] if well in self.parts else list(range(N_PARTS))


def measured(channels: Sequence[str], outlined: bool) -> int:
    """Return how many measures of the whole cell the features end with: squares, in place of cells, have none."""
    return n_measures(len(channels)) if outlined else 0


def fit_references(
    cells: Mapping[str, np.ndarray], parts: Mapping[str, int], seed: int, n_measures: int = 0
) -> tuple[list[Reference], float]:
    """Return the references, and the score above which a cell is an object.

    Parameters
    ----------
    cells
        Features (n, F) of the cells of each negative control well, as ``plate/well``.
    parts
        Part of each of these wells.
    seed
        Of the cells that are drawn.
    n_measures
        How many of the features are measures of the whole cell, the last ones.
    """
    random = np.random.default_rng(seed)
    plate_of = {well: well.rpartition("/")[0] for well in cells}
    references, above = [], []
    for part in range(N_PARTS):
        inside = [well for well in cells if parts[well] != part]
        scales = {
            plate: PlateScale.of(
                np.concatenate([cells[well] for well in inside if plate_of[well] == plate]), n_measures
            )
            for plate in {plate_of[well] for well in inside}
        }

        def drawn(wells: Sequence[str], most: int, scales: Mapping[str, PlateScale] = scales) -> Features:
            each = -(-most // max(len(wells), 1))
            chosen = []
            for well in wells:
                own = cells[well]
                kept = np.sort(random.permutation(len(own))[:each])
                chosen.append(scales[plate_of[well]](own[kept]))
            return np.concatenate(chosen)

        reference = drawn(inside, _REFERENCE)
        held_out = nearest(drawn([well for well in cells if parts[well] == part], _HELD_OUT), reference)
        middle, limit = np.quantile(held_out, [_MIDDLE, _LIMIT])
        limit = max(limit, middle + 1e-6)
        references.append(Reference(reference, float(middle), float(limit)))
        above.append((np.quantile(held_out, _OBJECT) - middle) / (limit - middle))
    return references, float(np.mean(above))


_CARD = [one.name for one in fields(NoveltyModel) if one.name != "references"]


def save_novelty(path: Path, model: NoveltyModel) -> None:
    """Write a model to `path` (safetensors), its card in the file's metadata, atomically."""
    tensors = {f"reference-{k}": one.cells for k, one in enumerate(model.references)}
    tensors["scale"] = np.array([[one.middle, one.limit] for one in model.references])
    card = {name: value for name, value in asdict(model).items() if name in _CARD}
    with atomic_path(path) as partial:
        save_file(tensors, partial, {"novelty": json.dumps(card, sort_keys=True, allow_nan=False)})


def load_novelty(path: Path) -> NoveltyModel:
    """Return the model that `save_novelty` wrote; loading runs no code.

    Raises
    ------
    UserError
        When the file is missing or is no such model.
    """
    try:
        with safe_open(path, "numpy") as file:
            card = json.loads((file.metadata() or {})["novelty"])
            scale = file.get_tensor("scale")
            references = [Reference(file.get_tensor(f"reference-{k}"), *map(float, scale[k])) for k in range(N_PARTS)]
        return NoveltyModel(references=references, **card)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: is not a model of novelty ({reason}); run `wscnn novelty` again") from None


def scales_of(
    cells: Mapping[str, np.ndarray], parts: Mapping[str, int], n_measures: int = 0
) -> list[PlateScale] | None:
    """Return a plate's scale for each reference, by those of its negative control wells that are not of its part.

    Parameters
    ----------
    cells
        Features (n, F) of the plate's negative control wells, by name.
    parts
        Part of each of these.
    n_measures
        As for `fit_references`.

    Returns
    -------
    list
        One for each reference; None where a part has fewer than `LEAST_OF_PART` wells with cells.
    """
    known = [well for well, own in cells.items() if len(own)]
    if any(sum(parts[well] == part for well in known) < LEAST_OF_PART for part in range(N_PARTS)):
        return None
    return [
        PlateScale.of(np.concatenate([cells[well] for well in known if parts[well] != part]), n_measures)
        for part in range(N_PARTS)
    ]


def negatives_of(controls: pd.DataFrame, seed: int) -> dict[str, int]:
    """Return the part of every negative control well of a table of controls, as ``plate/well``."""
    negative = controls[controls["role"] == "negative"]
    return {
        f"{plate}/{well}": part
        for plate, rows in negative.groupby("plate", sort=True)
        for well, part in deal(rows["well"].tolist(), seed).items()
    }
