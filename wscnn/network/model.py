"""The network: fully convolutional, one map per class, pooled over positions to one score per class.

Follows Sailem, Arias-Garcia, Bakal, Zisserman and Rittscher, "Discovery of Rare Phenotypes in Cellular Images Using
Weakly Supervised Deep Learning" (ICCV Workshops 2017). A model file is safetensors, beside it a card in JSON; loading
runs no code.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from wscnn.core.errors import UserError
from wscnn.network.architectures import ARCHITECTURES, Layer
from wscnn.network.cells import ImageCells
from wscnn.plates.fields import BACKGROUND, BRIGHT
from wscnn.staging.cell_measures import find_cells, n_measures

#: A map of less than this sum of probabilities counts as empty (keeps logarithms finite).
_TINY = 1e-30
#: Number of positions that the pool `topk` averages.
_TOP = 8
#: Sharpness of the pool `lse`.
_SHARPNESS = 5.0
#: Positions along y and x that the pool `fc` has a weight for: those of the paper's 210 x 280 px under `wscnn4`.
_DENSE = (21, 30)
#: Initial bias of the detector of a noisy-or network, so that an empty image starts as negative.
_EMPTY = -6.0
#: Measures of cells that are farther than this many standard deviations from the mean count as that far.
_MOST_DEVIATION = 6.0
#: Initial log-odds of the leak: one in four. A single number that has to change much, it has this many times the
#: learning rate of the weights.
_LEAK, _LEAK_PACE = -1.1, 10.0


#: Minimum distance between background and bright pixels, in windows of the plate, so that an empty field stays empty.
_LEAST_RANGE = 0.1
#: Where the logarithmic part of the contrast begins, in such distances, and what it is divided by.
_KNEE, _TOP_CONTRAST = 0.15, 2.6


def contrast(images: Tensor) -> Tensor:
    """Return fields (n, C, h, w) normalised for a network that was pretrained without labels.

    In each field and channel the background is subtracted and the rest is divided by the distance of bright pixels from
    it; then dim structures are amplified, similarly to a logarithm: asinh(x / 0.15) / 2.6. So neither the exposure of a
    field nor a single bright cell decides what is visible.
    """
    some = images.detach()[..., ::3, ::3].flatten(-2).float()
    low, high = (
        some.kthvalue(1 + int(share * (some.shape[-1] - 1)), dim=-1).values[..., None, None]
        for share in (BACKGROUND, BRIGHT)
    )
    return torch.asinh((images - low) / (_KNEE * (high - low).clamp_min(_LEAST_RANGE))) / _TOP_CONTRAST


def _noisy_or(maps: Tensor, leak: Tensor | None = None) -> Tensor:
    """Return the log-odds of P = 1 - prod(1 - sigmoid(map)): any position is positive. In log space, never infinite.

    A `leak` (C,), in log-odds, acts as one more position, outside the image.
    """
    total = functional.softplus(maps).sum((-2, -1))  # -log(1 - P)
    if leak is not None:
        total = total + functional.softplus(leak)
    total = total.clamp_min(_TINY)
    return torch.log(-torch.expm1(-total)) + total


def _count(maps: Tensor) -> Tensor:
    """Return the logarithm of the expected number of positive positions."""
    return torch.log(torch.sigmoid(maps).sum((-2, -1)).clamp_min(_TINY))


def _share(maps: Tensor, cells: ImageCells, usual: Tensor) -> Tensor:
    """Return the log-odds (N, C) of the expected fraction of positive cells in maps (N, C, h, w).

    A cell is as positive as its highest position. So that a field of one or two cells does not decide, a further cell
    counts, which is positive with the `usual` probability (C,).
    """
    of = cells.regions.flatten(1).long()[:, :, None].expand(-1, -1, maps.shape[1])
    highest = maps.new_full((len(maps), cells.measures.shape[1], maps.shape[1]), -torch.inf)
    highest = highest.scatter_reduce(1, of, maps.flatten(2).transpose(1, 2), "amax")[:, 1:]
    share = (torch.sigmoid(highest).sum(1) + usual) / ((highest > -torch.inf).sum(1) + 1)
    return share.clamp_min(_TINY).log() - torch.log1p(-share)


def topk(maps: Tensor) -> Tensor:
    """Return the mean over the 8 highest positions of maps (N, C, h, w), (N, C)."""
    flat = maps.flatten(-2)
    return flat.topk(min(_TOP, flat.shape[-1])).values.mean(-1)


def _lse(maps: Tensor) -> Tensor:
    flat = maps.flatten(-2)
    return (torch.logsumexp(_SHARPNESS * flat, -1) - torch.tensor(float(flat.shape[-1])).log()) / _SHARPNESS


#: Pools without weights: maps (N, C, h, w) to scores (N, C).
_POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "max": lambda maps: maps.amax((-2, -1)),
    "avg": lambda maps: maps.mean((-2, -1)),
    "noisy_or": _noisy_or,
    "lse": _lse,
    "topk": topk,
}
#: Pools to train with, and to score with.
POOLS = (*_POOLS, "leaky_noisy_or", "fc", "attention")
#: Pools of probabilities, with which phenotypes do not exclude each other.
NOISY_OR = ("noisy_or", "leaky_noisy_or")
SCORE_POOLS = ("same", *_POOLS, "count", "share")


def _check_names(architecture: str, pool: str, score_pool: str) -> None:
    """Raise a UserError that names an unknown architecture or pool."""
    for what, name, known in (
        ("architecture", architecture, ARCHITECTURES),
        ("pool", pool, POOLS),
        ("score_pool", score_pool, SCORE_POOLS),
    ):
        if name not in known:
            raise UserError(f"model.{what}: '{name}' is unknown; choose one of {', '.join(known)}")


def _block(n_channels: int, layer: Layer) -> nn.Sequential:
    """Return a layer of convolution, batch norm, pooling where it halves by pooling, and rectification."""
    stride = 2 if layer.halve == "stride" else 1
    return nn.Sequential(
        nn.Conv2d(n_channels, layer.filters, layer.kernel, stride, layer.padding, bias=False),
        nn.BatchNorm2d(layer.filters),
        *([nn.MaxPool2d(2)] if layer.halve == "pool" else []),
        nn.ReLU(),
    )


class WSCNN(nn.Module):
    """A weakly supervised network, which locates what distinguishes positive images from negative ones.

    Parameters
    ----------
    architecture
        A key of `ARCHITECTURES`.
    pool
        How class maps become a score in training, one of `POOLS`: ``max``, ``avg`` and ``fc`` as in the paper,
        ``noisy_or``, ``lse`` (log-sum-exp), ``topk``, ``attention`` (gated attention of Ilse et al., ICML 2018, over
        positions). ``leaky_noisy_or`` also learns a leak for each phenotype (Henrion, Uncertainty in Artificial
        Intelligence 1987): the chance that an image is of a positive well though no position shows it. Without a leak,
        the loss pushes the network to find a cell in positive images that contain none, so it overfits; with few
        images, the leak alone can explain the labels and nothing is learned.
    n_channels, n_classes
        Of the images; class 0 is the negative one.
    score_pool
        How the detector becomes a score in evaluation, one of `SCORE_POOLS`; ``same`` is the pool of training, and
        ``share`` the expected fraction of positive cells, or ``topk`` for a network that does not judge cells.

    Attributes
    ----------
    stride
        Pixels between two positions of a map.
    receptive_field
        Pixels along an axis that one position sees.
    smallest
        Pixels along an axis that an image to train on needs.
    margin
        Pixels by which `score_fields` pads a field at each side, at least.
    encoded
        As in `Architecture`.
    nuclear
        Index of the channel in which the network's cells are outlined; None: in any.
    cell_weight, cell_middle, cell_spread
        Of an encoded network, how it judges whole cells: the weights of their measures (P, M), which are standardised
        by middle and spread (M,); a spread of 0 means that it does not.
    cell_share
        Of such a network, the usual probability that a cell of a negative well is positive, (P,).
    """

    cell_middle: Tensor
    cell_spread: Tensor
    cell_share: Tensor

    def __init__(self, architecture: str, pool: str, n_channels: int, n_classes: int, score_pool: str = "same") -> None:
        super().__init__()
        _check_names(architecture, pool, score_pool)
        self.architecture, self.pool, self.score_pool = architecture, pool, score_pool
        self.n_channels, self.n_classes = n_channels, n_classes
        layers, kernel, padding, self.encoded = ARCHITECTURES[architecture]
        self.nuclear: int | None = None
        self._steps = [*layers, Layer(n_classes, kernel, padding, halve="")]
        widths = [n_channels, *(layer.filters for layer in layers)]
        self.blocks = nn.Sequential(*map(_block, widths, layers))
        self.classify = nn.Conv2d(widths[-1], n_classes, kernel, padding=padding)
        if self.encoded:
            m = n_measures(n_channels)
            self.cell_weight = nn.Parameter(torch.zeros(n_classes - 1, m))
            self.register_buffer("cell_middle", torch.zeros(m))
            self.register_buffer("cell_spread", torch.zeros(m))
            self.register_buffer("cell_share", torch.zeros(n_classes - 1))
        if pool == "leaky_noisy_or":
            self.leak = nn.Parameter(torch.full((n_classes - 1,), _LEAK / _LEAK_PACE))
        if pool in NOISY_OR:
            with torch.no_grad():
                self.classify.bias.copy_(torch.tensor([0.0] + [_EMPTY] * (n_classes - 1)))  # type: ignore[union-attr]
        if pool == "attention":
            self.attend = nn.Conv2d(widths[-1], 2 * 64, kernel, padding=padding)
            self.weigh = nn.Conv2d(64, 1, 1)
        if pool == "fc":
            # Initialised as the mean over positions: with random signs, neighbouring positions would push the detector
            # in opposite directions.
            self.dense = nn.Parameter(torch.eye(n_classes)[:, :, None, None].repeat(1, 1, *_DENSE))

        self.stride = 2 ** sum(layer.halve != "" for layer in layers)
        self.receptive_field = self._pixels(1, padded=False)
        self.smallest = self._pixels(1, padded=True)
        # The field is padded so that positions that see a convolution's zero padding can be cropped, and so that
        # position 0 is centred on the middle of the field's first `stride` pixels.
        self._cut = self._tainted()
        self.margin = (self._pixels(1 + 2 * self._cut, padded=True) - self.stride) // 2

    @property
    def judges_cells(self) -> bool:
        """Whether the detector judges whole cells by their measures, in addition to positions."""
        return self.encoded and bool(self.cell_spread.any())

    def cell_map(self, cells: ImageCells) -> Tensor:
        """Return at each position what the measures of its cell add to the detector, (N, K-1, h', w')."""
        # (N, cells, K-1)
        added = standardised(cells.measures, self.cell_middle, self.cell_spread) @ self.cell_weight.T
        # A position of no cell is judged like that of an average cell.
        added = torch.cat([torch.zeros_like(added[:, :1]), added[:, 1:]], 1)
        height, width = cells.regions.shape[1:]
        of = cells.regions.flatten(1).long()[:, :, None].expand(-1, -1, added.shape[2])
        return added.gather(1, of).transpose(1, 2).unflatten(2, (height, width))

    def class_map(self, x: Tensor) -> Tensor:
        """Return the class maps (N, K, h', w') of images (N, C, h, w)."""
        return self._maps(x)[0]

    def detector(self, x: Tensor) -> Tensor:
        """Return the log-odds of each phenotype against negative at each position, (N, K-1, h', w')."""
        maps = self.class_map(x)
        return maps[:, 1:] - maps[:, :1]

    def forward(self, x: Tensor) -> Tensor:
        """Return the log-odds of each phenotype in images (N, C, h, w), (N, K-1)."""
        return self.pooled(*self._maps(x))

    def pooled(self, maps: Tensor, attention: Tensor | None = None, cells: ImageCells | None = None) -> Tensor:
        """Return log-odds (N, K-1) of class maps (N, K, h', w').

        With attention logits (N, 1, h', w') and cells, where the network needs them.
        """
        detector = maps[:, 1:] - maps[:, :1]
        if not self.training and self.score_pool == "share":
            return topk(detector) if cells is None else _share(detector, cells, self.cell_share)
        if not self.training and self.score_pool == "count":
            return _count(detector)
        if not self.training and self.score_pool != "same":
            return _POOLS[self.score_pool](detector)
        if self.pool in NOISY_OR:
            # The leak models the wells, so it enters the training loss only, not the scores.
            leaks = self.training and self.pool == "leaky_noisy_or"
            return _noisy_or(detector, _LEAK_PACE * self.leak if leaks else None)
        if attention is not None:
            weights = attention.flatten(2).softmax(-1)  # (N, 1, positions)
            scores = (maps.flatten(2) * weights).sum(-1)
        elif self.pool == "fc":
            pooled = functional.adaptive_avg_pool2d(maps, _DENSE)
            scores = (pooled[:, None] * self.dense).mean((-2, -1)).sum(-1)
        else:
            scores = _POOLS[self.pool](maps)
        return scores[:, 1:] - scores[:, :1]

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of log-odds (N, K-1) under class labels (N,).

        Softmax cross-entropy over the pooled class scores as in the paper; with noisy-or, where phenotypes do not
        exclude each other, the mean over phenotypes of the binary cross-entropy.
        """
        if self.pool in NOISY_OR:
            targets = functional.one_hot(labels, self.n_classes)[:, 1:].to(logits.dtype)
            return functional.binary_cross_entropy_with_logits(logits, targets)
        return functional.cross_entropy(functional.pad(logits, (1, 0)), labels)

    def _maps(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return class maps (N, K, h', w') and, for attention, the positions' logits (N, 1, h', w')."""
        features = self.blocks(x)
        maps = self.classify(features).float()
        if self.pool != "attention":
            return maps, None
        content, gate = self.attend(features).chunk(2, dim=1)
        return maps, self.weigh(torch.tanh(content) * torch.sigmoid(gate)).float()

    def _pixels(self, n: int, padded: bool) -> int:
        """Return the input pixels along an axis that give a map of `n` positions, with or without zero padding."""
        for layer in reversed(self._steps):
            # A strided convolution needs one pixel less than a convolution followed by a pool over pairs.
            n = n * (2 if layer.halve else 1) - (layer.halve == "stride")
            n += layer.kernel - 1 - (2 * layer.padding if padded else 0)
        return n

    def _tainted(self) -> int:
        """Return how many positions at a map's edge see zero padding."""
        n = 0
        for layer in self._steps:
            n += layer.padding
            if layer.halve:
                n = -(-n // 2)
        return n


def standardised(measures: Tensor, middle: Tensor, spread: Tensor) -> Tensor:
    """Return measures (..., M) minus their mean in standard deviations, without outliers."""
    return ((measures - middle) / spread).clamp(-_MOST_DEVIATION, _MOST_DEVIATION)


def score_fields(model: WSCNN, images: Tensor, cells: ImageCells | None = None) -> tuple[Tensor, Tensor]:
    """Return log-odds (n, P) and detector maps (n, P, h', w') of fields (n, C, h, w).

    Where the network judges whole cells, too, these are the `cells` of the fields on the network's device; without them
    they are looked for in the images. What their measures add to the detector has no gradient.

    Each field is padded by repeating its outermost pixels, so that its map covers all of it: h' = ceil(h / stride), and
    position (i, j) is centred on pixel (i * stride + offset, j * stride + offset) with offset = (stride - 1) / 2. (Not
    by reflection: a nucleus beside its mirror image looks like a cell of two.) Gradients flow where they are enabled,
    to a field's own pixels, not through the padding. P is the number of phenotypes.

    Raises
    ------
    UserError
        When a field is smaller than the margin.
    """
    maps, attention = _inner_maps(model, widened(model, images))
    if not model.judges_cells:
        return model.pooled(maps, attention), maps[:, 1:] - maps[:, :1]
    if cells is None:
        cells = _look_for_cells(model, images)
    maps = torch.cat([maps[:, :1], maps[:, 1:] + model.cell_map(cells)], 1)
    return model.pooled(maps, cells=cells), maps[:, 1:] - maps[:, :1]


def cells_in(models: Sequence[WSCNN], images: Tensor) -> ImageCells | None:
    """Return the cells of fields (n, C, h, w), for folds of one training; None where none of them judges cells."""
    judging = next((model for model in models if model.judges_cells), None)
    return None if judging is None else _look_for_cells(judging, images)


def _look_for_cells(model: WSCNN, images: Tensor) -> ImageCells:
    """Return the cells of fields (n, C, h, w), found in the images."""
    found = [find_cells(image, model.stride, model.nuclear) for image in images.detach().float().cpu().numpy()]
    return ImageCells.of(found, images.device)


def position_detector(model: WSCNN, padded: Tensor) -> Tensor:
    """Return the detector maps (n, P, h', w') of fields that `widened` has prepared, or of windows of them.

    They are without what the measures of cells add. A window that begins at a multiple of the stride and spans
    `widened_pixels` of n positions gives n positions of the field's map, the first of which is number start / stride.
    """
    maps, _ = _inner_maps(model, padded)
    return maps[:, 1:] - maps[:, :1]


def _inner_maps(model: WSCNN, padded: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return class maps and attention logits of widened fields, without positions that see zero padding."""
    maps, attention = model._maps(padded)
    inner = slice(model._cut, -model._cut or None)
    return maps[..., inner, inner], None if attention is None else attention[..., inner, inner]


def field_features(model: WSCNN, images: Tensor) -> Tensor:
    """Return the features (n, F, h', w') that the class maps of fields (n, C, h, w) are made of; see `score_fields`.

    Raises
    ------
    UserError
        When a field is smaller than the margin.
    """
    inner = slice(model._cut, -model._cut or None)
    return model.blocks(widened(model, images))[..., inner, inner]


def widened_pixels(model: WSCNN, positions: int) -> int:
    """Return how many pixels of a widened field along an axis give `positions` of its map."""
    return model._pixels(positions + 2 * model._cut, padded=True)


def widened(model: WSCNN, images: Tensor) -> Tensor:
    """Return fields (n, C, h, w) prepared for the network's layers, with a margin at each side.

    Raises
    ------
    UserError
        When a field is smaller than the margin.
    """
    height, width = images.shape[-2:]
    if min(height, width) <= model.margin + model.stride:
        raise UserError(
            f"fields of {height} x {width} px are too small for the network '{model.architecture}', which sees "
            f"{model.receptive_field} px; lower mosaic.downsample"
        )
    margin = model.margin
    sides = []
    for size in (width, height):
        sides += [margin, widened_pixels(model, -(-size // model.stride)) - size - margin]
    if model.encoded:
        images = contrast(images)
    padded = functional.pad(images.detach(), sides, mode="replicate")
    padded[..., margin : margin + height, margin : margin + width] = images
    return padded
