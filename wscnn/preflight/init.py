"""Start a screen's folder: config, table of plates, and a layout to fill in."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml

from wscnn.core.atomic import atomic_path
from wscnn.core.config import complete_config
from wscnn.core.errors import UserError, listed
from wscnn.preflight.recognition import LISTED, Found, absolute, as_tsv, safe_name

#: Columns of a layout that `wscnn check` knows.
LAYOUT = ("plate", "well", "perturbation", "role", "phenotype")


def make_layout(
    found: Found, plate_map: pd.DataFrame | None, negative: Sequence[str] = (), positive: Sequence[str] = ()
) -> tuple[pd.DataFrame, list[str]]:
    """Return the layout, with one row per well that has images, and a sentence each on what it leaves open.

    Parameters
    ----------
    found
        What was found of the images.
    plate_map
        The lab's own map (`wscnn.preflight.plate_map.read_plate_map`); without one, perturbations and roles are left
        empty, to be filled in.
    negative, positive
        Perturbations of the map that are controls; where some are given, the others are samples.

    Raises
    ------
    UserError
        When the map and the images do not match, or a control is not in the map.
    """
    if plate_map is None:
        if negative or positive:
            raise UserError("controls are named by a perturbation of a plate map; give --plate-map, too")
        rows = [(plate, well, "", "", "") for plate, wells in found.wells.items() for well in wells]
        layout = pd.DataFrame(rows, columns=list(LAYOUT))
        return _once_for_all(layout, len(found.plates)), ["fill in perturbation and role of every well"]
    known = sorted(set(plate_map["perturbation"]))
    if unknown := [name for name in (*negative, *positive) if name not in known]:
        raise UserError(f"the plate map has no perturbation {listed(unknown)}; it has {listed(known)}")
    plate_map = plate_map.assign(plate=[safe_name(name, "plate") if name else "" for name in plate_map["plate"]])
    if strange := sorted(set(plate_map["plate"]) - {"", *found.plates}):
        raise UserError(
            f"the plate map names plate {listed(strange, 5)}, of which there are no images; the plates are "
            f"{listed(found.plates, 5)}: name them alike, or leave out the name where the map holds for every plate"
        )
    by_well = {(row["plate"], row["well"]): row for row in plate_map.to_dict("records")}
    entries, unmapped = [], []
    for plate, wells in found.wells.items():
        for well in wells:
            entry = by_well.get((plate, well), by_well.get(("", well)))
            if entry is None:
                unmapped.append(well)
                entry = {"perturbation": "unmapped", "role": "exclude"}
            entries.append({**entry, "plate": plate, "well": well})
    further = [name for name in plate_map.columns if name not in LAYOUT]
    layout = pd.DataFrame(entries).reindex(columns=[*LAYOUT, *further]).fillna("")
    open_ = layout["role"] == ""
    for role, names in (("negative", negative), ("positive", positive)):
        layout.loc[open_ & layout["perturbation"].isin(names), "role"] = role
    if negative or positive:
        layout.loc[layout["role"] == "", "role"] = "sample"
    notes = []
    imaged = {(name, well) for plate, wells in found.wells.items() for well in wells for name in (plate, "")}
    without = [well for plate, well in by_well if (plate, well) not in imaged]
    if without:
        notes.append(f"of {len(without)} wells of the plate map there are no images ({listed(without, 5)})")
    if unmapped:
        notes.append(f"{len(unmapped)} wells are not in the plate map and get role exclude ({listed(unmapped, 5)})")
    if (layout["role"] == "").any():
        notes.append("fill in the role of every well, or give --negative and --positive with names of the plate map")
    return _once_for_all(layout, len(found.plates)), notes


def _once_for_all(layout: pd.DataFrame, n_plates: int) -> pd.DataFrame:
    """Return a layout that is the same on every plate once, for all of them."""
    plates = [rows.drop(columns="plate").reset_index(drop=True) for _, rows in layout.groupby("plate", sort=False)]
    same = len(plates) == n_plates and all(rows.equals(plates[0]) for rows in plates)
    return plates[0].assign(plate="")[list(layout.columns)] if same else layout


def start_screen(folder: Path, found: Found, layout: pd.DataFrame) -> list[str]:
    """Write a screen's folder and return the names of its files.

    Raises
    ------
    UserError
        When the folder holds files of these names, or is inside the images.
    """
    folder = absolute(folder)
    plates = pd.DataFrame({"plate": list(found.plates), "images": map(str, found.plates.values()), "batch": ""})
    tables = {"plates.tsv": plates, "layout.tsv": layout}
    if found.table is not None:
        tables[LISTED] = found.table
    names = [*tables, "config.yaml"]
    if present := [name for name in names if (folder / name).exists()]:
        raise UserError(f"{folder}: holds {', '.join(present)} already, which stay as they are; give another folder")
    if inside := [path for path in found.plates.values() if path in (folder, *folder.parents)]:
        raise UserError(f"{folder}: is inside the images, {inside[0]}; give a folder outside")
    text = _config(folder, found)
    complete_config(yaml.safe_load(text), str(folder / "config.yaml"))
    # The config comes last: what has one is complete.
    for name, content in [*((name, as_tsv(table)) for name, table in tables.items()), ("config.yaml", text)]:
        with atomic_path(folder / name) as partial:
            partial.write_text(content)
    return names


def _config(folder: Path, found: Found) -> str:
    """Return the text of a screen's config."""
    keys = {key: value for key, value in found.acquisition.items() if key not in ("channels", "nuclei")}
    if found.table is not None:
        keys["table"] = str(folder / LISTED)
    lines = [f"  {key}: {_quoted(value)}" for key, value in keys.items()]
    lines.append("  channels: # the instrument's channel: its name from here on; others are not staged")
    lines += [f"    {_quoted(key)}: {_quoted(name)}" for key, name in found.acquisition["channels"].items()]
    nuclei = found.acquisition["nuclei"]
    lines.append(
        f"  nuclei: {_quoted(nuclei)}" if nuclei else "  # nuclei: DNA # the channel in which nuclei are counted"
    )
    lines.append("  # pixel_size_um: 0.65 # of a raw pixel, where the files do not give it")
    return f"""\
# Written by wscnn init. The docs explain every key, with its unit and default (config/README.md leads there).
# Paths are absolute, so that the screen can be checked and run from any folder; correct them after moving it.

screen: {_quoted(safe_name(folder.name, "screen"))} # results go to <results>/<screen>/
plates: {_quoted(folder / "plates.tsv")} # one row per plate: plate, images, batch
layout: {_quoted(folder / "layout.tsv")} # one row per well: plate, well, perturbation, role, phenotype
results: {_quoted(folder / "results")}

acquisition:
{chr(10).join(lines)}

mosaic: {{downsample: auto}} # from the size of the cells, or raw pixels per mosaic pixel along an axis

hits: {{normalize: auto, fdr: 0.05}}
"""


def _quoted(value: object) -> str:
    """Return text in YAML's single quotes, in which a backslash is a backslash."""
    return "'" + str(value).replace("'", "''") + "'"
