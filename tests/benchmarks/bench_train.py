"""Rate of the training loop beside the bare network's forward and backward pass over the same images, in one run.

    python tests/benchmarks/bench_train.py --fields 40 --size 270 --steps 60

Fields are noise. The loop draws mosaics, augments them, steps the optimizer and evaluates as often as in a real
training; the bare network takes one batch that is there, again and again, with the same precision.
"""

import argparse
import time

import torch

from wscnn.config import section
from wscnn.fit import Examples, fast_bfloat16, fit, pick_device, recipe_of
from wscnn.model import ARCHITECTURES, WSCNN


def main() -> None:
    """Print images a second, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fields", type=int, default=40, help="In each of the two parts.")
    parser.add_argument("--size", type=int, default=270)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--architecture", choices=list(ARCHITECTURES), default="compact")
    given = parser.parse_args()
    device = pick_device("auto")
    torch.manual_seed(0)
    shape = (given.fields, given.channels, given.size, given.size)
    parts = []
    for _ in range(2):
        labels = torch.arange(given.fields) % 2
        # Brighter where positive: what cannot be learnt would be started again.
        fields = torch.rand(shape) + 0.5 * labels[:, None, None, None]
        parts.append(Examples(fields.half().to(device), labels.to(device), [f"p/{i}" for i in range(given.fields)]))
    recipe = recipe_of(section("train", "{}")) | {"steps": given.steps}
    network = WSCNN(given.architecture, "noisy_or", given.channels, 2).to(device, memory_format=torch.channels_last)

    side = min(recipe["crop"], recipe["tiles"] * given.size)
    images = torch.rand(recipe["batch"], given.channels, side, side, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = (torch.arange(recipe["batch"]) % 2).to(device)

    def bare(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            with torch.autocast(device.type, torch.bfloat16, enabled=fast_bfloat16(device)):
                logits = network(images)
            network.loss(logits, labels).backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    network.train()
    bare(3)
    limit = bare(given.steps)
    start = time.perf_counter()
    history = fit(network, *parts, recipe, seed=0)
    took = time.perf_counter() - start
    n = int(history["step"].max()) * recipe["batch"]
    limit *= n / (given.steps * recipe["batch"])
    print(f"{device}, {torch.get_num_threads()} threads of torch, {given.architecture}, images of {side} x {side}")
    print(f"bare forward and backward    {n / limit:8.1f} images/s")
    print(f"fit                          {n / took:8.1f} images/s ({limit / took:.2f} of the bare network)")


if __name__ == "__main__":
    main()
