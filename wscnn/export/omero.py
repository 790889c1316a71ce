"""Annotations for OMERO: a CSV for OMERO.tables, and the screen's metadata by MIHCSME.

MIHCSME is the minimum information about a high-content screening microscopy experiment
(https://fairdomhub.org/investigations/575). What only the laboratory knows is left empty.
"""

from pathlib import Path

import pandas as pd

from wscnn import __version__
from wscnn.export.finished import FinishedScreen
from wscnn.export.spreadsheet import write_workbook
from wscnn.plates.store import Plate

# Of each phenotype, in the annotations: columns of the wells, and of the perturbation's hit.
_OF_WELLS = ["score", "z", "p", "n_objects", "n_cells"]
_OF_HITS = ["hit", "rank", "effect", "q"]


def write(screen: FinishedScreen, path: Path) -> None:
    """Write ``annotations.csv`` and ``mihcsme.xlsx`` into the folder `path`."""
    table = _annotations(screen)
    with (path / "annotations.csv").open("w", encoding="utf-8", newline="") as file:
        # The first line gives each column's type, as `omero metadata populate` reads it.
        file.write(f"# header {','.join(_kind(name, table[name]) for name in map(str, table))}\n")
        table.to_csv(file, index=False, na_rep="NaN", lineterminator="\n")
    write_workbook(_mihcsme(screen), path / "mihcsme.xlsx")


def _annotations(screen: FinishedScreen) -> pd.DataFrame:
    """Return one row per plate and well: conditions, then scores and calls of each phenotype."""
    conditions = screen.conditions.drop(columns=["well_row", "well_column"], errors="ignore")
    table = conditions.rename(columns={"plate": "Plate", "well": "Well"})
    columns = [name for name in _OF_WELLS if name in screen.wells]
    called = screen.hits[["perturbation", "phenotype", "role", *(name for name in _OF_HITS if name in screen.hits)]]
    for phenotype in screen.phenotypes:
        own = screen.wells.loc[screen.wells["phenotype"] == phenotype, ["plate", "well", *columns]]
        own = own.rename(columns={"plate": "Plate", "well": "Well"} | {name: f"{phenotype}_{name}" for name in columns})
        table = table.merge(own, on=["Plate", "Well"], how="left", validate="one_to_one")
        hits = called[called["phenotype"] == phenotype].drop(columns="phenotype")
        hits = hits.rename(columns={name: f"{phenotype}_{name}" for name in _OF_HITS})
        table = table.merge(hits, on=["perturbation", "role"], how="left", validate="many_to_one")
        # Negative controls are not called.
        table[f"{phenotype}_hit"] = table[f"{phenotype}_hit"].eq(True).fillna(False).astype(bool)
    text = {str(name): column.fillna("") for name, column in table.items() if column.dtype == "str"}
    # OMERO's columns cannot be queried by names with spaces.
    return table.assign(**text).rename(columns=lambda name: "_".join(name.split()))


def _kind(name: str, column: pd.Series) -> str:
    if name in ("Plate", "Well"):
        return name.lower()
    if column.dtype == "bool":
        return "b"
    if pd.api.types.is_integer_dtype(column) and not column.isna().any():
        return "l"
    return "d" if pd.api.types.is_numeric_dtype(column) else "s"


def _mihcsme(screen: FinishedScreen) -> dict[str, pd.DataFrame]:
    """Return the sheets of the template, their first row a comment, as its readers expect."""
    wells = screen.conditions
    channels = _channels(screen)
    sites = screen.wells["n_fields"].max() if "n_fields" in screen.wells else None
    replicates = wells[wells["role"] == "sample"].groupby("perturbation")["plate"].nunique()
    specimen: dict[str, str] = {}
    for number, channel in enumerate(channels[:4], 1):
        specimen |= {f"Channel {number} label": channel, f"Channel {number} id": str(number)}
    positives = ", ".join(sorted(wells.loc[wells["role"] == "positive", "perturbation"].unique()))
    negatives = ", ".join(sorted(wells.loc[wells["role"] == "negative", "perturbation"].unique()))
    failed = screen.plates.loc[screen.plates["status"] == "failed", "plate"].nunique()
    return {
        "InvestigationInformation": _groups(
            "Investigation",
            {
                "DataOwner": dict.fromkeys(["First Name", "Last Name", "Institute", "E-Mail Address"], ""),
                "InvestigationInfo": {"Project ID": "", "Investigation Title": screen.name},
            },
        ),
        "StudyInformation": _groups(
            "Study",
            {
                "Study": {"Study Title": screen.name, "Study Description": ""},
                "Biosample": {"Biosample Organism": ""},
                "Library": {
                    "Library Experimental Conditions": f"Negative controls: {negatives}; positive: {positives}",
                    "Quality Control Description": f"{failed} plates failed by their controls",
                },
                "Protocols": {"HCS data analysis protocol": f"wscnn {__version__}"},
                "Plate": {"Plate type": ""},
            },
        ),
        "AssayInformation": _groups(
            "Assay",
            {
                "Assay": {
                    "Assay Title": screen.name,
                    "Assay Description": f"Phenotypes scored: {', '.join(screen.phenotypes)}",
                    "Assay number of biological replicates": str(int(replicates.median())) if len(replicates) else "",
                    "Number of plates": str(len(screen.plate_names)),
                },
                "ImageData": {
                    "Image number of channels": str(len(channels)) if channels else "",
                    "Image sites per well": "" if sites is None or pd.isna(sites) else str(int(sites)),
                },
                "Specimen": specimen,
            },
        ),
        "AssayConditions": _conditions(wells),
    }


def _channels(screen: FinishedScreen) -> list[str]:
    """Return the names of the channels: of a staged plate, else as the config names them."""
    store = screen.folder.plate(screen.plate_names[0])
    if store.is_dir():
        return [channel.name for channel in Plate(store).channels]
    return list((screen.config.get("acquisition") or {}).get("channels") or {})


def _groups(name: str, groups: dict[str, dict[str, str]]) -> pd.DataFrame:
    comment = [f"# {name} information: groups of keys and values"]
    rows = [("Annotation_groups", "Key", "Value")]
    rows += [(group, key, value) for group, values in groups.items() for key, value in values.items()]
    return pd.DataFrame(rows, columns=[*comment, "", " "])


def _conditions(wells: pd.DataFrame) -> pd.DataFrame:
    """Return the sheet of conditions, one row per plate and well."""
    named = {"plate": "Plate", "well": "Well", "perturbation": "Treatment", "dose": "Dose"}
    named |= {"role": "Role", "control_phenotype": "ControlPhenotype", "batch": "Batch"}
    table = wells.drop(columns=["well_row", "well_column"], errors="ignore").rename(columns=named)
    first = [name for name in named.values() if name in table]
    table = table[[*first, *(name for name in table if name not in first)]].astype(object)
    header = pd.DataFrame([list(table)], columns=list(table))
    rows = pd.concat([header, table], ignore_index=True)
    return rows.set_axis(
        ["# Assay conditions: one row per well", *(" " * i for i in range(1, len(table.columns)))], axis=1
    )
