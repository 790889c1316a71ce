"""The pretext tasks of the encoder: to find pasted structures, and to describe a position alike in two views.

The first task is CutPaste (Li et al., CVPR 2021) made dense: small soft ellipses are cut from bright regions of other
tiles and pasted on or beside cells, and the network locates them. So it learns which structures of a few pixels belong
to ordinary cells, whatever the screen's phenotypes are. The second is VICReg (Bardes et al., ICLR 2022) over single
positions: the features of a position are the same in a turned and mirrored view, vary over positions and are not
redundant. Neither uses the roles of wells.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wscnn.encoder.tiles import BATCH, TILE
from wscnn.network.model import WSCNN

#: Contrast above which a pixel is of a cell; cut from and pasted near such pixels.
_SIGNAL = 0.35
#: Minimum number of signal pixels of a tile that is cut from or pasted into.
_LEAST_SIGNAL = 20
#: Most ellipses per tile; their longer radius in pixels (log-uniform) and the ratio of their axes.
_MOST, _RADIUS, _RATIO = 5, (1.4, 8.0), 0.6
#: Pixels over which an ellipse's edge fades.
_SOFT = 0.45
#: Largest distance of an ellipse from signal, in pixels; its gain; how often it replaces the image (else the brighter
#: of the two is shown); how often only one of several channels is pasted.
_OFF, _GAIN, _REPLACES, _ALONE = 22.0, (0.45, 1.15), 0.6, 0.3
#: A paste that changes less than this on average is invisible and left out.
_LEAST_CHANGE = 0.1
#: Pixels at a tile's border without a paste.
_BORDER = 14
#: Fraction of pasted pixels above which a position is positive; weight of positive against negative positions.
_PASTED, _POSITIVE_WEIGHT = 0.3, 6.0
#: Weights of the two tasks, and of VICReg's terms: invariance and variance against covariance.
_CUTPASTE, _VICREG, _LIKENESS = 5.0, 1 / 25, 25.0
#: Positions compared per step, and the dimension of their projections.
_POSITIONS, _PROJECTED = 768, 128
_RATE, _DECAY = 3e-3, 1e-4


@dataclass(frozen=True)
class Pasted:
    """Tiles after pasting, and how much of each pixel was pasted, arrays (n, C, y, x) and (n, y, x)."""

    tiles: np.ndarray
    share: np.ndarray


def paste(tiles: np.ndarray, random: np.random.Generator) -> Pasted:
    """Return a copy of tiles (n, C, y, x) with up to five soft ellipses of other tiles in each."""
    changed, share = tiles.copy(), np.zeros((len(tiles), *tiles.shape[2:]), np.float32)
    inside = np.s_[_BORDER : tiles.shape[2] - _BORDER, _BORDER : tiles.shape[3] - _BORDER]
    signal = [np.argwhere(tile[inside] > _SIGNAL) + _BORDER for tile in tiles.max(1)]
    highest = np.array(tiles.shape[2:]) - _BORDER - 1
    for n in range(len(tiles)):
        source = int(random.integers(len(tiles)))
        if min(len(signal[source]), len(signal[n])) < _LEAST_SIGNAL:
            continue
        for _ in range(random.integers(1, _MOST + 1)):
            shape = _ellipse(random)
            half = shape.shape[0] // 2
            cut = signal[source][random.integers(len(signal[source]))]
            angle, off = random.uniform(0, 2 * np.pi), random.uniform(0, _OFF)
            beside = signal[n][random.integers(len(signal[n]))] + off * np.array([np.sin(angle), np.cos(angle)])
            at = np.clip(beside.astype(int), _BORDER, highest)
            piece = tiles[source][:, cut[0] - half : cut[0] + half + 1, cut[1] - half : cut[1] + half + 1]
            piece = piece[..., ::-1] if random.random() < 0.5 else piece.transpose(0, 2, 1)
            piece = piece * np.float32(random.uniform(*_GAIN))
            window = np.s_[at[0] - half : at[0] + half + 1, at[1] - half : at[1] + half + 1]
            before = changed[n][:, window[0], window[1]]
            after = _blend(before, piece, shape, random)
            if (np.abs(after - before).max(0) * shape).sum() < _LEAST_CHANGE * shape.sum():
                continue
            changed[n][:, window[0], window[1]] = after
            share[n][window] = np.maximum(share[n][window], shape)
    return Pasted(changed, share)


def _ellipse(random: np.random.Generator) -> np.ndarray:
    """Return a soft ellipse of random size and direction, 1 inside and 0 outside, on an odd square."""
    radius = _RADIUS[0] * (_RADIUS[1] / _RADIUS[0]) ** random.random()
    ratio, angle = random.uniform(_RATIO, 1), random.uniform(0, np.pi)
    half = int(np.ceil(radius)) + 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    distance = np.hypot(y * np.cos(angle) + x * np.sin(angle), (x * np.cos(angle) - y * np.sin(angle)) / ratio)
    return (1 / (1 + np.exp((distance - radius) / _SOFT))).astype(np.float32)


def _blend(before: np.ndarray, piece: np.ndarray, shape: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return the image after `piece` is pasted over `before`, both (C, y, x), in the form of `shape`."""
    replaces = random.random() < _REPLACES
    after = before * (1 - shape) + piece * shape if replaces else np.maximum(before, piece * shape)
    if len(before) > 1 and random.random() < _ALONE:
        alone = np.arange(len(before)) == random.integers(len(before))
        after = np.where(alone[:, None, None], after, before)
    return after


def learn(network: WSCNN, crops: Tensor, steps: int, seed: int) -> Iterator[float]:
    """Train the layers of `network` on both tasks; its last layer becomes the detector of what was pasted.

    Parameters
    ----------
    network
        An encoded network with two classes, on the device to train on.
    crops
        Parts of fields after `wscnn.network.model.contrast`, shape (n, C, y, x), at least `LEAST_TILE` high and wide.
    steps
        Steps, of `BATCH` tiles each.
    seed
        Seed of all random draws.

    Yields
    ------
    float
        The loss of each step.
    """
    device = next(network.parameters()).device
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    noise = torch.Generator().manual_seed(seed)
    network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    n_features = network.classify.in_channels
    projector = nn.Sequential(
        nn.Linear(n_features, _PROJECTED), nn.BatchNorm1d(_PROJECTED), nn.ReLU(), nn.Linear(_PROJECTED, _PROJECTED)
    ).to(device)
    with torch.no_grad():
        # Half of the usual bias below even odds: few positions are pasted.
        network.classify.bias.copy_(torch.tensor([0.0, -3.0]))  # type: ignore[union-attr]
    weights = [*network.parameters(), *projector.parameters()]
    optimizer = torch.optim.AdamW(weights, _RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, max(steps, 2))
    for _ in range(steps):
        tiles = _draw(crops, random)
        features, shares, loss = [], [], torch.zeros((), device=device)
        for view in range(2):
            pasted = paste(tiles, random)
            turns, mirrored = (int(random.integers(4)), bool(random.integers(2))) if view else (0, False)
            image = _seen(torch.from_numpy(pasted.tiles), turns, mirrored, noise).to(device)
            share = torch.from_numpy(pasted.share)[:, None].to(device)
            seen = network.blocks(image.contiguous(memory_format=torch.channels_last))
            seen = torch.rot90(seen.flip(3) if mirrored else seen, -turns, (2, 3))
            loss = loss + _CUTPASTE * _cutpaste_loss(network, seen, share)
            features.append(seen)
            shares.append(share)
        signal = torch.from_numpy(tiles.max(1, keepdims=True)).to(device)
        chosen = _compared(network, signal, torch.maximum(*shares), seen.shape[-1], noise)
        views = [projector(view.permute(0, 2, 3, 1).flatten(0, 2)[chosen]) for view in features]
        loss = loss + _VICREG * _vicreg_loss(views[0], views[1])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        yield float(loss.detach())
    network.eval()


def _draw(crops: Tensor, random: np.random.Generator) -> np.ndarray:
    """Return a step's tiles, (BATCH, C, side, side)."""
    side = min(TILE, *crops.shape[-2:])
    chosen = random.integers(len(crops), size=BATCH)
    corners = random.integers(0, np.array(crops.shape[-2:]) - side + 1, size=(BATCH, 2))
    cut = [crops[int(n), :, y : y + side, x : x + side] for n, (y, x) in zip(chosen, corners.tolist(), strict=True)]
    return torch.stack(cut).float().cpu().numpy()


def _seen(tiles: Tensor, turns: int, mirrored: bool, noise: torch.Generator) -> Tensor:
    """Return a view of tiles: another gain, noise, rotated by right angles and mirrored."""
    gain, level = torch.rand((2, len(tiles), 1, 1, 1), generator=noise)
    view = tiles * (0.8 + 0.4 * gain) + 0.04 * level * torch.randn(tiles.shape, generator=noise)
    view = torch.rot90(view, turns, (2, 3))
    return view.flip(3) if mirrored else view


def _of_positions(network: WSCNN, pixels: Tensor, n: int) -> Tensor:
    """Return the pixels (m, 1, n * stride, n * stride) at the centres of the receptive fields of n x n positions."""
    first = (network.receptive_field - network.stride) // 2
    return pixels[..., first : first + n * network.stride, first : first + n * network.stride]


def _cutpaste_loss(network: WSCNN, features: Tensor, share: Tensor) -> Tensor:
    """Return the loss of locating the pastes from features (n, F, h, w); positions beside a paste do not count."""
    share = _of_positions(network, share, features.shape[-1])
    positive = functional.avg_pool2d(share, network.stride) > _PASTED
    near = functional.max_pool2d(functional.max_pool2d(share, network.stride), 3, 1, 1) > _PASTED
    maps = network.classify(features)
    weight = torch.where(positive, _POSITIVE_WEIGHT, (~near).float())
    losses = functional.binary_cross_entropy_with_logits(maps[:, 1:] - maps[:, :1], positive.float(), reduction="none")
    return (losses * weight).sum() / weight.sum()


def _compared(network: WSCNN, signal: Tensor, share: Tensor, n: int, noise: torch.Generator) -> Tensor:
    """Return positions to compare, mostly where there is signal and never where a paste of either view is visible."""
    stride, reach = network.stride, network.receptive_field // 2 - 1
    bright = functional.avg_pool2d(_of_positions(network, signal, n), stride) > 0.2
    touched = functional.max_pool2d(share, 2 * (reach // 2) + 1, 1, reach // 2) > _PASTED
    touched = functional.max_pool2d(_of_positions(network, touched.float(), n), stride) > 0
    chances = (bright.float() + 0.05) * (~touched)
    weights = chances.flatten().cpu()
    if not bool(weights.sum() > 0):
        weights = torch.ones_like(weights)
    return torch.multinomial(weights, _POSITIONS, replacement=True, generator=noise).to(signal.device)


def _vicreg_loss(one: Tensor, other: Tensor) -> Tensor:
    """Return VICReg's loss of the same positions in two views, (n, d) each."""
    loss = _LIKENESS * functional.mse_loss(one, other)
    for view in (one, other):
        centred = view - view.mean(0)
        spread = (centred.var(0) + 1e-4).sqrt()
        covariance = centred.T @ centred / (len(view) - 1)
        off_diagonal = covariance - torch.diag(torch.diag(covariance))
        loss = loss + _LIKENESS * functional.relu(1 - spread).mean() + off_diagonal.square().sum() / view.shape[1]
    return loss
