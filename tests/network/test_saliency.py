"""Saliency: the gradient is the detector's, reaches every instance at once, and becomes masks that measure right."""

import numpy as np
import pytest
import torch
from matched import matched_filter

from wscnn.network.model import WSCNN, score_fields
from wscnn.network.saliency import occlusion, saliency


def image_with(places: list[tuple[int, int]], size: tuple[int, int] = (96, 128)) -> torch.Tensor:
    """Return an image (1, 1, h, w) with a bright 9 x 9 square around each place and a dim one in the corner."""
    image = np.full(size, 0.1, np.float32)
    image[2:11, 2:11] = 0.5
    for k, (y, x) in enumerate(places):
        # No two alike: a maximum over places is then one place.
        image[max(y - 4, 0) : y + 5, max(x - 4, 0) : x + 5] = 1.0 - 0.05 * k
    return torch.from_numpy(image)[None, None]


def test_one_pass_reaches_every_instance_where_the_pooled_gradient_reaches_one() -> None:
    model, places = matched_filter(), [(20, 30), (50, 100), (80, 60)]
    image = image_with(places)
    _, _, gradient = saliency([model], image, [0.0])
    near = [gradient[0, 0, y - 8 : y + 9, x - 8 : x + 9].sum().item() for y, x in places]
    assert min(near) > 0
    assert gradient.sum().item() == pytest.approx(sum(near), rel=1e-5)

    pooled = image.clone().requires_grad_(True)
    model(pooled).sum().backward()
    assert sum(pooled.grad[0, 0, y - 8 : y + 9, x - 8 : x + 9].abs().sum() > 0 for y, x in places) == 1


def test_gradient_is_the_filters_of_the_places_that_fire() -> None:
    # Each place that fires passes its 6 x 6 window on, with gain / 36 times the channels' weights, here of norm 1.
    models = [matched_filter(gain=gain, channels=(0.6, 0.8)) for gain in (10.0, 30.0)]
    image = image_with([(20, 30), (60, 90)]).repeat(1, 2, 1, 1)
    _, maps, gradient = saliency(models, image, [0.0])
    firing = int((maps > 0).sum())
    assert firing >= 2
    assert gradient.sum().item() == pytest.approx(firing * 20, rel=1e-4)


def test_scores_and_maps_are_the_networks() -> None:
    torch.manual_seed(1)
    models = [WSCNN("compact", pool, 1, 2).eval() for pool in ("noisy_or", "max", "lse")]
    images = torch.rand(3, 1, 50, 60)
    logits, maps, _ = saliency(models, images, [0.0])
    expected = [score_fields(model, images) for model in models]
    torch.testing.assert_close(logits, torch.stack([scores for scores, _ in expected]))
    torch.testing.assert_close(maps, sum(detector for _, detector in expected) / 3)


def test_a_field_is_seen_as_if_its_outermost_pixels_went_on() -> None:
    # No mirror image at its edge: whether the field ends in a dark rim or lies in the dark is the same.
    torch.manual_seed(2)
    model = WSCNN("compact", "noisy_or", 1, 2).eval()
    field, rim = torch.zeros(1, 1, 64, 80), 8 * model.stride
    field[..., 1:-1, 1:-1] = torch.rand(62, 78)
    within = torch.zeros(1, 1, 64 + 2 * rim, 80 + 2 * rim)
    within[..., rim:-rim, rim:-rim] = field
    low = [-1e6]
    _, maps, gradient = saliency([model], field, low)
    _, wider, of_wider = saliency([model], within, low)
    torch.testing.assert_close(maps, wider[..., 8:-8, 8:-8])
    inner = (..., slice(rim + 20, -rim - 20), slice(rim + 20, -rim - 20))
    torch.testing.assert_close(gradient[..., 20:-20, 20:-20], of_wider[inner])


def test_a_cell_at_the_edge_gives_no_bright_rim() -> None:
    model = matched_filter()
    highest = {y: saliency([model], image_with([(y, 40)]), [0.0])[2].max().item() for y in (0, 1, 2, 3, *range(20, 36))}
    # What lies in what the field is widened by is not added to its outermost pixels.
    assert min(highest.values()) > 0
    assert max(highest[y] for y in (0, 1, 2, 3)) <= max(highest[y] for y in range(20, 36))


@pytest.mark.parametrize("architecture", ["encoder", "compact", "compact6"])
@pytest.mark.parametrize("firing", [1, 6, 400])
def test_windows_give_the_gradient_of_whole_fields(architecture: str, firing: int) -> None:
    torch.manual_seed(3)
    models = [WSCNN(architecture, "noisy_or", 2, 3).eval() for _ in range(2)]
    images, learned = torch.rand(2, 2, 139, 170), [[True, True], [True, False]]
    for model in models:
        if model.encoded:
            # Cells are judged as a whole, too, which moves what fires but has no gradient.
            model.cell_weight.data.normal_()
            model.cell_spread.fill_(10.0)
    # The encoder's layers see what is above the background: cells in the corners and at the edges, too.
    images[:, :, ::60, ::56] += 5
    whole = images.clone().requires_grad_(True)
    first, second = (score_fields(model, whole)[1] for model in models)
    detector = torch.stack([(first[:, 0] + second[:, 0]) / 2, first[:, 1]], 1)
    ranked = detector.detach().transpose(0, 1).flatten(1).sort(descending=True).values
    firing = min(firing, ranked.shape[1] - 1)
    thresholds = (ranked[:, firing - 1] + ranked[:, firing]) / 2
    total = torch.where(detector > thresholds[:, None, None], detector, 0).sum((0, 2, 3))
    expected = [torch.autograd.grad(own, whole, retain_graph=True)[0].norm(dim=1) for own in total]
    _, _, gradients = saliency(models, images, thresholds.tolist(), learned)
    for p in range(2):
        assert expected[p].any()
        torch.testing.assert_close(gradients[:, p], expected[p], rtol=1e-3, atol=1e-5 * expected[p].max().item())


def test_an_empty_image_has_no_gradient() -> None:
    _, _, gradient = saliency([matched_filter()], image_with([]), [0.0])
    assert not gradient.any()


def test_occlusion_agrees_with_the_gradient_on_where_the_cell_is() -> None:
    model, (y, x) = matched_filter(), (52, 76)
    image = image_with([(y, x)])
    falls = occlusion(model, image[0], size=16, step=8)
    assert falls.shape == (1, 11, 15)
    i, j = np.unravel_index(falls[0].argmax(), falls[0].shape)
    assert abs(i * 8 + 7.5 - y) < 9
    assert abs(j * 8 + 7.5 - x) < 9
    covers = falls[0] > 0.5 * falls.max()
    rows, columns = np.nonzero(covers)
    # Only squares that touch the spot lower the score.
    assert (np.abs(rows * 8 + 7.5 - y) < 12.5).all()
    assert (np.abs(columns * 8 + 7.5 - x) < 12.5).all()
    _, _, gradient = saliency([model], image, [0.0])
    peak = np.unravel_index(int(gradient[0, 0].argmax()), gradient.shape[-2:])
    assert np.hypot(peak[0] - y, peak[1] - x) < 8


def test_squares_reach_the_edge_where_steps_do_not() -> None:
    # A spot in the last corner, which squares of whole steps leave uncovered.
    image = image_with([(92, 122)], size=(97, 127))
    falls = occlusion(matched_filter(), image[0], size=20, step=10)
    assert falls.shape == (1, 9, 12)
    assert np.unravel_index(falls[0].argmax(), falls[0].shape) == (8, 11)
