"""The detector that training starts from: of many random ones, the mean of those that tell the classes apart best.

A soft pool gives a place a gradient in proportion to what it already scores. So a network whose first random detector
happens to be low at the rare cells stays at chance, for as long as other differences between images drown the little
that the rare cells give. Random filters of several layers respond to them all the same, and trying hundreds of
detectors on their features costs less than ten training steps.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from wscnn.network.model import NOISY_OR, WSCNN, topk
from wscnn.statistics.roc import partial_auc

#: Pools that a few high places decide, so that it matters where the detector is high at first.
PEAKED = (*NOISY_OR, "max", "lse", "topk")

# Fields that detectors are tried on, at most, and at a time.
_FIELDS, _BATCH = 256, 16
# Batches from which batch norm takes its first statistics.
_CALIBRATION = 4
# The best that are averaged: what each of them fits by chance cancels out.
_KEPT = 64
# Detectors are judged by the positive fields that stand above this share of the negative ones that score highest, and
# above so many of them at least. Where a phenotype is so rare that most positive fields do not hold it, the few that do
# are told from all negative fields long before the whole ROC curve leaves the diagonal.
_HIGHEST, _FEWEST = 0.1, 4
# By how much, in log-odds, a field's highest places stand above the mean of all places at first.
_RISE = 4.0


@torch.no_grad()
def start_head(network: WSCNN, fields: Tensor, labels: Tensor, n: int, seed: int, shown: int = 1) -> None:
    """Give the last layer of `network` weights that already tell something, and fresh batch norm its statistics.

    Of `n` random detectors a phenotype, those 64 are averaged whose highest places tell its fields from negative ones
    best, by how many stand above nearly all negative ones. The bias makes a training image positive with even odds, on
    average.

    Parameters
    ----------
    network
        With a pool of `PEAKED`; fresh, or with the layers before the last one of another model, which stay as they are.
    fields, labels
        Shape (m, C, h, w) and (m,): what is trained on. At most 256, drawn evenly over classes, are looked at.
    n
        Detectors to try.
    seed
        Of the draws.
    shown
        As many fields' area does a training image show: the more there is to see, the higher is what a pool gives.
    """
    random = torch.Generator().manual_seed(seed)
    chosen = _even(labels.cpu(), random)
    chosen = chosen.to(fields.device)
    fields, labels = fields[chosen], labels.to(fields.device)[chosen]
    features = torch.cat(list(_features(network, fields)))
    centred = features - features.mean((0, 2, 3), keepdim=True)
    weights = network.classify.weight
    shape = (n, *weights.shape[1:])
    heads = torch.randn(shape, generator=random)
    # Half of them look at one place alike all over the kernel: less to fit by chance.
    heads[: n // 2] = heads[: n // 2, :, :1, :1]
    heads = heads.to(weights.device)
    heads /= functional.conv2d(centred[:_BATCH], heads).std((0, 2, 3))[:, None, None, None] + 1e-6
    highest = _highest(centred, heads)
    weights.zero_()
    network.classify.bias.zero_()  # type: ignore[union-attr]
    for phenotype in range(1, network.n_classes):
        own = torch.nonzero((labels == 0) | (labels == phenotype)).flatten()
        area = partial_auc(highest[own], labels[own] > 0, _HIGHEST, _FEWEST)
        best = area.argsort(descending=True, stable=True)[:_KEPT]
        head = (heads[best] * (area[best] - 0.5)[:, None, None, None]).mean(0, keepdim=True)
        # Where whole fields differ, the highest places of some lie below the mean of all.
        head *= _RISE / (_highest(centred[own], head).abs().mean() + 1e-6)
        weights[phenotype] = head[0]
        _even_odds(network, features[own[labels[own].argsort(stable=True)]], phenotype, shown)


def _even(labels: Tensor, random: torch.Generator) -> Tensor:
    """Return the numbers of at most `_FIELDS` fields, as many of each class as there are, in random order."""
    order = torch.randperm(len(labels), generator=random)
    turn = torch.zeros(len(labels), dtype=torch.long)
    for label in labels.unique():
        own = labels[order] == label
        turn[own] = torch.arange(int(own.sum()))
    return order[turn.argsort(stable=True)[:_FIELDS]]


def _features(network: WSCNN, fields: Tensor) -> Iterator[Tensor]:
    """Yield the features of some fields at a time, fresh batch norm as the first of them have it."""
    norms = [module for module in network.blocks.modules() if isinstance(module, nn.BatchNorm2d)]
    batches = [part.float().contiguous(memory_format=torch.channels_last) for part in fields.split(_BATCH)]
    # Layers that come from another model keep the statistics that their weights were learned with.
    if not any(norm.num_batches_tracked for norm in norms):
        usual = [norm.momentum for norm in norms]
        network.blocks.train()
        for norm in norms:
            norm.momentum = None  # the plain mean over batches
        for batch in batches[:_CALIBRATION]:
            network.blocks(batch)
        for norm, momentum in zip(norms, usual, strict=True):
            norm.momentum = momentum
    network.blocks.eval()
    for batch in batches:
        yield network.blocks(batch)
    network.blocks.train()


def _highest(features: Tensor, heads: Tensor) -> Tensor:
    """Return the mean over each detector's highest places in each field, (fields, detectors)."""
    return torch.cat([topk(functional.conv2d(some, heads)) for some in features.split(_BATCH)])


def _even_odds(network: WSCNN, features: Tensor, phenotype: int, shown: int) -> None:
    """Set the phenotype's bias so that `shown` neighbours in `features` are positive with even odds, on average."""
    bias = network.classify.bias
    low, high = -50.0, 50.0
    maps = torch.cat([functional.conv2d(some, network.classify.weight) for some in features.split(_BATCH)])
    shown = min(shown, len(maps))
    whole = maps[: len(maps) // shown * shown].unflatten(0, (-1, shown)).movedim(1, 2).flatten(2, 3)
    for _ in range(40):
        middle = (low + high) / 2
        bias[phenotype] = middle  # type: ignore[index]
        shift = bias[:, None, None]  # type: ignore[index]
        scores = network.pooled((whole + shift).float())[:, phenotype - 1]
        low, high = (low, middle) if float(torch.sigmoid(scores).mean()) > 0.5 else (middle, high)
