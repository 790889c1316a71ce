"""A training step captured once as a CUDA graph and replayed, to avoid kernel-launch overhead for small networks."""

from collections.abc import Callable

import torch
from torch import Tensor


class CudaGraphStep:
    """Training step that is captured as a CUDA graph on first use and replayed afterwards.

    Parameters
    ----------
    step
        Takes a step on a batch of images and labels, and returns the loss. It must not synchronise with the GPU.
    """

    # Warm-up steps before capture, in which libraries initialise.
    _FIRST = 3

    def __init__(self, step: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._step = step
        self._taken = 0
        self._side = torch.cuda.Stream()
        self._graph = torch.cuda.CUDAGraph()

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Take a step on a batch, always of one shape; return the loss."""
        self._taken += 1
        if self._taken <= self._FIRST:
            # On a side stream, as capture requires.
            self._side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._side):
                loss = self._step(images, labels)
            torch.cuda.current_stream().wait_stream(self._side)
            return loss
        if self._taken == self._FIRST + 1:
            self._images, self._labels = images.clone(), labels.clone()
            with torch.cuda.graph(self._graph):
                self._loss = self._step(self._images, self._labels)
        self._images.copy_(images)
        self._labels.copy_(labels)
        self._graph.replay()
        return self._loss.clone()
