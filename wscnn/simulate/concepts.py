"""Images that show whether a network has learned the right concept: that a rare object is present.

The algorithmic unit tests for learning from bags of Raff and Holt, "Reproducibility in Multiple Instance Learning: A
Case For Algorithmic Unit Tests" (NeurIPS 2023), in image form: discs, rings and crosses stand for their instances.
Training offers a shortcut that is absent in the test.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

#: Side of an image, and of the square that one object occupies, in pixels.
SIDE, _PITCH = 64, 16

#: Draws an object at a position (y, x) on an image's coordinates.
Shape = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
#: How many of each shape an image holds.
Contents = Mapping[Shape, int]


def disc(y: np.ndarray, x: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return a filled disc of diameter 9 px."""
    return (np.hypot(y - at[0], x - at[1]) < 4.5).astype(float)


def ring(y: np.ndarray, x: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return a ring of radius 4 px and width 3 px."""
    return (np.abs(np.hypot(y - at[0], x - at[1]) - 4) < 1.5).astype(float)


def cross(y: np.ndarray, x: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return an upright cross of 11 px."""
    dy, dx = np.abs(y - at[0]), np.abs(x - at[1])
    return ((np.minimum(dy, dx) < 1.2) & (np.maximum(dy, dx) < 6)).astype(float)


class Concept(NamedTuple):
    """What negative and positive images hold, in training and in the test; several contents are used in turn."""

    negative: Sequence[Contents]
    positive: Sequence[Contents]
    test_negative: Sequence[Contents]
    test_positive: Sequence[Contents]


#: By name. **Single concept**: a ring makes an image positive; in training only negative images hold crosses, so that
#: "positive unless there is a cross" works as well; in the test only positive images hold crosses. **Multi concept**:
#: ring and cross together make an image positive, neither alone does. **False frequency**: a ring makes an image
#: positive, and in training positive images hold more objects; in the test negative images hold many crosses.
CONCEPTS = {
    "single concept": Concept(
        [{disc: 5, cross: 2}],
        [{disc: 5, ring: 2}],
        [{disc: 5}],
        [{disc: 5, ring: 2, cross: 2}],
    ),
    "multi concept": Concept(
        [{disc: 5, ring: 2}, {disc: 5, cross: 2}, {disc: 7}],
        [{disc: 5, ring: 1, cross: 1}],
        [{disc: 4, ring: 3}, {disc: 4, cross: 3}],
        [{disc: 5, ring: 1, cross: 1}],
    ),
    "false frequency": Concept(
        [{disc: 5, cross: 1}],
        [{disc: 5, cross: 1, ring: 2}],
        [{disc: 3, cross: 12}],
        [{disc: 5, cross: 1, ring: 1}],
    ),
}


def draw_objects(rng: np.random.Generator, contents: Contents, side: int = SIDE) -> np.ndarray:
    """Return an image (side, side), float64, with the given number of each shape, without overlaps, and noise."""
    y, x = np.mgrid[:side, :side]
    positions = [(row, column) for row in range(8, side, _PITCH) for column in range(8, side, _PITCH)]
    chosen = rng.permutation(len(positions))
    shapes = [shape for shape, number in contents.items() for _ in range(number)]
    image = rng.normal(0.1, 0.03, (side, side))
    for shape, index in zip(shapes, chosen, strict=False):
        at = np.array(positions[index]) + rng.uniform(-2, 2, 2)
        image += shape(y, x, at) * rng.uniform(0.7, 1.0)
    return image


def draw_concept(
    rng: np.random.Generator, n_per_class: int, negative: Sequence[Contents], positive: Sequence[Contents]
) -> tuple[np.ndarray, np.ndarray]:
    """Return images (2 * n_per_class, 64, 64), float32, negative ones first, and their labels (0 or 1).

    Parameters
    ----------
    rng
        Source of all random draws.
    n_per_class
        Images of each class.
    negative, positive
        Contents of the images of each class, used in turn.
    """
    images = [
        draw_objects(rng, contents[i % len(contents)]) for contents in (negative, positive) for i in range(n_per_class)
    ]
    return np.stack(images).astype(np.float32), np.repeat([0, 1], n_per_class)
