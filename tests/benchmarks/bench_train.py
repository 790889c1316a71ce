"""Rate of the training loop beside the bare network's forward and backward pass over the same images, in one run.

    python tests/benchmarks/bench_train.py --fields 40 --size 270

Fields are noise. The loop draws mosaics, augments them, steps the optimizer and evaluates as often as in a real
training; the bare network takes one batch that is there, again and again, with the same precision. On a GPU it is
timed twice: with each operation asked for by the host, as usual, and recorded once and repeated.
"""

import argparse
import time

import numpy as np
import torch

from wscnn.core.config import section
from wscnn.network.device import fast_bfloat16, pick_device
from wscnn.network.model import ARCHITECTURES, WSCNN
from wscnn.training.bags import Bags
from wscnn.training.cuda_graph import CudaGraphStep
from wscnn.training.fit import Examples, fit
from wscnn.training.recipe import recipe_of


def main() -> None:
    """Print images a second, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", type=int, default=40, help="In each of the two parts.")
    parser.add_argument("--size", type=int, default=270)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--steps", type=int, help="By default as many as the recipe takes.")
    parser.add_argument("--timed", type=int, default=60, help="Passes of the bare network.")
    parser.add_argument("--architecture", choices=list(ARCHITECTURES), default="compact")
    given = parser.parse_args()
    device = pick_device("auto")
    torch.manual_seed(0)
    shape = (given.fields, given.channels, given.size, given.size)
    parts = []
    for _ in range(2):
        labels = torch.arange(given.fields) % 2
        # Brighter where positive, so that there is something to learn.
        fields = torch.rand(shape) + 0.5 * labels[:, None, None, None]
        parts.append(Examples(fields.half().to(device), labels.to(device), [f"p/{i}" for i in range(given.fields)]))
    recipe = recipe_of(section("train", "{}"))
    recipe["steps"] = given.steps or recipe["steps"]
    network = WSCNN(given.architecture, "noisy_or", given.channels, 2).to(device, memory_format=torch.channels_last)

    side = min(recipe["crop"], recipe["tiles"] * given.size)
    images = torch.rand(recipe["batch"], given.channels, side, side, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = (torch.arange(recipe["batch"]) % 2).to(device)

    bags = Bags(parts[0].fields, parts[0].labels, recipe["crop"], recipe["tiles"], recipe["augmentation"], seed=0)
    split = dict.fromkeys(("drawing", "forward", "backward"), 0.0)

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def bare(steps: int, forward: torch.nn.Module = network) -> float:
        """Return the seconds of forward and backward passes alone; drawing is timed beside them."""
        split.update(dict.fromkeys(split, 0.0))
        for _ in range(steps):
            times = [clock()]
            bags.draw(recipe["batch"])
            times.append(clock())
            with torch.autocast(device.type, torch.bfloat16, enabled=fast_bfloat16(device)):
                logits = forward(images)
            loss = network.loss(logits, labels)
            times.append(clock())
            loss.backward()
            times.append(clock())
            for part, seconds in zip(split, np.diff(times), strict=True):
                split[part] += seconds
        return split["forward"] + split["backward"]

    def again(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=fast_bfloat16(device)):
            logits = network(images)
        network.zero_grad(set_to_none=True)
        loss = network.loss(logits, labels)
        loss.backward()
        return loss.detach()

    def recorded(steps: int) -> float:
        """Return the seconds of forward and backward passes that the GPU repeats by itself."""
        step = CudaGraphStep(again)
        for _ in range(5):
            step(images, labels)
        start = clock()
        for _ in range(steps):
            step(images, labels)
        return clock() - start

    # What a device makes at its first use is not the loop's.
    fit(network, *parts, recipe | {"steps": 10}, seed=0)
    network.train()
    bare(3)
    limit = bare(given.timed)
    rates = dict(split)
    of_recorded = recorded(given.timed) if device.type == "cuda" else None
    # What torch.compile would gain, which training does without: a first step, with the compiling, then the others.
    compiled = torch.compile(network)
    first = clock()
    bare(1, compiled)
    first = clock() - first
    of_compiled = bare(given.timed, compiled)
    start = time.perf_counter()
    history = fit(network, *parts, recipe, seed=0)
    took = time.perf_counter() - start
    n = int(history["step"].max()) * recipe["batch"]
    all_images = given.timed * recipe["batch"]
    of_compiled = all_images / of_compiled
    limit *= n / all_images
    print(f"{device}, {torch.get_num_threads()} threads of torch, {given.architecture}, images of {side} x {side}")
    print(f"bare forward and backward    {n / limit:8.1f} images/s")
    if of_recorded is not None:
        print(f"the same, recorded           {all_images / of_recorded:8.1f} images/s")
    print(f"the same by torch.compile    {of_compiled:8.1f} images/s, after {first:.0f} s of compiling")
    print(f"fit, start and evaluations   {n / took:8.1f} images/s ({limit / took:.2f} of the bare network)")
    print("a step: " + ", ".join(f"{part} {1000 * seconds / given.timed:.1f} ms" for part, seconds in rates.items()))


if __name__ == "__main__":
    main()
