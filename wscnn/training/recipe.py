"""How a network is trained: presets and their settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random augmentation of training images.

    Attributes
    ----------
    rotation
        Degrees; the angle is drawn from within this of 0 or of 180. 90 is any angle.
    scale
        The size is multiplied by a factor from 1 / (1 + scale) to 1 + scale, log-uniform.
    shift
        The mosaic's centre moves by up to this many pixels along each axis.
    gain
        Each channel is multiplied by a factor from 1 / (1 + gain) to 1 + gain, log-uniform.
    offset
        Each channel is shifted by up to this.
    noise
        Normal noise is added, whose standard deviation is drawn up to this.
    """

    rotation: float
    scale: float
    shift: float
    gain: float
    offset: float
    noise: float


#: How to train; keys of the config's section `train` that are not null take precedence.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {
        "steps": 300,
        "batch": 16,
        "crop": 256,
        "tiles": 2,
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "weight_decay": 1e-2,
        # Largest norm of the gradient in a step.
        "clip": 1.0,
        # Whether to compute in bfloat16 where that is faster.
        "bfloat16": True,
        "heads": 512,
        "patience": 5,
        "augmentation": Augmentation(rotation=90, scale=0.15, shift=32, gain=0.25, offset=0.05, noise=0.03),
    },
    # Section 3 of the paper, which does not give the number of steps.
    "paper": {
        "steps": 4000,
        "batch": 50,
        "crop": 462,
        "tiles": 2,
        "optimizer": "sgd",
        "learning_rate": 1e-4,
        "weight_decay": 5e-4,
        "clip": None,
        "bfloat16": False,
        "heads": 0,
        "patience": 8,
        "augmentation": Augmentation(rotation=20, scale=0.12, shift=40, gain=0, offset=0, noise=0),
    },
}


#: How detectors on an encoder are fitted, where the preset does not say otherwise.
ENCODED = {"steps": 150, "learning_rate": 0.02}


def recipe_of(train: Mapping[str, Any], encoded: bool = False) -> dict[str, Any]:
    """Return how to train: the preset's settings, overridden by those in the config's section `train`.

    Parameters
    ----------
    train
        Section of the config.
    encoded
        Whether only detectors are fitted, on an encoder.
    """
    preset = PRESETS[train["preset"]] | (ENCODED if encoded else {})
    given = {key: value for key, value in train.items() if key in preset and value is not None}
    return {**preset, **given, "evaluations": train["evaluations"], "freeze": train["freeze"]}
