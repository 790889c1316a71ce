"""What an encoder learns from: pastes are where they are said to be, and a position is compared with itself."""

import numpy as np
import torch

from wscnn.encoder.pretext import _cutpaste_loss, _of_positions, _seen, paste
from wscnn.encoder.tiles import TILE
from wscnn.network.model import WSCNN
from wscnn.simulate.concepts import disc, draw_objects


def tiles(n: int = 8, channels: int = 1, side: int = TILE) -> np.ndarray:
    rng = np.random.default_rng(3)
    images = [[draw_objects(rng, {disc: 12}, side) for _ in range(channels)] for _ in range(n)]
    return np.array(images, np.float32)


def test_only_what_was_pasted_has_changed():
    before = tiles()
    pasted = paste(before, np.random.default_rng(0))
    untouched = pasted.share < 1e-6
    np.testing.assert_allclose(pasted.tiles[:, 0][untouched], before[:, 0][untouched], atol=1e-4)
    changed = np.abs(pasted.tiles - before)[:, 0]
    assert changed[pasted.share > 0.9].mean() > 0.1
    assert 0.002 < (pasted.share > 0.5).mean() < 0.2
    np.testing.assert_array_equal(before, tiles())


def test_a_paste_may_be_of_one_channel_alone():
    before = tiles(channels=3)
    pasted = paste(before, np.random.default_rng(1))
    changed = (np.abs(pasted.tiles - before) > 0.05) & (pasted.share[:, None] > 0.9)
    n_channels = changed.any((2, 3)).sum(1)
    assert set(n_channels.tolist()) >= {1, 3} or set(n_channels.tolist()) >= {2, 3}


def test_empty_tiles_stay_as_they_are():
    empty = np.zeros((4, 1, TILE, TILE), np.float32)
    pasted = paste(empty, np.random.default_rng(0))
    assert not pasted.share.any() and not pasted.tiles.any()


def test_positions_of_a_turned_view_are_turned_back():
    # The features of a view, turned back, are those of the tile: a network cannot be told views apart by position.
    torch.manual_seed(0)
    network = WSCNN("encoder", "noisy_or", 1, 2).eval()
    images = torch.from_numpy(tiles(2))
    noise = torch.Generator().manual_seed(0)
    for turns, mirrored in ((1, False), (2, True), (3, True)):
        view = _seen(images, turns, mirrored, noise)
        back = torch.rot90(view.flip(3) if mirrored else view, -turns, (2, 3))
        # Gain and noise apart, it is the same image.
        for one, other in zip(back, images, strict=True):
            assert np.corrcoef(one.flatten(), other.flatten())[0, 1] > 0.9
    assert network.blocks(images).shape[-1] == (TILE - network.receptive_field) // network.stride + 1


def test_a_position_is_positive_where_its_own_pixels_were_pasted():
    network = WSCNN("encoder", "noisy_or", 1, 2)
    n = (TILE - network.receptive_field) // network.stride + 1
    share = torch.zeros(1, 1, TILE, TILE)
    # Position (5, 7) is centred on pixels 32..35, 40..43: the receptive field of 28 px begins 12 px before them.
    share[..., 12 + 5 * 4 : 16 + 5 * 4, 12 + 7 * 4 : 16 + 7 * 4] = 1
    own = torch.nn.functional.avg_pool2d(_of_positions(network, share, n), network.stride)[0, 0]
    assert torch.nonzero(own).tolist() == [[5, 7]]
    features = torch.zeros(1, 64, n, n)
    features[0, 0, 5, 7] = 1
    with torch.no_grad():
        network.classify.weight.zero_()
        network.classify.bias.copy_(torch.tensor([0.0, -5.0]))
        low = _cutpaste_loss(network, features, share)
        network.classify.weight[1, 0] = 10
        high = _cutpaste_loss(network, features, share)
    assert high < 0.1 * low
