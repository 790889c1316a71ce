"""A network whose answers are known beforehand, for tests of what is made from a network's answers."""

import torch

from wscnn.network.model import WSCNN


def matched_filter(gain: float = 20.0, channels: tuple[float, ...] = (1.0,), pool: str = "max") -> WSCNN:
    """Return a network, set by hand, that answers to bright 6 x 6 spots and to nothing dimmer than 0.6."""
    model = WSCNN("compact", pool, len(channels), 2).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for block in model.blocks:
            block[1].weight.fill_(1.0)
            block[0].weight[0, 0, block[0].weight.shape[-1] // 2, block[0].weight.shape[-1] // 2] = 1.0
        model.blocks[0][0].weight[0] = torch.tensor(channels)[:, None, None] / 36
        model.blocks[0][1].bias[0] = -0.6
        model.classify.weight[1, 0, 1, 1] = gain
        model.classify.bias[1] = -0.1 * gain
    return model
