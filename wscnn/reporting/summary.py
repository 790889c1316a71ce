"""What the report's first paragraphs say: counts, hits by name, how they were called, and what to look at first."""

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd

from wscnn.core.wells import DISCOVERED
from wscnn.reporting.results import Results, failed
from wscnn.reporting.validation import replicate_pairs

#: Warnings that the page shows at the top in other words: failed plates, with a link to each.
_SHOWN_ABOVE = ["plate_failed"]
#: Most warnings at the top of the page; some kinds have one for each plate.
_SHOWN_WARNINGS = 12
# Fewest pairs of replicates to report a correlation.
_FEW_PAIRS = 5


def summarise(results: Results, roc: pd.DataFrame, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the report's first paragraphs say: counts, hits by name, how they are called, and what failed.

    Parameters
    ----------
    results, roc
        The screen, and its `held_out_roc`.
    settings
        The config's section ``hits``.
    """
    wells, hits = results.wells, results.hits
    places = wells.drop_duplicates(["plate", "well"])
    roles = places["role"].value_counts()
    samples = hits[hits["role"] == "sample"] if "role" in hits else hits
    called = samples[samples["hit"].astype("bool")].sort_values("rank")
    card = results.cards[0] if results.cards else None
    pairs = replicate_pairs(wells)
    warnings = _warnings(results)
    return {
        "n_plates": places["plate"].nunique(),
        "n_wells": len(places),
        "roles": {role: int(roles.get(role, 0)) for role in ("negative", "positive", "sample", "exclude")},
        "n_perturbations": samples["perturbation"].nunique(),
        "n_fields": int(places["n_fields"].sum()),
        "n_fields_used": int(places["n_fields_used"].sum()),
        "flags": _flag_counts(results.quality),
        "fdr": settings["fdr"],
        "normalize": settings["normalize"],
        "calibrated": _calibrated(results.plates),
        "n_tests": int(samples["q"].notna().sum()),
        "nulls": sorted(set(samples["null_kind"].dropna()) - {""}) if "null_kind" in samples else [],
        "held_out": bool(results.controls["held_out"].any()),
        "applied": card is not None and card.screen != results.screen,
        "unscored": int(wells.groupby(["plate", "well"])["score"].count().eq(0).sum()),
        "n_hits": called["perturbation"].nunique(),
        "hits": list(zip(called["perturbation"], called["phenotype"], strict=True)),
        "auc": {str(phenotype): float(auc) for phenotype, auc in _mean_auc(roc).items()},
        "n_pairs": len(pairs),
        "agreement": _agreement(pairs),
        "card": card,
        "n_folds": len(results.cards),
        "trained": [name for name in results.phenotypes if name not in DISCOVERED],
        "discovered": [name for name in results.phenotypes if name in DISCOVERED],
        "failed": _failed_plates(results.plates),
        "all_failed": bool(failed(results.plates).all()),
        "n_suspects": len(results.suspects),
        "warnings": warnings[:_SHOWN_WARNINGS],
        "n_more_warnings": max(len(warnings) - _SHOWN_WARNINGS, 0),
    }


def _calibrated(plates: pd.DataFrame) -> list[dict[Hashable, Any]]:
    """Return for each phenotype how its scores were normalised, why, and how its controls compare."""
    names = ["phenotype", "normalize", "normalize_reason", "controls_below", "auc_phenotype"]
    names += [f"auc_{group}{part}" for group in ("edge", "side", "plate") for part in ("", "_chance")]
    # Tables of an earlier version lack these.
    table = plates.reindex(columns=names).dropna(subset="normalize").drop_duplicates()
    return [dict(zip(names, row, strict=True)) for row in table.itertuples(index=False)]


def _warnings(results: Results) -> list[dict[str, str]]:
    """Return the warnings at the top of the page: what each is about, and its message."""
    shown = results.warnings[~results.warnings["code"].isin(_SHOWN_ABOVE)]
    about = [
        ", ".join(text for text in (row["plate"] and f"Plate {row['plate']}", row["phenotype"]) if text)
        for row in shown.to_dict("records")
    ]
    return [
        {"stage": stage, "about": of, "message": message}
        for stage, of, message in zip(shown["stage"], about, shown["message"], strict=True)
    ]


def _mean_auc(roc: pd.DataFrame) -> Mapping[Any, float]:
    if roc.empty:
        return {}
    return roc.drop_duplicates(["phenotype", "fold"]).groupby("phenotype")["auc"].mean().to_dict()


def _agreement(pairs: pd.DataFrame) -> dict[str, float]:
    """Return for each phenotype the correlation of sample wells' z with their replicates'; none from few pairs."""
    samples = pairs[pairs["role"] == "sample"]
    return {
        str(phenotype): float(own["z1"].corr(own["z2"]))
        for phenotype, own in samples.groupby("phenotype")
        if len(own) >= _FEW_PAIRS
    }


def _flag_counts(quality: pd.DataFrame) -> list[tuple[str, int]]:
    """Return how many of the fields that quality control dropped carry each flag, the most frequent first."""
    if "flags" not in quality:
        return []
    flags = quality.loc[~quality["used"].astype("bool"), "flags"].fillna("").str.split(",").explode()
    counts = flags[flags != ""].value_counts()
    return [(str(flag), int(n)) for flag, n in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))]


def _failed_plates(plates: pd.DataFrame) -> list[tuple[str, str]]:
    out = plates[failed(plates)]
    reasons = out["reasons"] if "reasons" in out else pd.Series("", index=out.index)
    return list(zip(out["plate"], reasons.fillna(""), strict=True))
