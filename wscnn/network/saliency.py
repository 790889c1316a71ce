"""Where in an image the network sees a phenotype: the gradient of its detector, and a check of it by covering.

The method of Sailem, Arias-Garcia, Bakal, Zisserman and Rittscher, "Discovery of Rare Phenotypes in Cellular Images
Using Weakly Supervised Deep Learning" (ICCV Workshops 2017), who back-propagate the phenotype's score to the input.
with one difference: the gradient of the globally pooled score reaches one position, and so one cell, of an image; here
the backward pass starts from the class map, at all positions where the phenotype exceeds the negative class, and finds
all instances at once.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wscnn.network.cells import ImageCells
from wscnn.network.model import WSCNN, cells_in, position_detector, score_fields, widened, widened_pixels

# Positions along each axis of the map that a window of the backward pass covers: about those that one cell raises.
_BLOCK = 8


def saliency(
    models: Sequence[WSCNN],
    images: Tensor,
    thresholds: Sequence[float],
    learned: Sequence[Sequence[bool]] | None = None,
    cells: ImageCells | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores, detector maps and saliency of images, by one forward and one backward pass per model.

    Several models form one detector: the mean of their maps. Its gradient starts from the sum over all positions above
    the threshold, so that all instances of an image are found together. Only windows around these positions are
    differentiated, which gives the same gradient: a position sees no pixel outside its window. With several phenotypes
    each has a backward pass of its own.

    Parameters
    ----------
    models
        In evaluation mode, with the same stride and classes.
    images
        Shape (n, C, h, w).
    thresholds
        One per phenotype: the detector's value above which a position belongs to an object.
    learned
        Which phenotypes each model has learned, (models, P); its map of any other is ignored. By default all.
    cells
        The cells of the images, as for `score_fields`. What a model adds for whole cells has no gradient: the saliency
        shows structures within them.

    Returns
    -------
    logits
        Log-odds of each phenotype, shape (models, n, P).
    maps
        Detector, mean over models, shape (n, P, h', w'); position (i, j) is centred on pixel ((i + 1/2) * stride - 1/2,
        (j + 1/2) * stride - 1/2).
    gradients
        Magnitude over channels of the detector's gradient, shape (n, P, h, w).
    """
    images = images.detach().requires_grad_(True)
    if cells is None:
        cells = cells_in(models, images)
    with torch.no_grad():
        views = [score_fields(model, images, cells) for model in models]
    logits = torch.stack([scores for scores, _ in views])
    maps = torch.stack([detector for _, detector in views])
    weights = maps.new_ones(len(models), len(thresholds)) if learned is None else maps.new_tensor(learned)
    weights = weights[:, None, :, None, None]
    # A phenotype that no model has learned has an empty map.
    maps = (maps * weights).sum(0) / weights.sum(0).clamp_min(1)
    fires = maps > maps.new_tensor(thresholds)[:, None, None]
    gradients = images.new_zeros((len(images), len(thresholds), *images.shape[-2:]))
    firing = [p for p in range(len(thresholds)) if bool(fires[:, p].any())]
    if not firing:
        return logits, maps, gradients
    totals = {p: torch.zeros_like(images) for p in firing}
    for model, share in zip(models, weights / weights.sum(0).clamp_min(1), strict=True):
        fields = widened(model, images)
        for p, total in zip(firing, _from_windows(model, fields, fires, share, firing), strict=True):
            totals[p] += torch.autograd.grad(fields, images, total, retain_graph=True)[0]
    for p, total in totals.items():
        gradients[:, p] = total.norm(dim=1)
    return logits, maps, gradients


def _from_windows(model: WSCNN, padded: Tensor, fires: Tensor, share: Tensor, firing: Sequence[int]) -> list[Tensor]:
    """Return the gradient of each firing phenotype with respect to widened fields (n, C, H, W).

    It is that of the sum over the positions that fire (n, P, h', w') of `share` times the detector.
    """
    windows, block = _windows(model, fires.any(1).cpu().numpy())
    height, width = (widened_pixels(model, length) for length in block)
    pixels = []
    for field, row, column in windows:
        top, left = row * model.stride, column * model.stride
        pixels.append((field, slice(None), slice(top, top + height), slice(left, left + width)))
    with torch.enable_grad():
        crops = torch.stack([padded.detach()[window] for window in pixels]).requires_grad_(True)
        detector = position_detector(model, crops) * share
    counted = torch.zeros_like(fires)
    starts = torch.zeros(detector.shape, dtype=torch.bool, device=detector.device)
    for k, (field, y, x) in enumerate(windows):
        # Where windows overlap, a position counts in the first of them.
        at = (field, slice(None), slice(y, y + block[0]), slice(x, x + block[1]))
        starts[k] = fires[at] & ~counted[at]
        counted[at] = True
    gradients = []
    for p in firing:
        own = detector[:, p][starts[:, p]].sum()
        (gradient,) = torch.autograd.grad(own, crops, retain_graph=p != firing[-1])
        total = torch.zeros_like(padded)
        for window, part in zip(pixels, gradient, strict=True):
            total[window] += part
        gradients.append(total)
    return gradients


def _windows(model: WSCNN, fires: np.ndarray) -> tuple[list[tuple[int, int, int]], tuple[int, int]]:
    """Return windows (field, row, column) that cover the positions that fire (n, h', w'), and their height and width.

    They are blocks of `_BLOCK` positions, or whole fields where the blocks would hold more pixels.
    """
    height, width = fires.shape[1:]
    block = min(_BLOCK, height), min(_BLOCK, width)
    fields = np.flatnonzero(fires.any((1, 2))).tolist()
    of_field, of_block = (
        widened_pixels(model, rows) * widened_pixels(model, columns) for rows, columns in ((height, width), block)
    )
    windows: list[tuple[int, int, int]] = []
    for field in fields:
        left = fires[field].copy()
        while left.any():
            y, x = divmod(int(left.argmax()), width)
            y, x = min(y, height - block[0]), min(max(x - block[1] // 2, 0), width - block[1])
            left[y : y + block[0], x : x + block[1]] = False
            windows.append((field, y, x))
            if len(windows) * of_block >= len(fields) * of_field:
                return [(field, 0, 0) for field in fields], (height, width)
    return windows, block


def occlusion(model: WSCNN, image: Tensor, size: int, step: int, fill: float | None = None) -> np.ndarray:
    """Return by how much the score falls when a square of the image is covered: a check of the gradient.

    Nothing is differentiated, so agreement with the gradient is independent evidence. The method is that of Zeiler and
    Fergus (ECCV 2014).

    Parameters
    ----------
    model
        In evaluation mode.
    image
        Shape (C, h, w).
    size
        Side of the square, in pixels.
    step
        Pixels between two squares.
    fill
        Value of the covered pixels; None takes each channel's median, which is background.

    Returns
    -------
    np.ndarray
        Shape (P, rows, columns): the fall in log-odds where the square from (i * step, j * step) is covered, those of
        the last row and column moved back to end at the image's edge; positive where the square holds what the score
        depends on.
    """
    height, width = image.shape[-2:]
    background = image.flatten(1).median(1).values[:, None, None] if fill is None else fill
    ys, xs = (squares(length, size, step) for length in (height, width))
    with torch.no_grad():
        whole = score_fields(model, image[None])[0][0]
        falls = image.new_empty((len(whole), len(ys), len(xs)))
        for i, y in enumerate(ys):
            covered = image.repeat(len(xs), 1, 1, 1)
            for j, x in enumerate(xs):
                covered[j, :, y : y + size, x : x + size] = background
            falls[:, i] = (whole - score_fields(model, covered)[0]).T
    return falls.cpu().numpy()


def squares(length: int, size: int, step: int) -> list[int]:
    """Return where along an axis of `length` pixels the squares of `occlusion` begin; together they cover all of it."""
    last = max(length - size, 0)
    return [*range(0, last, step), last]
