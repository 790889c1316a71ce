"""How far to trust a screen: ROC and calibration on held-out controls, and replicates against each other."""

import pandas as pd

from wscnn.reporting.results import Results, concat
from wscnn.statistics.calibration import reliability
from wscnn.statistics.roc import auc, roc_curve


def held_out_roc(controls: pd.DataFrame) -> pd.DataFrame:
    """Return the ROC of control wells that the scoring network never saw: ``phenotype, fold, step, fpr, tpr, auc``.

    One row per point of a curve. ``fold`` is ``all`` where all folds of a model trained elsewhere scored the wells.
    """
    curves: list[pd.DataFrame] = []
    held_out = controls[controls["score"].notna() & controls["held_out"]]
    for (phenotype, fold), scored in held_out.groupby(["phenotype", held_out["fold"].astype("str").fillna("all")]):
        positive = scored["role"].eq("positive").to_numpy()
        if positive.all() or not positive.any():
            continue
        scores = scored["score"].to_numpy()
        value = auc(scores[~positive], scores[positive])
        curves.append(roc_curve(scores, positive).assign(phenotype=str(phenotype), fold=str(fold), auc=value))
    return concat(curves)


def calibration(results: Results) -> pd.DataFrame:
    """Return how often control fields of a predicted probability come from positive wells.

    Fields are those of control wells that the scoring network never saw, in ten groups of equal size by prediction.
    Fields that an earlier version scored have no probability.

    Returns
    -------
    table
        One row per group: ``phenotype, predicted`` (mean), ``observed`` (share from positive wells), ``n``.
    """
    tables = []
    for phenotype, own in results.held_out_fields.dropna(subset="probability").groupby("phenotype"):
        table = reliability(own["probability"].to_numpy(), own["role"].eq("positive").to_numpy())
        tables.append(table.assign(phenotype=str(phenotype)).drop(columns="group"))
    return concat(tables)


def replicate_pairs(wells: pd.DataFrame) -> pd.DataFrame:
    """Return pairs of wells of one perturbation: ``phenotype, perturbation, role, z1, z2, well1, well2``.

    Wells are taken in turn from the plates, so that a pair is on two plates where possible; no well is in two pairs.
    """
    key = ["phenotype", "perturbation", "role"]
    usable = wells[wells["role"].isin(["sample", "positive"]) & wells["z"].notna() & wells["used"]]
    usable = usable.assign(turn=usable.groupby([*key, "plate"]).cumcount(), name=usable["plate"] + " " + usable["well"])
    usable = usable.sort_values([*key, "turn", "plate", "well"])
    number = usable.groupby(key).cumcount()
    usable = usable.assign(pair=number // 2)[[*key, "pair", "z", "name"]]
    pairs = usable[number % 2 == 0].merge(usable[number % 2 == 1], on=[*key, "pair"], suffixes=("1", "2"))
    return pairs.rename(columns={"name1": "well1", "name2": "well2"}).drop(columns="pair")
