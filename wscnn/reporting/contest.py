"""What simpler methods and the novelty of cells call beside the network, for the report."""

from typing import Any

import numpy as np
import pandas as pd

from wscnn.core.progress import log
from wscnn.core.provenance import file_digest
from wscnn.core.tables import BASELINE, BASELINE_FOLDS, read_notes, read_table
from wscnn.core.wells import DISCOVERED
from wscnn.reporting.results import Results, concat

# Most perturbations that are listed.
_LISTED = 40
_NETWORK = "network"
#: Name of the calls of `wscnn novelty`, beside the simpler method `novelty`, which needs no encoder.
NOVEL_CELLS = "novel cells"
_CALLED_BY = ["both", "network alone", "other alone", "neither"]


def side_by_side(results: Results) -> pd.DataFrame:
    """Return the calls of samples by each other method beside the network's.

    Returns
    -------
    table
        One row per method, perturbation and trained phenotype: ``method, perturbation, phenotype, hit, effect, q``, the
        network's ``network_hit, network_effect, network_q``, and ``called`` (both, network alone, other alone,
        neither). Without a row where no other method was run on these hits, or nothing was trained.
    """
    names = ["perturbation", "phenotype", "hit", "effect", "q"]
    hits = results.hits[results.hits["role"] == "sample"] if "role" in results.hits else results.hits
    network = hits.loc[~hits["phenotype"].isin(DISCOVERED), names]
    others = []
    if (simpler := _baseline(results)) is not None:
        network = simpler.loc[simpler["method"] == _NETWORK, names]
        others.append(simpler.loc[simpler["method"] != _NETWORK, ["method", *names]])
    discovered = hits.loc[hits["phenotype"].isin(DISCOVERED), names].drop(columns="phenotype")
    others.append(discovered.merge(network[names[:2]], on="perturbation").assign(method=NOVEL_CELLS))
    beside = concat(others)
    if beside.empty:
        return beside
    own = network.rename(columns={name: f"network_{name}" for name in ("hit", "effect", "q")})
    table = beside.merge(own, on=["perturbation", "phenotype"])
    here, there = table["hit"].astype(bool), table["network_hit"].astype(bool)
    called = np.select([here & there, there, here], _CALLED_BY[:3], _CALLED_BY[3])
    return table.assign(called=called)


def make_contest(results: Results, beside: pd.DataFrame) -> dict[str, Any] | None:
    """Return what the report lists of other methods; None where none was run on these hits.

    Parameters
    ----------
    results
        The screen.
    beside
        Its `side_by_side`.

    Returns
    -------
    contest
        ``methods``, for each phenotype and method ``phenotype, method, auc`` (mean of the folds; None where not known),
        ``low, high`` (of the folds), ``n_hits`` and ``n_shared`` (hits that the network calls, too); ``names``, the
        methods; ``rows``, for each perturbation that any of them calls ``perturbation, phenotype`` and ``calls``: for
        each method None or a mapping ``hit, effect, q``; and ``n_more``, those that are not listed.
    """
    if beside.empty:
        return None
    own = beside.drop_duplicates(["perturbation", "phenotype"]).assign(method=_NETWORK)
    own = own.assign(**{name: own[f"network_{name}"] for name in ("hit", "effect", "q")})
    table = concat([own, beside]).sort_values("q", kind="stable")
    names = [_NETWORK, *(name for name in beside["method"].unique())]
    called = table[table["hit"].astype(bool)].sort_values(
        "method", key=lambda method: method != _NETWORK, kind="stable"
    )
    keys = list(zip(called["perturbation"], called["phenotype"], strict=True))
    of_network = {key for key, method in zip(keys, called["method"], strict=True) if method == _NETWORK}
    path = results.folder.table("baseline_folds")
    folds = read_table(path, BASELINE_FOLDS) if path.is_file() else pd.DataFrame(columns=list(BASELINE_FOLDS))
    methods = [
        _summary(phenotype, name, folds, called, of_network)
        for phenotype in sorted(table["phenotype"].unique())
        for name in names
    ]
    # The network's hits first, by rank, then those of the others.
    best = list(dict.fromkeys(keys))
    calls = {
        (row["perturbation"], row["phenotype"], row["method"]): {key: row[key] for key in ("hit", "effect", "q")}
        for row in table[table["perturbation"].isin({name for name, _ in best})].to_dict("records")
        if pd.notna(row["q"])
    }
    rows = [
        {
            "perturbation": perturbation,
            "phenotype": phenotype,
            "calls": [calls.get((perturbation, phenotype, name)) for name in names],
        }
        for perturbation, phenotype in best[:_LISTED]
    ]
    return {"methods": methods, "names": names, "rows": rows, "n_more": max(len(best) - _LISTED, 0)}


def _baseline(results: Results) -> pd.DataFrame | None:
    """Return the samples of the table of simpler methods; None where there is none for these hits."""
    path = results.folder.table("baseline")
    if not path.is_file():
        return None
    if read_notes(path).get("inputs", {}).get("hits") != file_digest(results.folder.table("hits")):
        log(f"report: {path} was made for other hits, so simpler methods are left out; run wscnn baseline again")
        return None
    return read_table(path, BASELINE).query("role == 'sample'")


def _summary(
    phenotype: str, name: str, folds: pd.DataFrame, called: pd.DataFrame, of_network: set[tuple[str, str]]
) -> dict[str, Any]:
    auc = folds.loc[folds["phenotype"].eq(phenotype) & folds["method"].eq(name), "auc"].dropna()
    own = called[called["phenotype"].eq(phenotype) & called["method"].eq(name)]
    keys = set(zip(own["perturbation"], own["phenotype"], strict=True))
    return {
        "phenotype": phenotype,
        "method": name,
        "auc": float(auc.mean()) if len(auc) else None,
        "low": float(auc.min()) if len(auc) else None,
        "high": float(auc.max()) if len(auc) else None,
        "n_hits": len(keys),
        "n_shared": len(keys & of_network),
    }
