"""Warnings about results: those of the stages as a table, and as short words beside a hit."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from wscnn.core.tables import WARNINGS, conform
from wscnn.network.card import Card
from wscnn.staging.scale import Scale

#: A fold whose AUC over held-out wells is below this has learned next to nothing.
LEAST_AUC = 0.6

#: Text in the column ``caution`` of hits for each kind of warning that is about all its rows, or those of one
#: phenotype.
SHORT = {
    "confounded": "class and column confounded",
    "edge_controls": "edge controls",
    "learned_nothing": "weak model",
    "most_new": "most perturbations differ",
    "plate_effects": "plate effects",
    "unlike_controls": "samples unlike controls",
}

_STAGES = ["check", "scale", "train", "hits"]


@dataclass(frozen=True)
class Caution:
    """A warning: something that makes results less trustworthy, but stops nothing.

    Attributes
    ----------
    code
        Its kind, for programs.
    message
        What is wrong and what to do; it holds no path, because it becomes part of a table.
    plate, fold, phenotype
        What it is about; empty or None where it is about all.
    """

    code: str
    message: str
    plate: str = ""
    fold: int | None = None
    phenotype: str = ""


def of_models(cards: Sequence[Card]) -> list[Caution]:
    """Return which folds of a model separate held-out wells hardly better than chance.

    Parameters
    ----------
    cards
        The folds' model cards.
    """
    advice = "check that the phenotype is visible at this mosaic.downsample, or add control wells"
    found = []
    for card in cards:
        for phenotype, figures in card.metrics.get("test", {}).items():
            if not card.learned.get(phenotype, True):
                message = (
                    f"the detector of fold {card.fold} distinguishes {phenotype} from negative no better than chance "
                    "in its own training wells; it scores no well, and its held-out control wells do not count; "
                    f"{advice}"
                )
            elif figures["well_auc"] < LEAST_AUC:
                message = (
                    f"the network of fold {card.fold} learned next to nothing: in held-out wells it distinguishes "
                    f"{phenotype} from negative with an AUC of {figures['well_auc']:.2f} (0.5 is chance); {advice}"
                )
            else:
                continue
            found.append(Caution("learned_nothing", message, fold=card.fold, phenotype=phenotype))
    return found


def of_drift(drift: pd.DataFrame) -> list[Caution]:
    """Return which plates have negative controls unlike those that the applied model was trained with.

    Parameters
    ----------
    drift
        One row per plate: ``plate, drift, drift_threshold, drift_of``.
    """
    return [
        Caution(
            "drift",
            f"negative controls of this plate are unlike those that the model was trained with: {row.drift:.1f} SDs "
            f"between training plates, most in {row.drift_of} (the threshold is {row.drift_threshold:.1f}); check "
            "focus, exposure, background and staining, and whether positive controls are still separated; otherwise "
            "train on plates like this one",
            plate=str(row.plate),
        )
        for row in drift[drift["drift"] > drift["drift_threshold"]].itertuples()
    ]


def of_scale(scale: Scale) -> list[Caution]:
    """Return which plates have cells of another size than the screen whose scale they share."""
    return [
        Caution(
            "other_scale",
            f"the typical cell of this plate is {scale.plates[plate]:g} raw pixels wide, that of the screen "
            f"{scale.diameter_px:g}, more than a third apart, but all plates are staged with mosaic.downsample: "
            f"{scale.downsample}; check whether the plate has another magnification, binning or cell line",
            plate=plate,
        )
        for plate in scale.disagreeing()
    ]


def tabulate(stage: str, cautions: Iterable[Caution]) -> pd.DataFrame:
    """Return warnings of a stage as a table with the columns `wscnn.core.tables.WARNINGS`."""
    rows = pd.DataFrame(
        [asdict(caution) for caution in cautions], columns=[name for name in WARNINGS if name != "stage"]
    )
    return conform(rows.assign(stage=stage), WARNINGS)


def gather(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return tables of warnings as one, in the order of the stages, each warning once."""
    every = conform(pd.concat(tables, ignore_index=True), WARNINGS).drop_duplicates()
    order = every.assign(stage=every["stage"].map({stage: n for n, stage in enumerate(_STAGES)}))
    order = order.sort_values(["stage", "code", "phenotype", "fold", "plate", "message"], na_position="first")
    return every.loc[order.index].reset_index(drop=True)


def in_short(warnings: pd.DataFrame, phenotype: str) -> list[str]:
    """Return the words of `SHORT` for the warnings that are about all rows of a phenotype in the table of hits."""
    about = warnings[warnings["phenotype"].isin(["", phenotype])]
    return [words for code, words in SHORT.items() if code in set(about["code"])]
