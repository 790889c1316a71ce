"""What a layout allows: the smallest p each perturbation can reach, before anything runs."""

from typing import Any

import numpy as np
import pandas as pd

from wscnn.core.errors import listed
from wscnn.core.wells import plate_format
from wscnn.statistics.cautions import Caution
from wscnn.statistics.conformal import _cells, choose_null
from wscnn.statistics.doses import dose_cautions
from wscnn.statistics.layout_positions import position_cautions
from wscnn.statistics.normalize import NEED_CONTROLS, smallest_rest


def smallest_p(layout: pd.DataFrame, hits: dict[str, Any]) -> pd.Series:
    """Return the smallest p-value that each sample perturbation of a layout can reach, were every well scored.

    Parameters
    ----------
    layout
        ``plate, well, perturbation, role, phenotype``, one row per well.
    hits
        The config's section ``hits``, complete.

    Returns
    -------
    p
        Indexed by perturbation.
    """
    plate, plates = pd.factorize(layout["plate"], sort=True)
    n_negative = np.bincount(plate[layout["role"] == "negative"], minlength=len(plates))
    if hits["normalize"] in NEED_CONTROLS:
        n_negative[n_negative < hits["min_controls"]] = 0
    samples = (layout["role"] == "sample").to_numpy() & (
        (n_negative[plate] > 0) if hits["normalize"] in NEED_CONTROLS else True
    )
    names = layout.loc[layout["role"] == "sample", "perturbation"].unique()
    number = pd.Index(names).get_indexer(layout["perturbation"])
    choice = choose_null(
        _cells(number[samples], plate[samples]),
        n_negative,
        smallest_rest(hits["normalize"]),
        len(names) * _n_phenotypes(layout),
        hits["fdr"],
        hits["compare_with"],
    )
    p = choice["smallest_p"].reindex(range(len(names))).fillna(1.0)
    return pd.Series(p.to_numpy(), index=pd.Index(names, name="perturbation"), name="smallest_p").sort_index()


def layout_cautions(layout: pd.DataFrame, hits: dict[str, Any]) -> list[Caution]:
    """Return cautions about a layout: what cannot be called, and what cannot be distinguished from a hit.

    Parameters
    ----------
    layout
        ``plate, well, well_row, well_column, perturbation, role, phenotype``, one row per well.
    hits
        The config's section ``hits``, complete.
    """
    return [
        *reachable(layout, hits),
        *_alike(layout),
        *_few_replicates(layout),
        *_edge_controls(layout),
        *position_cautions(layout),
        *dose_cautions(layout),
    ]


def reachable(layout: pd.DataFrame, hits: dict[str, Any]) -> list[Caution]:
    """Return cautions about perturbations that a layout makes impossible to call.

    Parameters
    ----------
    layout, hits
        As for `layout_cautions`.
    """
    warnings: list[Caution] = []
    p = smallest_p(layout, hits)
    tests = len(p) * _n_phenotypes(layout)
    if len(p) == 0:
        return [Caution("no_samples", "no perturbation can be called, because no well has role sample")]
    fdr = hits["fdr"]
    # With R hits at its smallest p, a perturbation is called when that p is at most fdr R / tests.
    needed = np.ceil(p / fdr * tests - 1e-9)
    if (needed > tests).all():
        warnings.append(
            Caution(
                "unreachable_p",
                f"no perturbation can be called at a false discovery rate of {fdr:g}, whatever the scores: the "
                f"smallest p-value that any can reach is {p.min():.2g}, in {tests} tests; add negative controls or "
                "replicates",
            )
        )
    elif (needed > tests).any():
        worst = p[needed > tests]
        warnings.append(
            Caution(
                "unreachable_p",
                f"{len(worst)} of {len(p)} perturbations can never be called at a false discovery rate of {fdr:g}: "
                f"their smallest p-value is {worst.min():.2g}; add negative controls or replicates",
            )
        )
    elif (needed > 1).any():
        warnings.append(
            Caution(
                "not_alone",
                f"{int((needed > 1).sum())} of {len(p)} perturbations cannot be called alone: their smallest p-value "
                f"is {p[needed > 1].min():.2g}, which in {tests} tests passes a false discovery rate of {fdr:g} only "
                f"where at least {int(needed.max())} are hits; more negative controls or replicates lower it",
            )
        )
    if hits["normalize"] in NEED_CONTROLS:
        warnings += _few_controls(layout, hits["min_controls"])
    if hits["normalize"] == "bscore":
        warnings += _uncorrected(layout)
    return warnings


def _few_controls(layout: pd.DataFrame, least: int) -> list[Caution]:
    """Return which plates have too few negative controls to count, however well they are scored."""
    negatives = (layout["role"] == "negative").groupby(layout["plate"]).sum()
    few = negatives[negatives < least]
    if few.empty:
        return []
    named = listed((f"'{plate}' ({n})" for plate, n in few.items()), 5)
    return [
        Caution(
            "few_controls",
            f"fewer negative controls than hits.min_controls ({least}) on plate {named}: its wells get scores "
            "but are kept out of the calls; add negative controls there",
        )
    ]


def _n_phenotypes(layout: pd.DataFrame) -> int:
    return max(layout.loc[layout["role"] == "positive", "phenotype"].nunique(), 1)


def _alike(layout: pd.DataFrame) -> list[Caution]:
    """Return which perturbations differ by case alone, and so do not count as replicates."""
    names = pd.Series(layout["perturbation"].unique())
    folded = names.str.casefold()
    twins = folded.duplicated(keep=False)
    groups = [group.tolist() for _, group in names[twins].groupby(folded[twins])]
    if not groups:
        return []
    pairs = listed((" and ".join(f"'{name}'" for name in group) for group in groups), 5)
    return [Caution("alike_names", f"perturbations {pairs} differ by case alone and count as different ones")]


def _few_replicates(layout: pd.DataFrame) -> list[Caution]:
    counts = layout.loc[layout["role"] == "sample", "perturbation"].value_counts()
    single = int((counts == 1).sum())
    if not single:
        return []
    return [
        Caution(
            "few_replicates",
            f"{single} of {len(counts)} perturbations have one well only; without replicates a bad well cannot be "
            "distinguished from a hit",
        )
    ]


def _edge_controls(layout: pd.DataFrame) -> list[Caution]:
    """Return which classes of controls are only at the plate's left and right edges."""
    widths = {
        plate: plate_format(list(zip(rows["well_row"], rows["well_column"], strict=True)))[1]
        for plate, rows in layout.groupby("plate")
    }
    from_right = layout["plate"].map(widths) - 1 - layout["well_column"]
    at_edge = (layout["well_column"] < 2) | (from_right < 2)
    # Tables of a user need not say which phenotype their positive controls show.
    classes = layout["phenotype"].where((layout["role"] == "positive") & (layout["phenotype"] != ""), layout["role"])
    controls = layout["role"].isin(["negative", "positive"])
    return [
        Caution(
            "edge_controls",
            f"all control wells of class {name} are in the two outermost columns of a side: effects of the plate's "
            "edge on cells may look like the phenotype; see the plate heat maps of the report",
            phenotype="" if name in ("negative", "positive") else str(name),
        )
        for name in sorted(set(classes[controls]))
        if at_edge[controls & (classes == name)].all()
    ]


def _uncorrected(layout: pd.DataFrame) -> list[Caution]:
    """Return that negative controls are in columns without samples, whose effects a B-score cannot estimate."""
    samples = layout[layout["role"] == "sample"].groupby("plate")["well_column"].agg(set)
    negatives = layout[layout["role"] == "negative"]
    away = [
        column not in samples.get(plate, ())
        for plate, column in zip(negatives["plate"], negatives["well_column"], strict=True)
    ]
    if not any(away):
        return []
    return [
        Caution(
            "uncorrected_controls",
            f"{sum(away)} of {len(negatives)} negative controls are in columns without a sample well, whose effect a "
            "B-score cannot estimate and takes as 0: if those columns differ, p-values are biased; spread the "
            "controls",
        )
    ]
