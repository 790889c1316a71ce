"""The device that networks run on, and its fast number format."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from wscnn.core.errors import UserError


def pick_device(name: str) -> torch.device:
    """Return the device called `name`; ``auto`` is the GPU where there is one.

    Raises
    ------
    UserError
        When a GPU is requested and there is none.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise UserError("train.device: 'cuda' is set but torch finds no GPU; use auto or cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def fast_bfloat16(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16 faster than in float32."""
    return device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute each operation on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
