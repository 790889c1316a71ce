"""Novel cells of a plate: a score per cell, field and well, and their masks."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage

from wscnn.core.cluster import in_flight, threads_for
from wscnn.core.progress import log, progress
from wscnn.core.wells import NOVELTY, SALIENCY
from wscnn.discovery.cells import FieldCells
from wscnn.discovery.learn import describe_well
from wscnn.discovery.novelty import NoveltyModel, PlateScale, scales_of
from wscnn.network.model import WSCNN
from wscnn.plates.store import BOX, Plate
from wscnn.staging.regions import measures

#: The score that is painted as the brightest saliency.
_BRIGHTEST = 4.0


@dataclass(frozen=True)
class Found:
    """What novelty finds on a plate.

    Attributes
    ----------
    scores
        One row per well, reference and field: ``well, fold, field, score`` (share of novel cells), ``n_cells``.
    objects
        The columns of `wscnn.core.tables.OBJECTS` but ``plate``.
    features
        ``well, object, feature``: the standardized feature vector of each object.
    intensity
        Mean intensity of the cells of each well.
    why_no_score
        Why a well with usable fields has no score.
    """

    scores: pd.DataFrame
    objects: pd.DataFrame
    features: pd.DataFrame
    intensity: dict[str, float]
    why_no_score: str = "no cell found"


def detect(plate: Plate, used: pd.DataFrame, model: NoveltyModel, network: WSCNN) -> Found:
    """Score the cells of a plate, and write the masks of novel ones as labels.

    A cell's score is its distance to the nearest cells of negative controls, 0 for the median and 1 for the 95th
    percentile of held-out negative cells; that of a field or well is the share of its cells above 1. Cells
    above the 99th percentile are objects. The labels are ``novelty`` (uint32, objects by number) and
    ``novelty_saliency`` (uint8: every cell painted with its score, 255 is 4 or more).

    Parameters
    ----------
    plate
        The staged plate.
    used
        The fields that quality control kept: ``well, field`` and `wscnn.plates.store.BOX`.
    model, network
        What `wscnn.discovery.learn` wrote, and the encoder, on the device to compute on.
    """
    wells = {str(well): rows for well, rows in used.groupby("well", sort=False)}
    negative = [well for well in wells if f"{plate.name}/{well}" in model.parts]

    def seen(well: str) -> list[FieldCells]:
        boxes = wells[well][BOX].to_numpy()
        return describe_well(network, plate, well, model.channels, boxes, model.outlined)

    workers = threads_for(gpu=next(network.parameters()).is_cuda)
    with ThreadPoolExecutor(workers) as pool:
        work = ((well, pool.submit(seen, well)) for well in negative)
        known = dict(in_flight(work, 2 * workers))
        of_negatives = {well: np.concatenate([one.features for one in own]) for well, own in known.items()}
        parts = {well: model.parts[f"{plate.name}/{well}"] for well in negative}
        scales = scales_of(of_negatives, parts, model.n_measures)
        if scales is None:
            log(f"{plate.name}: too few negative control wells with cells; novelty scores no well")
            return replace(_tables([]), why_no_score="too few negative controls")

        def judge(well: str) -> dict[str, Any]:
            folds = model.folds_of(f"{plate.name}/{well}")
            return _judge(plate, well, wells[well], known.get(well) or seen(well), model, scales, folds)

        judging = ((well, pool.submit(judge, well)) for well in wells)
        judged = progress(in_flight(judging, 2 * workers), len(wells), "wells compared with negative controls")
        return _tables([{"well": well, **rows} for well, rows in judged])


def _judge(
    plate: Plate,
    well: str,
    fields: pd.DataFrame,
    cells: Sequence[FieldCells],
    model: NoveltyModel,
    scales: Sequence[PlateScale],
    folds: Sequence[int],
) -> dict[str, Any]:
    """Return the scores, objects and features of a well; write its labels."""
    masks, layer = (np.zeros(plate.mosaic_shape(well), kind) for kind in (np.uint32, np.uint8))
    shares, rows, features, intensities = [], [], [], []
    n = 0
    for (number, *box), own in zip(fields[["field", *BOX]].itertuples(index=False), cells, strict=True):
        standard = [scales[k](own.features) for k in folds]
        scores = np.stack([model.references[k].score(one) for k, one in zip(folds, standard, strict=True)])
        share = (scores > 1).mean(1) if scores.shape[1] else np.full(len(folds), np.nan)
        shares += [(k, number, value, scores.shape[1]) for k, value in zip(folds, share, strict=True)]
        mean = scores.mean(0)
        window = np.s_[box[0] : box[0] + box[2], box[1] : box[1] + box[3]]
        novel = np.flatnonzero((mean > model.objects) & (own.area > 0))
        size = int(own.labels.max(initial=0)) + 1
        painted, numbered = np.zeros(size), np.zeros(size, np.uint32)
        painted[own.numbers] = (mean / _BRIGHTEST).clip(0, 1)
        numbered[own.numbers[novel]] = np.arange(n + 1, n + 1 + len(novel))
        painted[0] = numbered[0] = 0
        layer[window] = np.rint(255 * painted[own.labels])
        masks[window] = numbered[own.labels]
        # Numbers of the mask are those of the well: the window of number m is at m - 1.
        found = ndimage.find_objects(masks[window].astype(np.int32))
        for m, k in enumerate(novel, n + 1):
            y, x = found[m - 1]
            at = (slice(box[0] + y.start, box[0] + y.stop), slice(box[1] + x.start, box[1] + x.stop))
            rows.append((number, m, *measures(at, masks[at] == m), mean[k]))
        intensities.append(own.intensity[own.area > 0])
        features.append(np.mean([one[novel] for one in standard], axis=0))
        n += len(novel)
    plate.write_labels(well, {NOVELTY: masks, NOVELTY + SALIENCY: layer})
    light = np.concatenate(intensities)
    return {
        "shares": shares,
        "objects": rows,
        "features": np.concatenate(features).astype(np.float32),
        "intensity": float(light.mean()) if len(light) else np.nan,
    }


def _tables(judged: Sequence[Mapping[str, Any]]) -> Found:
    """Return what was found in the wells as tables."""
    scores = [(one["well"], *row) for one in judged for row in one["shares"]]
    objects = [(one["well"], *row) for one in judged for row in one["objects"]]
    columns = ["well", "field", "object", "y", "x", "y0", "x0", "y1", "x1", "area_px", "score"]
    table = pd.DataFrame(objects, columns=columns).assign(phenotype=NOVELTY)
    vectors = [list(vector) for one in judged for vector in one["features"]]
    return Found(
        pd.DataFrame(scores, columns=["well", "fold", "field", "score", "n_cells"]),
        table,
        table[["well", "object"]].assign(feature=pd.Series(vectors, index=table.index, dtype=object)),
        {one["well"]: one["intensity"] for one in judged},
    )
