"""State of an unfinished training: saved at intervals, loaded by the next run."""

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wscnn.core.atomic import atomic_path
from wscnn.network.model import WSCNN
from wscnn.training.bags import Bags


def save_checkpoint(
    path: Path,
    key: str,
    network: WSCNN,
    optimizer: torch.optim.Optimizer,
    bags: Bags,
    rows: list[dict[str, Any]],
    best: dict[str, Tensor],
) -> None:
    """Write everything that is needed to resume a training."""
    state = {
        "key": key,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "bags": bags.state(),
        "rows": rows,
        "best": best,
    }
    # Through memory: torch's own writer does not report a full disk.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with atomic_path(path) as partial:
        partial.write_bytes(buffer.getbuffer())


def load_checkpoint(
    path: Path | None, key: str, network: WSCNN, optimizer: torch.optim.Optimizer, bags: Bags
) -> tuple[list[dict[str, Any]], dict[str, Tensor], float]:
    """Restore the state at `path`; return history, best weights and seconds.

    Without a file with this key, they are those of a new training.
    """
    start: tuple[list[dict[str, Any]], dict[str, Tensor], float] = ([], network.state_dict(), 0.0)
    if path is None or not path.is_file():
        return start
    try:
        # Tensors, numbers and text only: loading runs no code.
        state = torch.load(path, map_location=next(network.parameters()).device, weights_only=True)
    except Exception:  # for a truncated or unrelated file, torch raises many kinds of exceptions
        return start
    if not isinstance(state, dict) or state.get("key") != key:
        return start
    network.load_state_dict(state["network"])
    # Implementation options of the optimizer depend on the device, which may have changed.
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state["optimizer"]["state"]})
    bags.restore(state["bags"].cpu())
    rows = state["rows"]
    return rows, state["best"], rows[-1]["seconds"]
