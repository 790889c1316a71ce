"""The training loop: labelled fields in, the weights with the best validation out."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, distributed, nn

from wscnn.core.errors import UserError
from wscnn.core.progress import log
from wscnn.network.cells import ImageCells
from wscnn.network.device import fast_bfloat16
from wscnn.network.model import WSCNN, score_fields
from wscnn.statistics.roc import auc, auc_error
from wscnn.training.bags import Bags
from wscnn.training.checkpoint import load_checkpoint, save_checkpoint
from wscnn.training.cuda_graph import CudaGraphStep
from wscnn.training.heads import PEAKED, start_head

#: Evaluations without a lower loss after which the preset `paper` divides its rate by 10.
_PLATEAU = 2
#: Evaluations over which the validation AUC is averaged: over a few dozen fields it fluctuates.
_AVERAGED = 3


@dataclass
class Examples:
    """Fields of known class.

    Attributes
    ----------
    fields
        Shape (n, C, h, w), on the device of the training, usually in float16.
    labels
        Class of each field, (n,), on the same device; 0 is negative.
    wells
        The well of each field, as ``plate/well``.
    """

    fields: Tensor
    labels: Tensor
    wells: list[str]

    def to(self, device: torch.device) -> "Examples":
        """Return the same on another device."""
        return Examples(self.fields.to(device), self.labels.to(device), self.wells)


@dataclass(frozen=True)
class DdpRank:
    """Rank of one of several processes that train one network by torch's DistributedDataParallel.

    Attributes
    ----------
    rank, n
        Index of this process, and number of processes.
    """

    rank: int = 0
    n: int = 1

    def of_batch(self, batch: int) -> slice:
        """Return which images of a batch this process draws: adjacent ones, since classes alternate in a batch.

        Each process computes batch norm over its own images; if they were of one class, nothing could be learned.
        """
        return slice(batch * self.rank // self.n, batch * (self.rank + 1) // self.n)

    def joined(self, network: WSCNN) -> nn.Module:
        """Return the network to compute with: gradients are the mean over processes."""
        return network if self.n == 1 else nn.parallel.DistributedDataParallel(network)

    def mean(self, value: Tensor) -> float:
        """Return the mean over processes."""
        if self.n > 1:
            distributed.all_reduce(value)
        return value.item() / self.n

    def of_first(self, value: Callable[[], float]) -> float:
        """Return the value of the first process."""
        found = [value() if self.rank == 0 else 0.0]
        if self.n > 1:
            distributed.broadcast_object_list(found)
        return found[0]


def fit(
    network: WSCNN,
    train: Examples,
    select: Examples,
    recipe: Mapping[str, Any],
    seed: int,
    resume: Path | None = None,
    key: str = "",
    share: DdpRank = DdpRank(),
) -> pd.DataFrame:
    """Train `network` in place, leave it with the weights of the best validation, and return the history.

    Parameters
    ----------
    network
        The network, on the device to train on, as are the fields.
    train, select
        Examples to train on, and examples for validation, which chooses the weights by the mean over phenotypes of the
        AUC over fields, averaged with that of the two evaluations before. Kept are the last weights whose AUC is within
        a standard error of the highest (Breiman et al., Classification and Regression Trees, 1984): over a few hundred
        fields the maximum of ten AUCs is largely chance, and late weights, at a low learning rate, have converged.
    recipe
        As `recipe_of` gives it. With ``heads`` above 0, and a pool that a few positions decide, the last layer is
        initialised from the best of that many random detectors (see `wscnn.training.heads`). Training ends early when
        for ``patience`` evaluations neither the loss has fallen nor the AUC risen.
    seed
        Seed of all random draws.
    resume
        A file to which the state is saved at every evaluation. If it exists with the same `key`, training resumes from
        it, with the same result as without the interruption.
    key
        Identifies data and settings.
    share
        Share of the images of each batch, where several processes train one network.

    Returns
    -------
    pandas.DataFrame
        One row per evaluation: ``step``, ``loss`` (mean since the row before), ``select_auc, learning_rate, seconds``
        (of training so far), ``best`` (whether the weights replaced those kept before).

    Raises
    ------
    UserError
        When the training diverges.
    """
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    augmented = recipe["crop"], recipe["tiles"], recipe["augmentation"]
    bags = Bags(train.fields, train.labels, *augmented, seed, share.of_batch(recipe["batch"]))
    frozen = network.blocks[: recipe["freeze"]]
    frozen.requires_grad_(False)
    optimizer = _optimizer([weight for weight in network.parameters() if weight.requires_grad], recipe)
    steps = recipe["steps"]
    marks = sorted({max(1, round(steps * (i + 1) / recipe["evaluations"])) for i in range(recipe["evaluations"])})
    counts = select.labels.bincount(minlength=network.n_classes).tolist()
    rows, best, before = load_checkpoint(resume, key, network, optimizer, bags)
    step = rows[-1]["step"] if rows else 0
    if rows:
        log(f"resumes from step {step} of an interrupted training")
    elif recipe["heads"] and network.pool in PEAKED:
        start_head(network, train.fields, train.labels, recipe["heads"], seed, bags.fields_shown)
    began = time.monotonic()
    losses: list[Tensor] = []
    take = _stepper(network, optimizer, recipe, share, on_gpu=bags.fields.is_cuda)
    with _deterministic():
        while step < steps:
            if _stalls(rows, recipe["patience"]):
                log(f"  ends early: no better for {recipe['patience']} evaluations")
                break
            rate = _rate(recipe, step / steps, rows)
            _set_rate(optimizer, rate)
            network.train()
            frozen.eval()
            losses.append(take(*bags.draw(recipe["batch"])))
            step += 1
            if step not in marks:
                continue
            row = _evaluation(step, losses, rate, network, select, recipe, share)
            losses.clear()
            aucs = [*(earlier["select_auc"] for earlier in rows), row["select_auc"]]
            rows.append({**row, "seconds": before + time.monotonic() - began, "best": _last_is_best(aucs, counts)})
            if rows[-1]["best"]:
                best = deepcopy(network.state_dict())
            if share.rank:
                continue
            log(f"  step {step}: loss {row['loss']:.4f}, AUC {row['select_auc']:.4f}, {rows[-1]['seconds']:.0f} s")
            if resume is not None:
                save_checkpoint(resume, key, network, optimizer, bags, rows, best)
    network.load_state_dict(best)
    network.eval()
    return pd.DataFrame(rows)


def _stepper(
    network: WSCNN, optimizer: torch.optim.Optimizer, recipe: Mapping[str, Any], share: DdpRank, on_gpu: bool
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function that takes one training step on images and labels and returns the loss."""
    learner = share.joined(network)

    def learn(images: Tensor, labels: Tensor) -> Tensor:
        return _step(learner, network, optimizer, recipe, images, labels)

    return CudaGraphStep(learn) if on_gpu and share.n == 1 else learn


def _evaluation(
    step: int,
    losses: list[Tensor],
    rate: float,
    network: WSCNN,
    select: Examples,
    recipe: Mapping[str, Any],
    share: DdpRank,
) -> dict[str, Any]:
    """Return ``step, loss, select_auc, learning_rate``, the loss as the mean over steps.

    Raises
    ------
    UserError
        When the loss is not finite.
    """
    loss = share.mean(torch.stack(losses).mean())
    if not np.isfinite(loss):
        raise UserError(f"training diverged by step {step} (loss {loss}); lower train.learning_rate")
    # All processes must decide by the same number, but each has its own batch statistics.
    score = share.of_first(lambda: _select_auc(network, select, recipe))
    return {"step": step, "loss": loss, "select_auc": score, "learning_rate": rate}


@torch.no_grad()
def evaluate(
    network: WSCNN, fields: Tensor, batch: int = 16, cells: ImageCells | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return log-odds (n, P) and detector maps (n, P, h', w') of fields (n, C, h, w) on the network's device.

    Where their `cells` are known, these are used, as in `wscnn.network.model.score_fields`.
    """
    was_training = network.training
    network.eval()
    scored = [
        score_fields(network, fields[part].float(), None if cells is None else cells[part])
        for part in (slice(start, start + batch) for start in range(0, len(fields), batch))
    ]
    network.train(was_training)
    logits, maps = (torch.cat(parts).float().cpu().numpy() for parts in zip(*scored, strict=True))
    return logits, maps


def field_auc(logits: np.ndarray, examples: Examples) -> list[float]:
    """Return for each phenotype the AUC of its fields against the negative ones."""
    labels = examples.labels.cpu().numpy()
    return [auc(logits[labels == 0, index], logits[labels == index + 1, index]) for index in range(logits.shape[1])]


def well_auc(logits: np.ndarray, examples: Examples) -> list[float]:
    """Return for each phenotype the AUC of its wells against the negative ones.

    A well's score is the mean over its fields.
    """
    table = pd.DataFrame(logits).assign(well=examples.wells, label=examples.labels.cpu().numpy())
    wells = table.groupby(["well", "label"], as_index=False).mean()
    return [
        auc(wells.loc[wells["label"] == 0, index].to_numpy(), wells.loc[wells["label"] == index + 1, index].to_numpy())
        for index in range(logits.shape[1])
    ]


def _step(
    learner: nn.Module,
    network: WSCNN,
    optimizer: torch.optim.Optimizer,
    recipe: Mapping[str, Any],
    images: Tensor,
    labels: Tensor,
) -> Tensor:
    """Take one step of `network` through `learner`, the network itself or its DDP wrapper; return the loss."""
    with _autocast(images.device, recipe):
        logits = learner(images.contiguous(memory_format=torch.channels_last))
    loss = network.loss(logits, labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if recipe["clip"] is not None:
        nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], recipe["clip"])
    optimizer.step()
    return loss.detach()


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate, in place where a CUDA graph reads it."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def _autocast(device: torch.device, recipe: Mapping[str, Any]) -> torch.autocast:
    """Return the context in which training computes: bfloat16 where that is faster, unless the recipe says no."""
    return torch.autocast(device.type, torch.bfloat16, enabled=recipe["bfloat16"] and fast_bfloat16(device))


def _select_auc(network: WSCNN, select: Examples, recipe: Mapping[str, Any]) -> float:
    """Return the mean over phenotypes of the AUC over fields."""
    with _autocast(select.fields.device, recipe):
        logits, _ = evaluate(network, select.fields)
    return float(np.mean([value for value in field_auc(logits, select) if np.isfinite(value)]))


def _last_is_best(aucs: list[float], counts: list[int]) -> bool:
    """Return whether no earlier evaluation had an AUC higher by a standard error, each averaged with those before it.

    `counts` are the fields of each class.
    """
    means = [float(np.mean(aucs[max(0, end - _AVERAGED) : end])) for end in range(1, len(aucs) + 1)]
    highest = max(means)
    return means[-1] >= highest - auc_error(highest, counts[0], sum(counts[1:]) / (len(counts) - 1))


def _stalls(rows: list[dict[str, Any]], patience: int) -> bool:
    """Return whether neither the lowest loss nor the highest AUC of these evaluations is among the last ones."""
    if len(rows) <= patience:
        return False
    before, last = rows[:-patience], rows[-patience:]
    return min(row["loss"] for row in last) >= min(row["loss"] for row in before) and max(
        row["select_auc"] for row in last
    ) <= max(row["select_auc"] for row in before)


def _optimizer(weights: list[nn.Parameter], recipe: Mapping[str, Any]) -> torch.optim.Optimizer:
    decay, device = recipe["weight_decay"], weights[0].device
    on_gpu = device.type == "cuda"
    # A captured step reads the rate from the GPU.
    rate = torch.tensor(recipe["learning_rate"], device=device) if on_gpu else recipe["learning_rate"]
    if recipe["optimizer"] == "sgd":
        return torch.optim.SGD(weights, lr=rate, momentum=0.9, weight_decay=decay, fused=on_gpu)
    return torch.optim.AdamW(weights, lr=rate, weight_decay=decay, fused=on_gpu, capturable=on_gpu)


def _rate(recipe: Mapping[str, Any], done: float, rows: list[dict[str, Any]]) -> float:
    """Return the learning rate after a fraction `done` of the steps.

    One cycle: up over the first fifth, then down along a cosine. With SGD as in the paper: divided by 10 when the
    loss has not fallen for some evaluations.
    """
    top = recipe["learning_rate"]
    if recipe["optimizer"] == "sgd":
        drops, lowest, since = 0, float("inf"), 0
        for row in rows:
            since = 0 if row["loss"] < lowest else since + 1
            lowest = min(lowest, row["loss"])
            if since == _PLATEAU:
                drops, since = drops + 1, 0
        return top * 0.1**drops
    rise = 0.2
    if done < rise:
        return top * (0.04 + 0.96 * done / rise)
    return top * (0.001 + 0.999 * 0.5 * (1 + float(np.cos(np.pi * (done - rise) / (1 - rise)))))


@contextmanager
def _deterministic() -> Iterator[None]:
    """Make torch deterministic where possible."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Memory is written before it is read; to fill it first would cost a pass over all results.
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = filled
