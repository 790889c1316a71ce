"""The detector that training starts from tells something before the first step, and is the same for the same seed."""

import numpy as np
import pytest
import torch

from wscnn.network.model import WSCNN
from wscnn.simulate.concepts import cross, disc, draw_concept, ring
from wscnn.statistics.roc import auc
from wscnn.training.fit import evaluate
from wscnn.training.heads import PEAKED, start_head


def bright(y: np.ndarray, x: np.ndarray, at: tuple[float, float]) -> np.ndarray:
    """Return a disc half as bright again as the others, as condensed chromatin is."""
    return 1.5 * disc(y, x, at)


def fields(seed: int, n: int, negative: dict, positive: dict) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = draw_concept(np.random.default_rng(seed), n, [negative], [positive])
    return torch.from_numpy(images)[:, None], torch.from_numpy(labels)


def started(
    pool: str, images: torch.Tensor, labels: torch.Tensor, n_classes: int = 2, seed: int = 0, shown: int = 1
) -> WSCNN:
    torch.manual_seed(0)
    network = WSCNN("compact", pool, 1, n_classes)
    start_head(network, images, labels, 128, seed, shown)
    return network


def areas(network: WSCNN, images: torch.Tensor, labels: torch.Tensor) -> list[float]:
    logits, _ = evaluate(network.eval(), images)
    return [
        auc(logits[labels.numpy() == 0, k], logits[labels.numpy() == k + 1, k]) for k in range(network.n_classes - 1)
    ]


@pytest.mark.parametrize("pool", PEAKED)
def test_it_tells_new_images_apart_untrained(pool):
    contents = {"negative": {disc: 6}, "positive": {disc: 5, bright: 1}}
    images, labels = fields(0, 100, *contents.values())
    new = fields(1, 60, *contents.values())
    told = areas(started(pool, images, labels), *new)[0]
    assert told >= 0.8
    # It is the labels that it goes by.
    assert areas(started(pool, images, 1 - labels), *new)[0] <= told - 0.05


@pytest.mark.parametrize("shown", [1, 4])
@pytest.mark.parametrize("pool", PEAKED)
def test_a_training_image_is_positive_with_even_odds(pool, shown):
    images, labels = fields(0, 20, {disc: 6}, {disc: 4, ring: 2})
    network = started(pool, images, labels, shown=shown).eval()
    with torch.no_grad():
        # An image of four fields has the places of all, but for those at the seams.
        maps = network.class_map(images).unflatten(0, (-1, shown)).movedim(1, 2).flatten(2, 3)
        chance = torch.sigmoid(network.train().pooled(maps)).mean().item()
    # The bias is fitted to the features of the last layer that all these fields have in evaluation; of a few images of
    # four fields each the mean depends on which fields they show.
    assert chance == pytest.approx(0.5, abs=0.02 if shown == 1 else 0.1)


def test_each_phenotype_has_a_detector_of_its_own():
    crosses, rings = ({disc: 4, what: 3} for what in (cross, ring))
    images, labels = fields(0, 60, {disc: 6}, crosses)
    others, _ = fields(1, 60, {disc: 6}, rings)
    images = torch.cat([images, others[60:]])
    labels = torch.cat([labels, torch.full((60,), 2)])
    network = started("noisy_or", images, labels, n_classes=3)
    assert min(areas(network, images, labels)) >= 0.7
    assert not network.classify.weight[0].any()


def test_what_shows_all_over_a_field_gives_no_wild_scores():
    images = torch.rand((40, 1, 64, 64), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 2
    network = started("noisy_or", images + 0.5 * labels[:, None, None, None], labels)
    assert areas(network, images + 0.5 * labels[:, None, None, None], labels) == [1.0]
    logits, maps = evaluate(network, images)
    assert np.abs(maps).max() < 50 and np.abs(logits).max() < 50


def test_same_seed_same_weights():
    images, labels = fields(0, 20, {disc: 6}, {disc: 4, ring: 2})
    first, again, other = (started("noisy_or", images, labels, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["classify.weight"], other["classify.weight"])
