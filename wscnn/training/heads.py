"""Detector initialisation: of many random detectors, the mean of those that separate the classes best.

With pools driven by a few peaks the gradient at a position is proportional to its current score. If the initial
detector happens to score low on the rare cells, training stays at chance, as long as other differences between images
outweigh their small contribution. Random filters of several layers respond to rare cells nevertheless, and trying
hundreds of detectors on their features costs less than ten training steps.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from wscnn.network.model import NOISY_OR, WSCNN, topk
from wscnn.statistics.roc import partial_auc

#: Pools that a few high positions decide, so that the initial detector matters.
PEAKED = (*NOISY_OR, "max", "lse", "topk")

# Most fields on which detectors are tried, and fields per pass.
_FIELDS, _BATCH = 256, 16
# Batches for the initial statistics of batch norm.
_CALIBRATION = 4
# Number of best detectors to average: what each fits by chance cancels out.
_KEPT = 64
# Detectors are ranked by their partial AUC up to this false positive rate, and at least this many negative fields. If a
# phenotype is so rare that most positive fields do not hold it, the few that do separate from all negative fields long
# before the whole ROC curve leaves the diagonal.
_HIGHEST, _FEWEST = 0.1, 4
# Initial distance, in log-odds, of a field's highest positions from the mean of all positions.
_RISE = 4.0


@torch.no_grad()
def start_head(network: WSCNN, fields: Tensor, labels: Tensor, n: int, seed: int, shown: int = 1) -> None:
    """Initialise the last layer of `network` with informative weights, and fresh batch norm with statistics.

    Per phenotype, the 64 of `n` random detectors with the highest partial AUC (false positive rate up to 0.1) are
    averaged; a field's score is the mean of its eight highest positions. The bias gives training images even odds on
    average.

    Parameters
    ----------
    network
        With a pool of `PEAKED`; fresh, or with the layers before the last one of another model, which stay as they are.
    fields, labels
        Shape (m, C, h, w) and (m,): the training fields. At most 256, drawn evenly over classes, are used.
    n
        Number of detectors to try.
    seed
        Seed of the random draws.
    shown
        Number of fields whose area a training image covers: the larger it is, the higher the pooled score.
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
    # Half of them have constant weights over the kernel: fewer parameters to fit by chance.
    heads[: n // 2] = heads[: n // 2, :, :1, :1]
    heads = heads.to(weights.device)
    heads /= functional.conv2d(centred[:_BATCH], heads).std((0, 2, 3))[:, None, None, None] + 1e-6
    highest = _highest(centred, heads)
    weights.zero_()
    network.classify.bias.zero_()  # type: ignore[union-attr]
    for phenotype in range(1, network.n_classes):
        own = torch.nonzero((labels == 0) | (labels == phenotype)).flatten()
        ranking = partial_auc(highest[own], labels[own] > 0, _HIGHEST, _FEWEST)
        best = ranking.argsort(descending=True, stable=True)[:_KEPT]
        head = (heads[best] * (ranking[best] - 0.5)[:, None, None, None]).mean(0, keepdim=True)
        # Where whole fields differ, the highest positions of some are below the mean of all.
        head *= _RISE / (_highest(centred[own], head).abs().mean() + 1e-6)
        weights[phenotype] = head[0]
        _even_odds(network, features[own[labels[own].argsort(stable=True)]], phenotype, shown)


def _even(labels: Tensor, random: torch.Generator) -> Tensor:
    """Return the indices of at most `_FIELDS` fields, balanced over classes, in random order."""
    order = torch.randperm(len(labels), generator=random)
    turn = torch.zeros(len(labels), dtype=torch.long)
    for label in labels.unique():
        own = labels[order] == label
        turn[own] = torch.arange(int(own.sum()))
    return order[turn.argsort(stable=True)[:_FIELDS]]


def _features(network: WSCNN, fields: Tensor) -> Iterator[Tensor]:
    """Yield the features of batches of fields, with statistics of fresh batch norm from the first batches."""
    norms = [module for module in network.blocks.modules() if isinstance(module, nn.BatchNorm2d)]
    batches = [part.float().contiguous(memory_format=torch.channels_last) for part in fields.split(_BATCH)]
    # Layers from another model keep the statistics with which their weights were trained.
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
    """Return the mean over each detector's highest positions in each field, (fields, detectors)."""
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
