"""The architectures of the network, by name; without torch, which a plan of a screen does not need."""

from typing import NamedTuple


class Layer(NamedTuple):
    """A convolution, batch norm and ReLU, which usually halve the image.

    Attributes
    ----------
    filters, kernel, padding
        Of the convolution.
    halve
        ``pool``: a 2 x 2 max pool. It precedes the ReLU, which gives the same result with a quarter of the work.
        ``stride``: the convolution is made at every second pixel only. Empty: not at all.
    """

    filters: int
    kernel: int
    padding: int = 0
    halve: str = "pool"


class Architecture(NamedTuple):
    """The layers up to the features, and kernel and padding of the last convolution, which makes the class maps.

    Attributes
    ----------
    layers
        Up to the features.
    kernel, padding
        Of the last convolution.
    encoded
        Whether the layers are learned first, without labels, by `wscnn.encoder`, and fields are prepared by `contrast`.
    """

    layers: tuple[Layer, ...]
    kernel: int
    padding: int = 0
    encoded: bool = False


#: By name. The paper gives `wscnn4` (simulated data) and `wscnn4_cells`; of its network of six convolutions it gives
#: only the number: the 3 x 3 layers after the first and second layer are our choice. `compact` and `compact6` are ours,
#: of four and six convolutions, at a seventeenth of the cost. `encoder` has a receptive field of 28 px at a stride of
#: 4, small enough that a structure of 5 px makes up a good part of a position's features.
ARCHITECTURES = {
    "encoder": Architecture(
        (Layer(16, 6, halve="stride"), Layer(32, 3), Layer(48, 3, halve=""), Layer(64, 3, halve="")), 1, encoded=True
    ),
    "wscnn4": Architecture((Layer(50, 11), Layer(100, 3), Layer(100, 5, 1)), 5, 1),
    "wscnn4_cells": Architecture((Layer(50, 11), Layer(100, 7), Layer(100, 5, 1)), 5, 1),
    "wscnn6": Architecture(
        (Layer(50, 11), Layer(50, 3, 1, ""), Layer(100, 7), Layer(100, 3, 1, ""), Layer(100, 5, 1)), 5, 1
    ),
    "compact": Architecture((Layer(16, 6, halve="stride"), Layer(32, 3), Layer(32, 3)), 3),
    "compact6": Architecture(
        (Layer(16, 6, halve="stride"), Layer(32, 3), Layer(64, 3, halve=""), Layer(64, 3), Layer(64, 3, halve="")), 3
    ),
}
