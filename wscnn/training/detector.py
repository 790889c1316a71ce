"""Linear detectors, one per phenotype, on an encoder that was pretrained without labels; trained on well labels alone.

A well is positive if any of its cells is, and a cell is as positive as its highest position: noisy-or over all cells of
a well, the maximum over the positions of a cell (multiple-instance learning; Dietterich et al., Artificial Intelligence
1997). What is measured on the cell as a whole is added: size, shape and brightness are hard to see for a position that
sees a part of a cell. All wells take part in every step, so only some positions are drawn at random. Only the last
layer is trained; its features were learned without labels, so that it does not overfit to a few dozen wells.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from wscnn.core.progress import log
from wscnn.network.cells import ImageCells
from wscnn.network.model import WSCNN, field_features, standardised
from wscnn.staging.cell_measures import find_cells
from wscnn.staging.regions import FEWEST, SIDE, tiles
from wscnn.training.fit import Examples, evaluate, well_auc

#: Positions kept per cell, and how many of them are used in a step.
_KEPT, _SEEN = 24, 12
#: Size limit of the kept features, in numbers; in larger screens each cell keeps fewer positions.
_NUMBERS = 1_000_000_000
#: Random initial detectors; the one with the lowest final loss is kept. Some end in a poor minimum, with a loss near
#: that of an empty detector.
_STARTS = 4
#: Size of the first weights, and penalty on their squares.
_FIRST, _PENALTY = 0.02, 1e-3
#: Penalty on the squares of the weights of measures, and the quantile to which outliers of the measures are clipped
#: before these are standardised.
_CELL_PENALTY, _CLIPPED = 1e-2, 1e-3
#: Most cells by which features and measures are standardised.
_STANDARD = 4096
#: Fields per forward pass.
_BATCH = 8
#: Most trainings of a fold whose detectors do no better than chance on held-out wells.
_ATTEMPTS = 3
#: Quantile of the normal distribution that an AUC must exceed to be better than chance (5 %); an AUC that counts as
#: learned whatever the number of wells; and the fewest wells per class for the test, in which each detector has learned
#: from half of them.
_CHANCE, _ENOUGH, _FEWEST_WELLS = 1.64, 0.65, 6


@dataclass(frozen=True)
class Cells:
    """Features of the cells of labelled wells.

    Attributes
    ----------
    features
        Shape (cells, positions, F), float16.
    measures
        What is measured on each cell, (cells, M); M is 0 where these are squares.
    well
        Index in `labels` of each cell's well, (cells,).
    labels
        Class of each well, (wells,); 0 is negative.
    names
        Names of the wells, as ``plate/well``.
    outlines
        The cells of the fields as tensors, where they were found in the images; None where these are squares.
    """

    features: Tensor
    measures: Tensor
    well: Tensor
    labels: Tensor
    names: list[str]
    outlines: ImageCells | None

    @property
    def negative(self) -> Tensor:
        """Which cells are of negative wells, (cells,)."""
        return (self.labels == 0)[self.well]

    def of(self, names: set[str]) -> "Cells":
        """Return the cells of some wells."""
        kept = torch.tensor([name in names for name in self.names])
        number = torch.cumsum(kept, 0) - 1
        here = kept.to(self.well.device)[self.well]
        return Cells(
            self.features[here],
            self.measures[here],
            number.to(self.well.device)[self.well[here]],
            self.labels[kept.to(self.labels.device)],
            [name for name in self.names if name in names],
            self.outlines,
        )

    def sample(self) -> "tuple[Tensor, Tensor]":
        """Return features and measures of an even sample of the cells."""
        step = max(1, len(self.features) // _STANDARD)
        return self.features[::step].float(), self.measures[::step]


@torch.no_grad()
def cells_of(network: WSCNN, examples: Examples, seed: int) -> Cells:
    """Return the features of all cells of labelled fields, by a `network` on the device to compute on.

    Cells are found in the image itself (`wscnn.staging.regions.outline`); where hardly any are found, squares of 8 x
    8 positions are used instead.
    """
    device = next(network.parameters()).device
    fields = [find_cells(image.float().numpy(), network.stride, network.nuclear) for image in examples.fields.cpu()]
    found = [field.regions for field in fields]
    numbers = [np.unique(own[own > 0]) for own in found]
    counts = [len(own) for own in numbers]
    outlines = None
    if np.mean(counts) >= FEWEST:
        outlines = ImageCells.of(fields, device)
        measures = np.concatenate([field.measures[own - 1] for field, own in zip(fields, numbers, strict=True)])
    else:
        log("  hardly any cells are found in the images: positions are pooled over squares")
        found = [tiles(own.shape, SIDE) for own in found]
        counts = [int(own.max()) for own in found]
        measures = np.empty((sum(counts), 0), np.float32)
    kept = int(np.clip(_NUMBERS // max(sum(counts) * network.classify.in_channels, 1), 1, _KEPT))
    random = np.random.default_rng(seed)
    names = sorted(set(examples.wells))
    well_number = {name: n for n, name in enumerate(names)}
    parts, wells = [], []
    for start in range(0, len(found), _BATCH):
        images = examples.fields[start : start + _BATCH].float().to(device)
        features = field_features(network, images).flatten(2).transpose(1, 2)  # (n, positions, F)
        for image, own, name in zip(features, found[start:], examples.wells[start:], strict=False):
            chosen = _positions(own.ravel(), kept, random)
            parts.append(image[torch.from_numpy(chosen).to(device)].half())
            wells += [well_number[name]] * len(chosen)
    labels = dict(zip(examples.wells, examples.labels.tolist(), strict=True))
    return Cells(
        torch.cat(parts),
        torch.from_numpy(measures).to(device),
        torch.tensor(wells, device=device),
        torch.tensor([labels[name] for name in names], device=device),
        names,
        outlines,
    )


def _positions(region: np.ndarray, kept: int, random: np.random.Generator) -> np.ndarray:
    """Return random positions of each region, (regions, kept), with repetitions in smaller regions."""
    order = random.permutation(np.flatnonzero(region))
    order = order[np.argsort(region[order], kind="stable")]
    _, first, counts = np.unique(region[order], return_index=True, return_counts=True)
    return order[first[:, None] + np.arange(kept) % counts[:, None]]


@dataclass(frozen=True)
class Detectors:
    """Linear detectors, one per phenotype: of positions by features, and of cells by measures.

    Attributes
    ----------
    weights, biases
        Shapes (P, F) and (P,).
    cell_weights
        Weights of standardised measures, (P, M).
    cell_middle, cell_spread
        Mean and standard deviation of the measures, (M,).
    losses
        At the end of training; an empty detector has ln 2 or more.
    """

    weights: Tensor
    biases: Tensor
    cell_weights: Tensor
    cell_middle: Tensor
    cell_spread: Tensor
    losses: list[float]

    def scores(self, cells: Cells) -> Tensor:
        """Return the scores of cells, (cells, P)."""
        highest = torch.cat([(some.float() @ self.weights.T).amax(1) for some in cells.features.split(4096)])
        standard = standardised(cells.measures, self.cell_middle, self.cell_spread)
        return highest + self.biases + standard @ self.cell_weights.T

    def on_scale_of(self, other: "Detectors", cells: Cells) -> "Detectors":
        """Return the same detectors, scaled so that their scores of cells of negative wells match those of `other`.

        That is, their scores have the same median and the same distance from it to the 95 % quantile.
        """
        low, high = self._quantiles(cells)
        other_low, other_high = other._quantiles(cells)
        factor = (other_high - other_low) / (high - low).clamp_min(1e-6)
        return replace(
            self,
            weights=self.weights * factor[:, None],
            biases=(self.biases - low) * factor + other_low,
            cell_weights=self.cell_weights * factor[:, None],
        )

    def _quantiles(self, cells: Cells) -> Tensor:
        """Return the median and 95 % quantile of the scores of cells of negative wells, (2, P)."""
        scores = self.scores(cells)[cells.negative]
        n = len(scores)
        return torch.stack([scores.kthvalue(1 + int(share * (n - 1)), 0).values for share in (0.5, 0.95)])


def fit_detectors(cells: Cells, n_classes: int, recipe: Mapping[str, Any], seed: int) -> Detectors:
    """Return the detectors that best explain the labels of wells.

    Parameters
    ----------
    cells
        The cells of all training wells, with at least one well per class.
    n_classes
        Classes, the negative one included.
    recipe
        ``steps`` and ``learning_rate`` of the optimiser, Adam with one cycle.
    seed
        Seed of the initial weights and of the random positions.
    """
    some_features, some_measures = cells.sample()
    spread, middle = torch.std_mean(some_features, (0, 1))
    spread = spread + 1e-5
    features = (cells.features - middle.half()) / spread.half()
    ranked = some_measures.sort(0).values
    bounds = [ranked[round(share * (len(ranked) - 1))] for share in (_CLIPPED, 1 - _CLIPPED)]
    clipped = some_measures.clamp(*bounds)
    cell_middle = clipped.mean(0)
    cell_spread = (clipped - cell_middle).square().mean(0).sqrt() + 1e-5
    measures = standardised(cells.measures, cell_middle, cell_spread)
    found = [
        _fit_one(features, measures, cells, label, recipe["steps"], recipe["learning_rate"], seed)
        for label in range(1, n_classes)
    ]
    weights, biases, cell_weights = (torch.stack(parts) for parts in list(zip(*found, strict=True))[:3])
    weights = weights / spread
    return Detectors(
        weights, biases - weights @ middle, cell_weights, cell_middle, cell_spread, [loss for *_, loss in found]
    )


def _fit_one(
    features: Tensor, measures: Tensor, cells: Cells, label: int, steps: int, rate: float, seed: int
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Return weights (F,), bias, weights of measures (M,) and loss of the detector of the class `label`.

    Features and measures are standardised.
    """
    device = features.device
    random = torch.Generator().manual_seed(seed)
    weight = (_FIRST * torch.randn((features.shape[2], _STARTS), generator=random)).to(device).requires_grad_()
    cell_weight = torch.zeros((measures.shape[1], _STARTS), device=device).requires_grad_()
    # Initially a well holds about a third of a positive cell.
    first = -1 - float(np.log(max(len(features) / len(cells.labels), 1)))
    bias = torch.full((_STARTS,), first, device=device).requires_grad_()
    optimizer = torch.optim.Adam([weight, cell_weight, bias], rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, max(steps, 2))

    def losses(seen: Tensor) -> Tensor:
        scores = (features[:, seen] @ weight.half() if features.is_cuda else features[:, seen].float() @ weight).float()
        highest = (scores + bias).amax(1) + measures @ cell_weight  # (cells, starts)
        none = torch.zeros((len(cells.labels), _STARTS), device=device)
        none = none.index_add(0, cells.well, functional.logsigmoid(-highest))
        some = torch.log1p(-none.exp().clamp(max=1 - 1e-6))
        positive = cells.labels == label
        return -(some[positive].mean(0) + none[~positive].mean(0)) / 2

    for _ in range(steps):
        seen = torch.randperm(features.shape[1], generator=random)[:_SEEN].to(device)
        penalty = _PENALTY * weight.square().sum(0) + _CELL_PENALTY * cell_weight.square().sum(0)
        loss = (losses(seen) + penalty).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        last = losses(torch.arange(min(_SEEN, features.shape[1]), device=device))
        best = int(last.argmin())
        return weight[:, best].detach(), bias[best].detach(), cell_weight[:, best].detach(), float(last[best])


def set_detectors(network: WSCNN, detectors: Detectors, cells: Cells) -> None:
    """Set the last layer of `network` to the detectors; the negative class scores 0 everywhere.

    `cells` are those that the detectors were fitted to.
    """
    with torch.no_grad():
        network.classify.weight.zero_()
        network.classify.bias.zero_()  # type: ignore[union-attr]
        network.classify.weight[1:, :, 0, 0] = detectors.weights
        network.classify.bias[1:] = detectors.biases  # type: ignore[index]
        if cells.outlines is not None:
            network.cell_weight.copy_(detectors.cell_weights)
            network.cell_middle.copy_(detectors.cell_middle)
            network.cell_spread.copy_(detectors.cell_spread)
            network.cell_share.copy_(torch.sigmoid(detectors.scores(cells)[cells.negative]).mean(0))


def learned(value: float, n_negative: int, n_positive: int) -> bool:
    """Return whether an AUC over these numbers of wells is better than chance, or the wells are too few to say.

    Where nothing was learned, its standard error is that of the rank sum of Wilcoxon (Mann and Whitney, Annals of
    Mathematical Statistics 1947).
    """
    if min(n_negative, n_positive) < _FEWEST_WELLS:
        return True
    error = np.sqrt((n_negative + n_positive + 1) / (12 * n_negative * n_positive))
    return bool(value >= min(0.5 + _CHANCE * error, _ENOUGH))


def train_detectors(
    network: WSCNN, examples: Mapping[str, Examples], recipe: Mapping[str, Any], seed: int
) -> tuple[pd.DataFrame, Examples, np.ndarray, np.ndarray, Cells]:
    """Fit the last layer of an encoded network to the wells of two parts, with a cross-check between the parts.

    In addition to the detectors of all wells, others are fitted to each part and applied to the other one. So every
    field has scores by detectors that were not fitted to its well: they determine the thresholds, and where they
    separate the classes no better than chance, the fold is trained again from other initial weights, up to three times
    in all.

    Parameters
    ----------
    network
        The network, on the device to compute on, with layers from `wscnn.encoder`.
    examples
        Examples of the parts ``train`` and ``select``, usually on the host.
    recipe
        As `wscnn.training.recipe.recipe_of` gives it.
    seed
        Seed of all random draws.

    Returns
    -------
    history
        One row per attempt: ``step, loss, select_auc, learning_rate, seconds, best``.
    checked
        The fields of both parts.
    logits, maps
        Their scores (n, P) and detector maps (n, P, h', w'), each by the detectors of the other part.
    cells
        The cells of the fields of both parts.
    """
    parts = [examples["train"], examples["select"]]
    checked = Examples(
        torch.cat([part.fields for part in parts]),
        torch.cat([part.labels for part in parts]),
        [well for part in parts for well in part.wells],
    )
    began = time.monotonic()
    # Batch norm keeps the statistics of all wells.
    network.eval()
    cells = cells_of(network, checked, seed)
    counts = torch.bincount(cells.labels, minlength=network.n_classes).tolist()
    log(f"  {len(cells.features)} cells of {len(cells.names)} wells, {time.monotonic() - began:.0f} s")
    rows: list[dict[str, Any]] = []
    kept: tuple[Detectors, np.ndarray, np.ndarray]
    for attempt in range(_ATTEMPTS):
        whole = fit_detectors(cells, network.n_classes, recipe, seed + attempt)
        logits, maps = _crosswise(network, parts, cells, whole, recipe, seed + attempt)
        aucs = well_auc(logits, checked)
        best = all(np.mean(aucs) > row["select_auc"] for row in rows)
        seconds = time.monotonic() - began
        rows = [row | {"best": row["best"] and not best} for row in rows]
        rows.append(
            {"step": recipe["steps"], "loss": float(np.mean(whole.losses)), "select_auc": float(np.mean(aucs))}
            | {"learning_rate": recipe["learning_rate"], "seconds": seconds, "best": best}
        )
        log(f"  loss {rows[-1]['loss']:.3f}, AUC over wells of the other part {np.mean(aucs):.3f}, {seconds:.0f} s")
        if best:
            kept = whole, logits, maps
        if all(learned(value, counts[0], counts[label]) for label, value in enumerate(aucs, 1)):
            break
        log("  no better than chance" + ("; trained again" if attempt + 1 < _ATTEMPTS else ""))
    set_detectors(network, kept[0], cells)
    return pd.DataFrame(rows), checked, kept[1], kept[2], cells


def _crosswise(
    network: WSCNN, parts: Sequence[Examples], cells: Cells, whole: Detectors, recipe: Mapping[str, Any], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and maps of the fields of both parts, by detectors of the other part on the scale of `whole`."""
    device = next(network.parameters()).device
    scored = []
    ends = np.cumsum([0, *(len(part.fields) for part in parts)])
    for at, (part, other) in enumerate((parts, parts[::-1])):
        detectors = fit_detectors(cells.of(set(other.wells)), network.n_classes, recipe, seed)
        set_detectors(network, detectors.on_scale_of(whole, cells), cells)
        own = slice(ends[at], ends[at + 1])
        shown = None if cells.outlines is None else cells.outlines[own]
        scored.append(evaluate(network, part.fields.to(device), cells=shown))
    logits, maps = (np.concatenate(values) for values in zip(*scored, strict=True))
    return logits, maps


def highest_of_cells(maps: np.ndarray, found: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return for each field the highest score of each of its cells, by phenotype: (cells, P).

    Parameters
    ----------
    maps
        Shape (n, P, h', w').
    found
        Of each field the cell of each position, 0 where there is none.
    """
    highest = []
    for detector, own in zip(maps, found, strict=True):
        numbers = np.unique(own[own > 0])
        scores = [ndimage.maximum(one, own, numbers) for one in detector]
        highest.append(np.stack(scores, 1) if len(numbers) else np.empty((0, len(detector))))
    return highest
