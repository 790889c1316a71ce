"""Several processes, usually one per GPU, that train one network together."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn

from wscnn.core.errors import UserError
from wscnn.network.model import WSCNN
from wscnn.training.fit import DdpRank, Examples, fit


def fit_together(
    n: int,
    device: torch.device,
    network: WSCNN,
    train: Examples,
    select: Examples,
    recipe: Mapping[str, Any],
    seed: int,
    resume: Path | None,
    key: str,
) -> pd.DataFrame:
    """Do the same as `wscnn.training.fit.fit`, by `n` processes that share the images of each batch.

    Parameters
    ----------
    n
        Number of processes; each has its own GPU, or part of the threads of this process. With 1 nothing is started.
    device
        Kind of device.
    network, train, select, recipe, seed, resume, key
        As for `fit`. With several processes, network and examples have to be on the CPU.

    Raises
    ------
    UserError
        When there are fewer GPUs than processes, or the training diverges.
    """
    if device.type == "cuda" and n > torch.cuda.device_count():
        raise UserError(f"train.gpus: {n} are requested, but torch finds {torch.cuda.device_count()}; lower it")
    if n == 1:
        network.to(device)
        return fit(network, train.to(device), select.to(device), recipe, seed, resume, key)
    with tempfile.TemporaryDirectory() as folder:
        spawn(_work, (n, device.type, Path(folder), network, train, select, (recipe, seed, resume, key)), nprocs=n)
        found = torch.load(Path(folder) / "result", weights_only=True)
    if found["problems"]:
        raise UserError(found["problems"])
    network.load_state_dict(found["weights"])
    network.to(device).eval()
    return pd.DataFrame(found["rows"])


def _work(
    rank: int,
    n: int,
    kind: str,
    folder: Path,
    network: WSCNN,
    train: Examples,
    select: Examples,
    settings: tuple[Mapping[str, Any], int, Path | None, str],
) -> None:
    """Train as one of `n` processes by recipe, seed, resume and key; the first writes the result to the folder."""
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // n))
    backend = "nccl" if kind == "cuda" else "gloo"
    distributed.init_process_group(backend, init_method=f"file://{folder}/meeting", rank=rank, world_size=n)
    network.to(device)
    history, problems = pd.DataFrame(), []
    try:
        history = fit(network, train.to(device), select.to(device), *settings, DdpRank(rank, n))
    except UserError as error:  # the same in every process: all see the mean loss
        problems = error.problems
    if rank == 0:
        weights = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
        torch.save({"weights": weights, "rows": history.to_dict("records"), "problems": problems}, folder / "result")
    distributed.destroy_process_group()
