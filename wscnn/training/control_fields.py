"""The fields of control wells that a fold is trained, validated and tested on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from wscnn.core.errors import UserError
from wscnn.core.progress import log
from wscnn.network.model import WSCNN
from wscnn.plates.fields import draw_in_turns, read_fields, read_quality
from wscnn.plates.store import BOX, Plate
from wscnn.training.fit import Examples


def fields_of(wells: pd.DataFrame, plates: Mapping[str, Plate], qcs: Sequence[Path]) -> pd.DataFrame:
    """Return one row per usable field of the control wells: ``plate, well, label, part, field`` and `BOX`."""
    quality = pd.concat(read_quality(plate, path) for plate, path in zip(plates.values(), qcs, strict=True))
    used = quality.loc[quality["used"], ["plate", "well", "field"]]
    rows = []
    for plate, well in zip(wells["plate"], wells["well"], strict=True):
        if plate not in plates or well not in plates[plate].wells:
            log(f"plate {plate}, well {well}: a control well without images; left out")
            continue
        rows.append(plates[plate].fields(well)[["field", *BOX]].assign(plate=plate, well=well))
    if not rows:
        raise UserError("layout: no control well has images; correct the layout or the pattern of file names")
    table = pd.concat(rows).merge(used, on=["plate", "well", "field"]).merge(wells, on=["plate", "well"])
    return table.sort_values(["plate", "well"], kind="stable", ignore_index=True)


def load_examples(
    table: pd.DataFrame,
    plates: Mapping[str, Plate],
    channels: Sequence[str],
    classes: Sequence[str],
    train: Mapping[str, Any],
    network: WSCNN,
) -> Examples:
    """Return the fields of `table`, at most ``train.max_fields``, checked."""
    missing = sorted(set(classes) - set(table["label"]))
    if missing:
        raise UserError(
            f"layout: class {', '.join(missing)} has too few control wells with usable fields: each of three parts "
            "needs one; see the table of quality"
        )
    # Classes take turns, and plates within each class, so that none is lost.
    table = draw_in_turns(table, train["max_fields"], [["plate", "label"], ["label"]], train["seed"]).sort_index()
    fields = torch.empty(0)
    sizes = set()
    problems = []
    filled = 0
    for (plate, well), rows in table.groupby(["plate", "well"]):
        images = read_fields(plates[str(plate)], str(well), channels, rows[BOX].to_numpy())
        problems += _image_problems(images, rows, f"plate {plate}, well {well}", network)
        if not filled:
            # Half the memory of float32, allocated once: the fields of a large screen are gigabytes.
            fields = torch.empty((len(table), *images.shape[1:]), dtype=torch.half)
        sizes.add(images.shape[-2:])
        if len(sizes) == 1:
            # The largest float16 is 65504.
            fields[filled : filled + len(images)] = torch.from_numpy(images.clip(-6e4, 6e4))
        filled += len(images)
    if len(sizes) > 1:
        problems.append(f"control wells: fields have several sizes ({sorted(sizes)} px); stage them all to one size")
    if problems:
        raise UserError(problems)
    labels = torch.tensor([classes.index(label) for label in table["label"]])
    return Examples(fields, labels, list(table["plate"] + "/" + table["well"]))


def _image_problems(images: np.ndarray, rows: pd.DataFrame, where: str, network: WSCNN) -> list[str]:
    """Return what is wrong with training images (n, C, h, w)."""
    problems = []
    if min(images.shape[-2:]) < network.receptive_field:
        problems.append(
            f"{where}: fields of {images.shape[-2]} x {images.shape[-1]} px are smaller than the "
            f"{network.receptive_field} px that the network '{network.architecture}' needs; lower mosaic.downsample or "
            "choose another model.architecture"
        )
    for image, number in zip(images, rows["field"], strict=True):
        if not np.isfinite(image).all():
            problems.append(f"{where}, field {number}: holds pixels that are not numbers; exclude the well")
        elif (np.ptp(image, axis=(1, 2)) == 0).all():
            problems.append(f"{where}, field {number}: all pixels have the same value; exclude the well or the field")
    return problems
