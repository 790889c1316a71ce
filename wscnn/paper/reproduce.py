"""The paper's tables, and harder ones, reproduced from scratch: images drawn, networks trained, results compared.

"The paper" is Sailem et al., ICCV Workshops 2017. Its simulated data are drawn again; its cells, never published, are
replaced by drawn ones; real nuclei are composed into fields. Trained networks stay in a folder, so that an interrupted
run resumes, and a table that needs the same networks reuses them.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from wscnn.core.atomic import atomic_path
from wscnn.core.config import section
from wscnn.core.errors import UserError
from wscnn.core.progress import log
from wscnn.network.architectures import ARCHITECTURES
from wscnn.network.card import Card
from wscnn.network.device import pick_device
from wscnn.network.model import NOISY_OR, WSCNN
from wscnn.network.saliency import saliency
from wscnn.network.weights import load_model, save_model
from wscnn.paper.maps import picture_maps, picture_values
from wscnn.scoring.masks import extent, find_objects
from wscnn.simulate.cells import Nuclei
from wscnn.simulate.circles import draw_circles
from wscnn.simulate.concepts import CONCEPTS, draw_concept
from wscnn.simulate.fields import compose, expose, optics
from wscnn.simulate.multinucleate import draw_multinucleate
from wscnn.staging.mosaic import block_means
from wscnn.statistics.roc import auc
from wscnn.training.fit import Examples, evaluate, fit
from wscnn.training.recipe import PRESETS, recipe_of
from wscnn.training.thresholds import field_threshold, place_threshold

#: Tables that can be reproduced.
TABLES = ("1", "2", "3", "prevalence", "pools")

#: The paper's figures, by table, pool (in table 2: convolutions), data and measure.
_PAPER = {
    ("1", "max", "Sim. Data 1", "accuracy"): 0.9962,
    ("1", "max", "Sim. Data 1", "precision"): 0.9926,
    ("1", "max", "Sim. Data 1", "recall"): 0.9992,
    ("1", "avg", "Sim. Data 1", "accuracy"): 0.5103,
    ("1", "avg", "Sim. Data 1", "precision"): 0.0219,
    ("1", "avg", "Sim. Data 1", "recall"): 0.0145,
    ("1", "fc", "Sim. Data 1", "accuracy"): 0.8673,
    ("1", "fc", "Sim. Data 1", "precision"): 0.9940,
    ("1", "fc", "Sim. Data 1", "recall"): 0.7460,
    ("1", "max", "Sim. Data 2", "accuracy"): 0.995,
    ("1", "max", "Sim. Data 2", "precision"): 0.992,
    ("1", "max", "Sim. Data 2", "recall"): 0.997,
    ("2", "4", "multinucleate", "accuracy"): 0.9027,
    ("2", "4", "multinucleate", "precision"): 0.8824,
    ("2", "4", "multinucleate", "recall"): 0.9020,
    ("2", "6", "multinucleate", "accuracy"): 0.9189,
    ("2", "6", "multinucleate", "precision"): 0.8897,
    ("2", "6", "multinucleate", "recall"): 0.9365,
    ("3", "max", "Sim. Data 1", "accuracy"): 0.99995,
    ("3", "max", "Sim. Data 1", "precision"): 0.93,
    ("3", "max", "Sim. Data 1", "recall"): 0.9719,
}

#: How the detector of networks trained by noisy-or becomes a score; the others score as they train. Here a single
#: circle or multinucleate cell makes an image positive, so scores are not the mean over the eight highest positions,
#: the default of the config.
_SCORE_POOLS = {"circles": "max", "cells": "noisy_or"}
#: Training images that are whole images, without the seams of a mosaic, which cut cells.
_WHOLE: dict[str, Any] = {"tiles": 1, "crop": 280}
#: Fraction of an object's box that must be under the mask for the object to count as found, as in the paper.
_COVERED = 0.9
#: Masks of Sim. Data: objects are more than a radius apart, so that a mask may be wider than its object.
_MASKS = {"min_distance_px": None, "sigma_px": 4.0, "mask_fraction": 0.2}
#: Share of cells that are mitotic, in the fields of positive wells.
_PREVALENCES = (0.01, 0.02, 0.05)
#: Their test part is this many times as large: at 1 % few fields hold one, and more need no training.
_TESTED = 3
#: Raw pixels along the side of a field of nuclei, cells in it, fields of a well.
_FIELD, _CELLS, _FIELDS_A_WELL = 540, 36, 4


class Figure(NamedTuple):
    """One measured figure of one trained network."""

    network: str
    data: str
    measure: str
    value: float
    seconds: float


class Settings(NamedTuple):
    """Settings of a table: `folder` keeps networks; None stands for the table's own default."""

    folder: Path
    images: int | None
    steps: int | None
    architecture: str | None
    pools: Sequence[str] | None
    preset: str
    downsample: int
    device: str


def reproduce(
    table: str,
    folder: Path,
    *,
    seeds: int = 3,
    images: int | None = None,
    steps: int | None = None,
    architecture: str | None = None,
    pools: Sequence[str] | None = None,
    preset: str = "default",
    downsample: int = 2,
    device: str = "auto",
) -> pd.DataFrame:
    """Reproduce one table; write it to ``<folder>/table-<table>.tsv`` and return it.

    Parameters
    ----------
    table
        One of `TABLES`. ``1``: accuracy on Sim. Data 1 by each pool, and of the same networks on Sim. Data 2 and on
        images with a single circle. ``2``: multinucleate cells, 5 % of the negative fields mislabelled, by truth.
        ``3``: objects of Sim. Data 1 found by the saliency, with pictures of the maps and of their values.
        ``prevalence``: fields of real nuclei of which 1, 2 and 5 % are mitotic, trained on the labels of wells; AUC for
        "this field holds a mitotic nucleus" by truth, on nuclei of other source plates. ``pools``: the algorithmic unit
        tests of `wscnn.simulate.concepts`.
    folder
        Also keeps the trained networks: an existing one is not trained again.
    seeds
        Number of repetitions, each with new images and networks.
    images
        Images per class, in three equal parts for training, validation and test; ``prevalence`` tests with three times
        as many.
    steps
        Steps of each training.
    architecture, pools
        Of the networks.
    preset
        The recipe: ``default`` or ``paper``.
    downsample
        Raw pixels along each axis that become one, in ``prevalence``: 1 or 2.
    device
        ``auto``, ``cpu`` or ``cuda``.

    Returns
    -------
    pandas.DataFrame
        One row per figure: ``table, network, data, measure, paper`` (NaN where the paper has none), ``ours`` (mean over
        seeds), ``lowest, highest, seeds, seconds`` (of one training, mean), ``device``.

    Raises
    ------
    UserError
        When the table, the architecture or a pool is unknown, a setting is out of range, or a GPU is requested and
        there is none.
    """
    if table not in TABLES:
        raise UserError(f"table '{table}' is unknown; choose one of {', '.join(TABLES)}")
    if seeds < 1 or (images is not None and images < 12):
        raise UserError(f"seeds: {seeds}, images: {images}; use at least 1 seed and 12 images of each class")
    if downsample not in (1, 2):
        raise UserError(f"downsample: {downsample}; use 1 or 2")
    for pool in pools or ("noisy_or",):
        WSCNN(architecture or "compact", pool, 1, 2)  # raises if a name is unknown
    where = pick_device(device)
    folder.mkdir(parents=True, exist_ok=True)
    settings = Settings(folder, images, steps, architecture, pools, preset, downsample, where.type)
    rows = []
    for seed in range(seeds):
        for figure in _MAKERS[table](settings, seed):
            rows.append(figure)
            log(f"seed {seed}, {figure.network}, {figure.data}: {figure.measure} {figure.value:.4f}")
    found = pd.DataFrame(rows).groupby(["network", "data", "measure"], sort=False)
    result = found.agg(
        ours=("value", "mean"),
        lowest=("value", "min"),
        highest=("value", "max"),
        seeds=("value", "size"),
        seconds=("seconds", "mean"),
    ).reset_index()
    result.insert(3, "paper", [_PAPER.get((table, *key), np.nan) for key in _keys(table, result)])
    result.insert(0, "table", table)
    result["device"] = (
        torch.cuda.get_device_name() if where.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    )
    with atomic_path(folder / f"table-{table}.tsv") as partial:
        result.to_csv(partial, sep="\t", index=False, float_format="%.5g", lineterminator="\n")
    return result


def _keys(table: str, result: pd.DataFrame) -> Iterator[tuple[str, str, str]]:
    """Yield the paper's names of each row's network, data and measure."""
    for network, data, measure in result[["network", "data", "measure"]].itertuples(index=False):
        architecture, pool = network.split()
        convolutions = len(ARCHITECTURES[architecture].layers) + 1
        # The default network of this program replaces the paper's own.
        yield str(convolutions) if table == "2" else pool.replace("noisy_or", "max"), data, measure


class Trained(NamedTuple):
    """A network with the thresholds chosen on its validation part, and the training time in seconds."""

    network: WSCNN
    field: float
    place: float
    seconds: float


def _train(
    settings: Settings, name: str, seed: int, architecture: str, pool: str, parts: Sequence[Examples], recipe: Mapping
) -> Trained:
    """Train a network on the first of `parts` and validate it on the second, or read it where it was trained before."""
    path = settings.folder / f"{name}-{architecture}-{pool}-{seed}.safetensors"
    key = json.dumps([recipe, len(parts[0].labels)], default=str, sort_keys=True, allow_nan=False)
    card = load_model(path)[1] if path.exists() else None
    if card is None or card.settings["key"] != key:
        torch.manual_seed(seed)
        device = torch.device(settings.device)
        train, select = (part.to(device) for part in parts[:2])
        classes = int(train.labels.max()) + 1
        score_pool = _SCORE_POOLS.get(name, "topk") if pool in NOISY_OR else "same"
        network = WSCNN(architecture, pool, train.fields.shape[1], classes, score_pool).to(device)
        log(f"{path.stem}: {len(train.labels)} images, {recipe['steps']} steps")
        history = fit(network, train, select, recipe, seed, path.with_name(f".{path.stem}.resume"), key)
        logits, maps = evaluate(network, select.fields)
        positive = select.labels.cpu().numpy() == 1
        card = Card(
            architecture=architecture,
            pool=pool,
            score_pool=network.score_pool,
            channels=["intensity"],
            pixel_size_um=None,
            classes=["negative", "positive"],
            screen=name,
            fold=seed,
            parts={},
            thresholds={
                "positive": {
                    "field": field_threshold(logits[~positive, 0], logits[positive, 0]),
                    "place": place_threshold(maps[~positive, 0], maps[positive, 0]),
                }
            },
            metrics={"seconds": float(history["seconds"].iloc[-1])},
            settings={"key": key},
        )
        save_model(path, network, card)
        path.with_name(f".{path.stem}.resume").unlink(missing_ok=True)
    network, card = load_model(path)
    found = card.thresholds["positive"]
    return Trained(network.to(settings.device), found["field"], found["place"], card.metrics["seconds"])


def _recipe(settings: Settings, steps: int, default: Mapping[str, Any] = {}, **changes: Any) -> dict[str, Any]:
    """Return the preset with `steps`, the changes of a table, and those for the preset ``default`` alone."""
    recipe = recipe_of(section("train", json.dumps({"preset": settings.preset}, allow_nan=False)))
    own = default if settings.preset == "default" else {}
    return {**recipe, "steps": settings.steps or steps, **changes, **own}


def _examples(images: np.ndarray, labels: np.ndarray) -> Examples:
    """Return images (n, h, w) scaled to about 0..1 as examples, each as its own well."""
    fields = torch.from_numpy(images)[:, None].half()
    return Examples(fields, torch.from_numpy(np.asarray(labels)), [str(i) for i in range(len(labels))])


def _scores(trained: Trained, images: Examples) -> np.ndarray:
    """Return the scores (n,) of images."""
    logits, _ = evaluate(trained.network, images.fields.to(next(trained.network.parameters()).device))
    return logits[:, 0]


def _decided(trained: Trained, data: str, images: Examples, truth: np.ndarray) -> Iterator[Figure]:
    """Yield the measures of scores and calls against the truth."""
    scores = _scores(trained, images)
    called = scores > trained.field
    figures = _rates(called, truth) | {"AUC": auc(scores[~truth], scores[truth])}
    for measure, value in figures.items():
        yield Figure(_name(trained), data, measure, value, trained.seconds)


def _rates(called: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Return accuracy, precision and recall; NaN where nothing is called or true."""
    hits = int((called & truth).sum())
    return {
        "accuracy": float((called == truth).mean()),
        "precision": hits / int(called.sum()) if called.any() else float("nan"),
        "recall": hits / int(truth.sum()) if truth.any() else float("nan"),
    }


def _circles(settings: Settings, seed: int) -> tuple[list[Examples], pd.DataFrame]:
    """Return Sim. Data 1 in three parts, and the boxes of the objects of the last."""
    parts = []
    boxes = pd.DataFrame()
    for part in range(3):
        examples, boxes = _drawn((settings.images or 2000) // 3, seed=3 * seed + part)
        parts.append(examples)
    return parts, boxes


def _drawn(n_per_class: int, fraction: float = 0.1, **settings: Any) -> tuple[Examples, pd.DataFrame]:
    """Return images of `draw_circles` as examples, and their boxes."""
    images, labels, boxes = draw_circles(n_per_class, fraction, **settings)
    return _examples(images / np.float32(255), labels), boxes


def _circle_network(settings: Settings, seed: int, pool: str, parts: Sequence[Examples]) -> Trained:
    recipe = _recipe(settings, 1000, **_WHOLE)
    return _train(settings, "circles", seed, settings.architecture or "compact", pool, parts, recipe)


def _table_1(settings: Settings, seed: int) -> Iterator[Figure]:
    parts, _ = _circles(settings, seed)
    n = len(parts[2].labels) // 2
    tests = {
        "Sim. Data 1": parts[2],
        "Sim. Data 2": _drawn(n, 0.2, seed=3 * seed + 1000)[0],
        "one circle": _drawn(n, circles=1, seed=3 * seed + 1001)[0],
    }
    for pool in settings.pools or ("noisy_or", "max", "avg", "fc"):
        trained = _circle_network(settings, seed, pool, parts)
        for data, test in tests.items():
            yield from _decided(trained, data, test, test.labels.numpy() == 1)


def _table_2(settings: Settings, seed: int) -> Iterator[Figure]:
    n = (settings.images or 800) // 3
    parts, truths = [], []
    for part in range(3):
        images, labels, cells = draw_multinucleate(n, seed=3 * seed + part)
        small = np.stack([block_means(image, 3) for image in images]).astype(np.float32)
        low, high = np.percentile(small, [1, 99.5])
        parts.append(_examples((small - low) / (high - low), labels))
        truths.append(np.isin(np.arange(len(labels)), cells.loc[cells["rare"], "image"]))
    for architecture in [settings.architecture] if settings.architecture else ["compact", "compact6"]:
        for pool in settings.pools or ("noisy_or",):
            # Networks of four convolutions learn these cells faster at twice the usual rate.
            recipe = _recipe(settings, 1200, {**_WHOLE, "batch": 32, "learning_rate": 2e-3})
            trained = _train(settings, "cells", seed, architecture, pool, parts, recipe)
            yield from _decided(trained, "multinucleate", parts[2], truths[2])


def _table_3(settings: Settings, seed: int) -> Iterator[Figure]:
    parts, boxes = _circles(settings, seed)
    for pool in settings.pools or ("noisy_or",):
        trained = _circle_network(settings, seed, pool, parts)
        network = trained.network
        lengths = extent(network.receptive_field, _MASKS)
        covered = []
        # Scored by its highest position, an image is positive if any position exceeds this.
        threshold = min(trained.place, trained.field)
        # Counted on positive images, as in the paper.
        of_images = boxes.groupby("image")
        for image in torch.nonzero(parts[2].labels).flatten().tolist():
            objects = of_images.get_group(image)
            field = parts[2].fields[image][None].float().to(settings.device)
            _, maps, gradients = saliency([network], field, [threshold])
            mask, _, _ = find_objects(
                maps[0, 0].cpu().numpy(), gradients[0, 0].cpu().numpy(), threshold, network.stride, lengths
            )
            rows = objects[["y0", "x0", "y1", "x1"]].itertuples(index=False)
            covered += [(mask[y0:y1, x0:x1] > 0).mean() >= _COVERED for y0, x0, y1, x1 in rows]
        positive = boxes["image"].map(lambda image: bool(parts[2].labels[image] == 1))
        for measure, value in _rates(np.array(covered), boxes.loc[positive, "circle"].to_numpy()).items():
            yield Figure(_name(trained), "Sim. Data 1", measure, value, trained.seconds)
        path = settings.folder / f"circles-{network.architecture}-{pool}-{seed}"
        first = parts[2].fields[torch.nonzero(parts[2].labels)[0, 0]].float().to(settings.device)
        picture_maps(network, first, threshold, path.with_suffix(".maps.png"))
        fields = parts[2].fields.to(settings.device)
        picture_values(network, fields, parts[2].labels.numpy(), path.with_suffix(".values.png"))


def _prevalence(settings: Settings, seed: int) -> Iterator[Figure]:
    n, downsample = (settings.images or 300) // 3, settings.downsample
    augmentation = PRESETS["default"]["augmentation"]
    # Whole fields, shifted by the same distance whatever the pixel size; with four times the pixels half as many per
    # step.
    own = {
        "tiles": 1,
        "crop": _FIELD // downsample,
        "batch": 16 * downsample,
        "augmentation": replace(augmentation, shift=2 * augmentation.shift / downsample),
    }
    for prevalence in _PREVALENCES:
        parts = []
        for part, (half, times) in enumerate((("first", 1), ("first", 1), ("second", _TESTED))):
            drawn = [seed, part, round(1000 * prevalence)]
            fields, labels, truth = _nuclei(half, times * n, prevalence, downsample, drawn)
            parts.append(_examples(fields, labels))
        # Many of their fields from positive wells hold no mitotic nucleus.
        for pool in settings.pools or ("leaky_noisy_or",):
            architecture = settings.architecture or "compact"
            name = f"nuclei-{prevalence:g}-{downsample}"
            trained = _train(settings, name, seed, architecture, pool, parts, _recipe(settings, 1000, own))
            scores = _scores(trained, parts[2])
            figure = auc(scores[~truth], scores[truth])
            yield Figure(_name(trained), f"{prevalence:.0%} mitotic", "AUC", figure, trained.seconds)


def _nuclei(
    half: str, n: int, prevalence: float, downsample: int, seed: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return `n` fields of negative and of positive wells, their labels, and whether each holds a mitotic nucleus."""
    bank = Nuclei(half)
    labels = np.repeat([0, 1], n)
    fields, truth = [], []
    light = optics(np.random.default_rng(seed), _FIELD, 1.0)
    for i, label in enumerate(labels):
        rng = np.random.default_rng([*seed, i])
        gain = np.random.default_rng([*seed, label, i // _FIELDS_A_WELL]).lognormal(0, 0.06)
        composed = compose(rng, bank, _FIELD, rng.poisson(_CELLS), {"mitotic": prevalence * float(label)}, "")
        fields.append(block_means(expose(rng, composed.signal, light, gain), downsample))
        truth.append(any(cell["rare"] for cell in composed.cells))
    stack = np.stack(fields).astype(np.float32)
    low, high = np.percentile(stack, [1, 99.5])
    return (stack - low) / (high - low), labels, np.array(truth)


def _pools(settings: Settings, seed: int) -> Iterator[Figure]:
    n = (settings.images or 180) // 3
    augmentation = replace(PRESETS["default"]["augmentation"], shift=4)
    recipe = _recipe(settings, 200, augmentation=augmentation, evaluations=4, **_WHOLE)
    for concept, contents in CONCEPTS.items():
        rng = np.random.default_rng([seed, len(concept)])
        parts = [_examples(*draw_concept(rng, n, contents.negative, contents.positive)) for _ in range(2)]
        test = _examples(*draw_concept(rng, n, contents.test_negative, contents.test_positive))
        for pool in settings.pools or ("noisy_or", "max", "avg", "fc", "lse", "topk", "attention"):
            name = concept.replace(" ", "-")
            trained = _train(settings, name, seed, settings.architecture or "compact", pool, parts, recipe)
            scores, truth = _scores(trained, test), test.labels.numpy() == 1
            figure = auc(scores[~truth], scores[truth])
            yield Figure(_name(trained), concept, "AUC", figure, trained.seconds)


def _name(trained: Trained) -> str:
    """Return architecture and pool, the name of a network in a row."""
    return f"{trained.network.architecture} {trained.network.pool}"


_MAKERS: dict[str, Callable[[Settings, int], Iterator[Figure]]] = {
    "1": _table_1,
    "2": _table_2,
    "3": _table_3,
    "prevalence": _prevalence,
    "pools": _pools,
}
