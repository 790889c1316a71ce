"""Training images: what is drawn is what the fields hold, varied only as asked."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import center_of_mass
from scipy.ndimage import label as components

from wscnn.training.bags import Augmentation, Bags

NONE = Augmentation(rotation=0, scale=0, shift=0, gain=0, offset=0, noise=0)
ALL = Augmentation(rotation=90, scale=0.3, shift=10, gain=0.3, offset=0.1, noise=0.05)


def test_without_variation_an_image_is_its_field_mirrored_or_turned_half_round():
    fields = torch.rand(4, 2, 20, 30)
    bags = Bags(fields, torch.tensor([0, 0, 1, 1]), crop=64, tiles=1, augmentation=NONE, seed=0)
    images, labels = bags.draw(32)
    seen = set()
    for image, label in zip(images, labels, strict=True):
        matches = [
            (field, flip)
            for field in torch.nonzero(torch.tensor([0, 0, 1, 1]) == label).flatten().tolist()
            for flip in ((), (1,), (2,), (1, 2))
            if torch.allclose(image, fields[field].flip(flip), atol=1e-4)
        ]
        assert len(matches) == 1
        seen.add(matches[0][1])
    assert len(seen) == 4


@settings(deadline=None, max_examples=25)
@given(
    height=st.integers(12, 60),
    width=st.integers(12, 60),
    crop=st.integers(16, 64),
    tiles=st.sampled_from([1, 2]),
    members=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    n=st.integers(2, 13),
    seed=st.integers(0, 1000),
)
def test_images_hold_fields_of_their_class_alone_and_classes_are_even(height, width, crop, tiles, members, n, seed):
    labels = torch.repeat_interleave(torch.arange(len(members)), torch.tensor(members))
    # A field of class k is k everywhere, so that anything from another class would show.
    fields = labels.float()[:, None, None, None].expand(-1, 1, height, width).half()
    geometry = Augmentation(rotation=90, scale=0.3, shift=10, gain=0, offset=0, noise=0)
    images, drawn = Bags(fields, labels, crop, tiles, geometry, seed).draw(n)
    assert images.shape == (n, 1, min(crop, tiles * height), min(crop, tiles * width))
    assert images.dtype == torch.float32
    torch.testing.assert_close(images, drawn.float()[:, None, None, None].expand_as(images))
    counts = torch.bincount(drawn, minlength=len(members))
    assert counts.max() - counts.min() <= 1


def test_a_mosaic_shows_four_different_fields():
    labels = torch.tensor([0] * 6 + [1] * 6)
    fields = torch.arange(12.0)[:, None, None, None].expand(-1, 1, 16, 16)
    images, drawn = Bags(fields, labels, 32, 2, NONE, 0).draw(10)
    for image, label in zip(images, drawn, strict=True):
        quarters = {image[0, y, x].item() for y in (4, 27) for x in (4, 27)}
        assert len(quarters) == 4 and all((value >= 6) == bool(label) for value in quarters)


def test_variation_is_rigid_but_for_the_scale_asked_for():
    # Two spots 12 px from the middle of the field and 24 px apart.
    y, x = np.mgrid[:161, :161]
    spots = [np.exp(-((y - 80) ** 2 + (x - 80 - side) ** 2) / 8) for side in (12, -12)]
    labels = torch.tensor([0, 1])
    fields = torch.tensor(np.stack([spots[0] + spots[1]] * 2), dtype=torch.float32)[:, None]
    angles, distances = [], []
    scale = 0.25
    for image in Bags(fields, labels, 161, 1, Augmentation(90, scale, 5, 0, 0, 0), 1).draw(40)[0][:, 0].numpy():
        numbered, n = components(image > 0.3)
        assert n == 2
        found = np.array(center_of_mass(image, numbered, [1, 2]))
        step = found[1] - found[0]
        distances.append(np.hypot(*step))
        angles.append(np.degrees(np.arctan2(*step)) % 180)
        # 5 px along each axis of the field, which is turned then.
        assert np.hypot(*(found.mean(0) - 80)) <= 5 * np.sqrt(2) * (1 + scale) + 0.5
    assert min(distances) >= 24 / (1 + scale) - 0.5 and max(distances) <= 24 * (1 + scale) + 0.5
    assert np.ptp(distances) > 4
    # Any angle: each sixth of a half turn is met.
    assert len(np.unique(np.array(angles) // 30)) == 6


def test_gain_and_offset_stay_within_their_limits():
    fields = torch.ones(4, 3, 16, 16)
    intensity = Augmentation(rotation=0, scale=0, shift=0, gain=0.5, offset=0.1, noise=0)
    values = Bags(fields, torch.tensor([0, 0, 1, 1]), 16, 1, intensity, 0).draw(200)[0][:, :, 0, 0]
    assert values.min() >= 1 / 1.5 - 0.1 and values.max() <= 1.5 + 0.1
    assert values.min() < 0.8 and values.max() > 1.3
    assert (values.std(dim=1) > 0).all(), "channels vary each on its own"


def test_noise_has_no_more_than_its_deviation():
    fields = torch.zeros(4, 1, 64, 64)
    images, _ = Bags(fields, torch.tensor([0, 0, 1, 1]), 64, 1, Augmentation(0, 0, 0, 0, 0, 0.2), 0).draw(50)
    deviations = images.std((1, 2, 3))
    assert deviations.max() < 0.21 and deviations.min() < 0.1 and images.mean().abs() < 0.01


def test_same_seed_same_images_and_a_state_goes_on_where_it_was():
    fields, labels = torch.rand(6, 1, 24, 24), torch.tensor([0, 1] * 3)
    first, second = (Bags(fields, labels, 32, 2, ALL, 5) for _ in range(2))
    assert torch.equal(first.draw(4)[0], second.draw(4)[0])
    state = first.state()
    expected = first.draw(4)[0]
    other = Bags(fields, labels, 32, 2, ALL, 77)
    other.restore(state)
    assert torch.equal(other.draw(4)[0], expected)
    assert not torch.equal(other.draw(4)[0], expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
def test_fields_may_be_kept_in_any_type(dtype):
    fields = (torch.rand(4, 1, 16, 16) * 200).to(dtype)
    images, _ = Bags(fields, torch.tensor([0, 0, 1, 1]), 32, 2, NONE, 0).draw(2)
    assert images.dtype == torch.float32 and images.max() <= 200


@settings(deadline=None, max_examples=20)
@given(n=st.integers(2, 9), shares=st.integers(1, 4), seed=st.integers(0, 99))
def test_shares_are_the_parts_of_one_batch(n, shares, seed):
    fields, labels = torch.rand(6, 1, 24, 24), torch.tensor([0, 0, 0, 1, 1, 1])
    shape = Augmentation(rotation=90, scale=0.3, shift=5, gain=0.3, offset=0.1, noise=0)
    whole, classes = Bags(fields, labels, 32, 2, shape, seed).draw(n)
    for rank in range(shares):
        part, own = Bags(fields, labels, 32, 2, shape, seed, slice(rank, None, shares)).draw(n)
        torch.testing.assert_close(part, whole[rank::shares])
        assert own.tolist() == classes[rank::shares].tolist()
