"""The stage `drift`: negative controls of plates that a model is applied to, against those that it was trained with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wscnn.core.progress import log
from wscnn.core.provenance import folds_in, made_from
from wscnn.core.tables import CONTROLS, DRIFT, conform, read_table, write_table
from wscnn.encoder.appearance import describe_negatives
from wscnn.network.device import one_thread, pick_device
from wscnn.network.weights import check_fits, load_folds
from wscnn.plates.fields import open_plates, read_quality
from wscnn.statistics.drift import drift_of


def measure_drift(
    controls: Path, stores: Sequence[Path], qcs: Sequence[Path], models: Path, output: Path, *, score: Mapping[str, Any]
) -> None:
    """Write how far each plate's negative controls lie from those that a model was trained with.

    Parameters
    ----------
    controls
        Table of control wells: ``plate, well, role, phenotype``.
    stores, qcs
        Staged plates and, in the same order, their tables of fields; a field with ``used`` False is left out.
    models
        Folder of the trained folds.
    output
        The table to write, one row per plate, as ``drift`` in `wscnn.core.tables`.
    score
        The section of the config, which names the device.

    Raises
    ------
    UserError
        When model and plates do not fit, or a file is broken.
    """
    plates = open_plates(stores, qcs)
    network, card = load_folds(models)[0]
    for plate in plates.values():
        check_fits(card, [channel.name for channel in plate.channels], plate.pixel_size_um, str(plate.path))
    rows = [{"plate": name, "drift": np.nan, "drift_threshold": np.nan, "drift_of": ""} for name in plates]
    if card.negatives:
        wells = read_table(controls, CONTROLS)
        network.to(pick_device(score["device"]))
        used = (read_quality(plate, path).query("used") for plate, path in zip(plates.values(), qcs, strict=True))
        with one_thread():
            found = describe_negatives(network, plates, used, wells[wells["role"] == "negative"], card.channels)
        for row in rows:
            if row["plate"] not in found:
                log(f"drift: plate '{row['plate']}' has no negative control well with a used field; not compared")
                continue
            drift = drift_of(found[row["plate"]], card.negatives, card.channels)
            row |= {"drift": drift.value, "drift_threshold": drift.threshold, "drift_of": drift.largest}
            log(
                f"drift: plate '{row['plate']}': {drift.value:.1f} SDs between training plates, most in "
                f"{drift.largest}; the threshold is {drift.threshold:.1f}"
            )
    else:
        log(f"drift: {models}: the cards say nothing of the negative controls in training; train again to compare")
    inputs = [("controls", controls), *((f"qc/{name}", path) for name, path in zip(plates, qcs, strict=True))]
    notes = made_from({}, [*inputs, *folds_in(models)])
    write_table(conform(pd.DataFrame(rows), DRIFT), output, notes, kind="drift")
