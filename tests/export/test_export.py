"""Exports of a finished screen, each read back by the tool that it is for."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openpyxl
import pandas as pd
import pytest
import tifffile
import zarr
from click.testing import CliRunner

from wscnn.cli import main
from wscnn.core.errors import UserError
from wscnn.core.tables import TABLES, read_table
from wscnn.export import anndata
from wscnn.export.export import RECORD, export
from wscnn.export.targets import TARGETS
from wscnn.plates.store import Plate

ReadBy = Callable[..., Any]


@pytest.fixture(scope="session")
def exported(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that exports the screen to a target, once."""
    made: dict[str, Path] = {}
    folder = tmp_path_factory.mktemp("exports")

    def get(target: str) -> Path:
        if target not in made:
            output = folder / f"{target}{TARGETS[target].suffix}"
            export(results, target, output)
            made[target] = output
        return made[target]

    return get


def files(folder: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder, or of a file."""
    paths = [folder] if folder.is_file() else [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


# What every export has in common.


def test_the_command_line_lists_every_target_and_exports(results: Path, tmp_path: Path) -> None:
    text = CliRunner().invoke(main, ["export", "--help"]).output
    assert all(f"\n  {name} " in text for name in TARGETS)
    done = CliRunner().invoke(main, ["export", str(results), "--to", "csv", "--output", str(tmp_path / "tables")])
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "tables" / RECORD).read_text())
    assert (record["target"], record["screen"]) == ("csv", "made-up <b>screen</b>")


@pytest.mark.parametrize("target", sorted(set(TARGETS) - {"xlsx", "omero"}))
def test_equal_results_give_equal_exports(target: str, results: Path, exported, tmp_path: Path) -> None:
    export(results, target, tmp_path / "again")
    assert files(tmp_path / "again") == files(exported(target))


def test_an_existing_output_is_kept_unless_it_is_an_export_that_may_be_overwritten(
    results: Path, tmp_path: Path
) -> None:
    output = tmp_path / "tables"
    output.mkdir()
    (output / "thesis.txt").write_text("mine")
    for overwrite, says in ((False, "exists already"), (True, f"not an earlier export .no {RECORD}")):
        with pytest.raises(UserError, match=says):
            export(results, "csv", output, overwrite=overwrite)
    assert (output / "thesis.txt").read_text() == "mine"
    export(results, "csv", tmp_path / "other")
    export(results, "anndata", tmp_path / "other", overwrite=True)
    assert not (tmp_path / "other" / "hits.csv").exists()


@pytest.mark.parametrize("where", [".", "hits.parquet", "exports/tables", ".."])
def test_an_output_in_or_around_the_results_is_refused(results: Path, where: str) -> None:
    with pytest.raises(UserError, match="belong to the workflow"):
        export(results, "csv", results / where if where != "hits.parquet" else results / "new", overwrite=True)
    assert (results / "hits.parquet").is_file()


@pytest.mark.parametrize(("target", "name"), [("xlsx", "hits"), ("csv", "hits.csv"), ("anndata", "screen.h5ad")])
def test_an_output_with_the_wrong_ending_is_refused_before_anything_is_read(
    target: str, name: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="--output"):
        export(tmp_path / "nowhere", target, tmp_path / name)


def test_unfinished_results_are_refused_with_what_is_missing(results: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give the results folder of a finished screen"):
        export(tmp_path / "nowhere", "csv", tmp_path / "out")
    folder = tmp_path / "results" / "screen"
    shutil.copytree(results, folder, ignore=shutil.ignore_patterns("plates", "model"))
    with pytest.raises(UserError, match=r"one screen, such as .*results/screen"):
        export(folder.parent, "csv", tmp_path / "out")
    (folder / "objects" / "P001.parquet").unlink()
    with pytest.raises(UserError, match=r"P001 have no table of detected cells .* run `wscnn run CONFIG`"):
        export(folder, "anndata", tmp_path / "out")
    (folder / "objects" / "P001.parquet").write_bytes(b"PAR1 but not whole")
    with pytest.raises(UserError, match=r"P001.parquet: not a readable Parquet file"):
        export(folder, "anndata", tmp_path / "out")
    (folder / "plates.parquet").unlink()
    with pytest.raises(UserError, match=r"plates.parquet missing.; finish the screen with `wscnn run CONFIG`"):
        export(folder, "csv", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ["fractal", "crops"])
def test_exports_of_images_name_the_plates_that_are_gone(target: str, results: Path, tmp_path: Path) -> None:
    folder = tmp_path / "screen"
    shutil.copytree(results, folder, ignore=shutil.ignore_patterns("P001.zarr"))
    with pytest.raises(UserError, match=r"images of P001 are not there"):
        export(folder, target, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Tables for people.


def test_a_workbook_holds_hits_meanings_wells_and_plates(results: Path, exported) -> None:
    book = openpyxl.load_workbook(exported("xlsx"))
    assert book.sheetnames == ["hits", "columns", "wells", "plates"]
    for name in ("hits", "wells", "plates"):
        table = read_table(results / f"{name}.parquet")
        rows = list(book[name].iter_rows(values_only=True))
        assert list(rows[0]) == list(table)
        assert len(rows) - 1 == len(table)
    hits = read_table(results / "hits.parquet")
    header, first = list(book["hits"].iter_rows(max_row=2))
    cells = {cell.value: value for cell, value in zip(header, first, strict=True)}
    assert cells["effect"].data_type == "n" and cells["effect"].value == pytest.approx(hits["effect"].iloc[0])
    assert cells["hit"].value == bool(hits["hit"].iloc[0]) and cells["n_wells"].value == hits["n_wells"].iloc[0]
    meanings = {(row[0], row[1]): row[3] for row in book["columns"].iter_rows(min_row=2, values_only=True)}
    assert set(meanings) >= {("hits", name) for name in hits}
    assert meanings["hits", "effect"] == TABLES["hits"]["effect"].meaning


def test_no_text_of_a_workbook_is_a_formula_and_none_is_changed(results: Path, exported) -> None:
    book = openpyxl.load_workbook(exported("xlsx"))
    column = list(read_table(results / "hits.parquet")).index("perturbation") + 1
    cells = [row[0] for row in book["hits"].iter_rows(min_row=2, min_col=column, max_col=column)]
    assert [cell.value for cell in cells] == read_table(results / "hits.parquet")["perturbation"].tolist()
    assert {cell.data_type for cell in cells} == {"s"}
    assert {"=1+1", "-siRNA", "@sum"} <= {cell.value for cell in cells if cell.quotePrefix}


def test_csv_files_hold_the_same_rows_and_no_formula(results: Path, exported) -> None:
    for name in ("hits", "wells", "plates"):
        table = read_table(results / f"{name}.parquet")
        found = pd.read_csv(exported("csv") / f"{name}.csv", keep_default_na=False, na_values=[""])
        assert len(found) == len(table) and list(found) == list(table)
    hits, found = read_table(results / "hits.parquet"), pd.read_csv(exported("csv") / "hits.csv")
    assert np.allclose(found["effect"], hits["effect"], equal_nan=True)
    named = dict(zip(hits["perturbation"], found["perturbation"], strict=True))
    assert [named[name] for name in ("=1+1", "-siRNA", "@sum")] == ["'=1+1", "'-siRNA", "'@sum"]
    assert "ünïcode µ π 细胞 🔬" in (exported("csv") / "hits.csv").read_text(encoding="utf-8")


# Profiles.


def test_anndata_reads_one_observation_per_cell(
    results: Path, exported, objects: pd.DataFrame, read_by: ReadBy
) -> None:
    code = """
import sys, json, anndata
a = anndata.read_zarr(sys.argv[1])
print(json.dumps({"shape": a.shape, "var": list(a.var_names), "unique": a.obs_names.is_unique,
                  "obs": json.loads(a.obs.to_json(orient="index")), "screen": a.uns["screen"],
                  "x": json.loads(a.to_df().astype(float).to_json(orient="index"))}))
"""
    found = read_by("ngio", code, exported("anndata"))
    assert found["shape"] == [len(objects), 7] and found["unique"]
    assert {own["conc_uM"] for own in found["obs"].values()} == {0.5}
    assert found["var"][:2] == ["area_px", "height_px"] and found["screen"] == "made-up <b>screen</b>"
    wells = read_table(results / "wells.parquet").set_index(["plate", "well", "phenotype"])
    for cell in objects.sample(5, random_state=0).to_dict("records"):
        name = f"{cell['plate']}/{cell['well']}/{cell['phenotype']}/{cell['object']}"
        own, x = found["obs"][name], found["x"][name]
        well = wells.loc[(cell["plate"], cell["well"], cell["phenotype"])]
        assert (own["perturbation"], own["role"], own["field"]) == (well["perturbation"], well["role"], cell["field"])
        assert own["score"] == pytest.approx(cell["score"]) and x["area_px"] == cell["area_px"]
        measured = cell["plate"] == "P000"
        assert x["encoder_0001"] == (-cell["object"] if measured and cell["phenotype"] == "novelty" else None)
        assert x["nucleus_solidity"] == (pytest.approx(cell["y"] / 1000, rel=1e-5) if measured else None)


def test_anndata_is_the_same_however_many_blocks_it_is_written_in(
    results: Path, exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = zarr.open_group(exported("anndata"), mode="r")
    monkeypatch.setattr(anndata, "_ROWS", 50)
    export(results, "anndata", tmp_path / "blocks")
    blocks = zarr.open_group(tmp_path / "blocks", mode="r")
    assert whole["X"].shape[0] > 150 and whole["X"].chunks[0] > 150 and blocks["X"].chunks[0] == 50
    for name in ("X", "obs/_index", "obs/score", "obs/perturbation/codes", "obs/perturbation/categories"):
        np.testing.assert_array_equal(whole[name][:], blocks[name][:])


def test_anndata_holds_wells_where_no_cell_was_detected(results: Path, tmp_path: Path, read_by: ReadBy) -> None:
    folder = tmp_path / "screen"
    shutil.copytree(results, folder, ignore=shutil.ignore_patterns("plates", "objects", "features", "cells"))
    export(folder, "anndata", tmp_path / "wells.zarr")
    code = """
import sys, json, anndata
a = anndata.read_zarr(sys.argv[1])
print(json.dumps([a.n_obs, a.obs_names[5], float(a[5, "score"].X[0, 0]), a.obs["perturbation"].iloc[5]]))
"""
    wells = read_table(results / "wells.parquet")
    well = wells.iloc[5]
    name = f"{well['plate']}/{well['well']}/{well['phenotype']}"
    score = pytest.approx(well["score"], rel=1e-6)
    assert read_by("ngio", code, tmp_path / "wells.zarr") == [len(wells), name, score, well["perturbation"]]


def test_pycytominer_aggregates_and_normalizes_the_profiles(exported, objects: pd.DataFrame, read_by: ReadBy) -> None:
    code = """
import sys, json, pandas as pd
from pycytominer import aggregate, normalize
from pycytominer.cyto_utils import infer_cp_features
cells = pd.read_parquet(sys.argv[1] + "/cells.parquet")
nuclei = pd.read_parquet(sys.argv[1] + "/nuclei.parquet")
wells = pd.read_parquet(sys.argv[1] + "/wells.parquet")
whole = aggregate(cells[cells["Metadata_phenotype"] == "mitotic"], strata=["Metadata_Plate", "Metadata_Well"])
scaled = normalize(wells, features="infer", image_features=True, samples="Metadata_role == 'negative'")
row = whole[(whole["Metadata_Plate"] == sys.argv[2]) & (whole["Metadata_Well"] == sys.argv[3])].iloc[0]
print(json.dumps({"n": [len(cells), len(nuclei), len(wells)], "features": infer_cp_features(cells),
                  "area": float(row["Cells_area_px"]), "rows": len(scaled),
                  "score": float(scaled.loc[scaled["Metadata_role"] == "negative", "Image_score"].mean())}))
"""
    mitotic = objects[objects["phenotype"] == "mitotic"]
    plate, well = mitotic[["plate", "well"]].iloc[0]
    found = read_by("crate", code, exported("cytotable"), plate, well)
    nuclei = objects[objects["plate"] == "P000"].drop_duplicates(["well", "y", "x"])
    assert found["n"] == [len(objects), len(nuclei), 96] and found["rows"] == 96
    assert found["features"][0] == "Cells_area_px" and found["features"][-1] == "Nuclei_solidity"
    of_well = mitotic[(mitotic["plate"] == plate) & (mitotic["well"] == well)]
    assert found["area"] == pytest.approx(of_well["area_px"].median()) and abs(found["score"]) < 1e-6


# OME-Zarr, OMERO, RO-Crate.


def test_ngio_reads_feature_and_condition_tables(
    results: Path, exported, objects: pd.DataFrame, read_by: ReadBy
) -> None:
    code = """
import sys, json, ngio
plate = ngio.open_ome_zarr_plate(sys.argv[1], mode="r")
conditions = plate.get_table("condition").dataframe
row, column = sys.argv[2][0], sys.argv[2][1:]
image = plate.get_image(row, column, "0")
table = image.get_table("mitotic")
own = conditions[(conditions["row"] == row) & (conditions["column"] == column)].iloc[0]
print(json.dumps({"wells": len(conditions), "perturbation": own["perturbation"], "type": table.table_type(),
                  "label": table.reference_label, "rows": json.loads(table.dataframe.to_json(orient="index")),
                  "own_row": own["layout_row"], "all": len(plate.concatenate_image_tables("mitotic").dataframe)}))
"""
    mitotic = objects[(objects["phenotype"] == "mitotic") & (objects["plate"] == "P000")]
    well = mitotic["well"].iloc[-1]
    found = read_by("ngio", code, exported("fractal") / "P000.zarr", well)
    own = mitotic[mitotic["well"] == well].set_index("object")
    assert (found["wells"], found["all"], found["own_row"]) == (24, len(mitotic), "north")
    assert (found["type"], found["label"]) == ("feature_table", "mitotic")
    assert set(found["rows"]) == set(own.index.astype(str))
    for number, row in found["rows"].items():
        assert row["score"] == pytest.approx(own.loc[int(number), "score"])
        assert (row["area_px"], row["field"]) == tuple(own.loc[int(number), ["area_px", "field"]])
    wells = read_table(results / "wells.parquet")
    assert found["perturbation"] == wells.query(f"plate == 'P000' and well == '{well}'")["perturbation"].iloc[0]


def test_a_plate_with_tables_holds_the_staged_pixels_and_shares_no_file_that_tools_rewrite(results, exported) -> None:
    staged, copied = results / "plates" / "P000.zarr", exported("fractal") / "P000.zarr"
    assert (Plate(copied).read("B02") == Plate(staged).read("B02")).all()
    for path in copied.rglob("*"):
        original = staged / path.relative_to(copied)
        if original.is_file() and (path.name == "zarr.json" or "labels" in path.parts):
            assert not path.samefile(original)


def test_annotations_have_omero_types_and_one_row_per_well(results: Path, exported) -> None:
    path = exported("omero") / "annotations.csv"
    first, second = path.read_text(encoding="utf-8").splitlines()[:2]
    kinds = dict(zip(second.split(","), first.removeprefix("# header ").split(","), strict=True))
    assert (kinds["Plate"], kinds["Well"], kinds["perturbation"]) == ("plate", "well", "s")
    assert (kinds["mitotic_score"], kinds["mitotic_hit"], kinds["mitotic_n_objects"]) == ("d", "b", "l")
    # As `omero metadata populate` reads it: by these types, one row per plate and well.
    table = pd.read_csv(path, skiprows=1, keep_default_na=False, na_values={"mitotic_rank": ["NaN"]})
    assert len(table) == 48 and not table.duplicated(["Plate", "Well"]).any()
    assert all(str(float(value)) for name, kind in kinds.items() if kind == "d" for value in table[name])
    wells = read_table(results / "wells.parquet").query("phenotype == 'mitotic'").set_index(["plate", "well"])
    for row in table.iloc[[0, 20, 47]].to_dict("records"):
        own = wells.loc[(row["Plate"], row["Well"])]
        assert row["perturbation"] == own["perturbation"] and row["mitotic_score"] == pytest.approx(own["score"])
    assert set(table.loc[table["mitotic_hit"], "perturbation"]) <= {"=1+1", "compound 22"}


def test_mihcsme_metadata_are_parsed(results: Path, exported, read_by: ReadBy) -> None:
    code = """
import sys, json
from mihcsme_py import parse_excel_to_model
model = parse_excel_to_model(sys.argv[1])
conditions = [json.loads(one.model_dump_json()) for one in model.assay_conditions]
print(json.dumps([model.investigation_information.investigation_info.investigation_title,
                  model.assay_information.assay.number_of_plates, conditions]))
"""
    title, n_plates, conditions = read_by("ngio", code, exported("omero") / "mihcsme.xlsx")
    assert (title, n_plates, len(conditions)) == ("made-up <b>screen</b>", "2", 48)
    wells = read_table(results / "wells.parquet").drop_duplicates(["plate", "well"])
    treated = {(one["plate"], one["well"]): one["conditions"]["Treatment"] for one in conditions}
    assert treated == {(row.plate, row.well): row.perturbation for row in wells.itertuples()}


def test_an_ro_crate_is_valid_and_lists_every_file(exported, read_by: ReadBy, tmp_path: Path) -> None:
    code = (Path(__file__).parent / "validate_crate.py").read_text(encoding="utf-8")
    crate = exported("rocrate")
    assert read_by("crate", code, crate, "REQUIRED") == {"passed": True, "issues": []}
    # The validator does look: without a description the crate is refused.
    broken = tmp_path / "broken"
    shutil.copytree(crate, broken)
    content = json.loads((broken / "ro-crate-metadata.json").read_text(encoding="utf-8"))
    del content["@graph"][1]["description"]
    (broken / "ro-crate-metadata.json").write_text(json.dumps(content))
    assert not read_by("crate", code, broken, "REQUIRED")["passed"]


def test_an_ro_crate_describes_results_model_and_software(results: Path, exported) -> None:
    content = json.loads((exported("rocrate") / "ro-crate-metadata.json").read_text(encoding="utf-8"))
    entities = {entity["@id"]: entity for entity in content["@graph"]}
    listed = {part["@id"] for part in entities["./"]["hasPart"]}
    there = set(files(exported("rocrate"))) - {"ro-crate-metadata.json", RECORD}
    assert listed == there and {"hits.parquet", "objects/P000.parquet", "model/fold-0.json"} <= listed
    assert entities["hits.parquet"]["contentSize"] == str((results / "hits.parquet").stat().st_size)
    assert entities["#wscnn"]["softwareVersion"].startswith("0.")
    assert not any("zarr" in name for name in listed)


# Crops.


def test_crops_show_the_highest_scores_of_hits_and_controls(results: Path, exported, objects: pd.DataFrame) -> None:
    folder = exported("crops")
    table = pd.read_csv(folder / "crops.csv")
    assert set(table["role"]) == {"sample", "positive", "negative"}
    assert set(table.loc[table["role"] == "sample", "perturbation"]) <= {"'=1+1", "compound 22"}
    for _, group in table.groupby(["phenotype", "role", table["perturbation"].where(table["role"] == "sample", "")]):
        assert group["score"].is_monotonic_decreasing and group["rank_in_group"].tolist() == [*range(1, len(group) + 1)]
        assert len(group) <= 48
    # No positive control of mitotic is one of novelty.
    assert set(table.loc[table["role"] == "positive", "phenotype"]) == {"mitotic"}
    best = table[(table["role"] == "negative") & (table["phenotype"] == "mitotic")].iloc[0]
    wells = read_table(results / "wells.parquet").query("role == 'negative'")[["plate", "well"]].drop_duplicates()
    negative = objects[objects["phenotype"] == "mitotic"].merge(wells)
    assert best["score"] == pytest.approx(negative["score"].max())
    key = ["plate", "well", "phenotype", "object"]
    joined = table.merge(objects, on=key, suffixes=("", "_own"))
    assert len(joined) == len(table) and (joined["y0"] == joined["y0_own"]).all()


def test_a_crop_is_cut_from_the_staged_pixels(results: Path, exported) -> None:
    folder = exported("crops")
    table = pd.read_csv(folder / "crops.csv")
    assert {path.name for path in folder.glob("tiff/*")} == {Path(name).name for name in table["tiff"]}
    for cell in table.iloc[[0, len(table) // 2, -1]].to_dict("records"):
        with tifffile.TiffFile(folder / cell["tiff"]) as tiff:
            crop = tiff.asarray()
            assert tiff.imagej_metadata["Labels"] in ("DNA", ["DNA"])
            assert 1 / (tiff.pages[0].resolution[0]) == pytest.approx(0.65, rel=1e-4)
        png = imagecodecs.png_decode((folder / cell["png"]).read_bytes())
        assert crop.dtype == np.uint16 and png.dtype == np.uint8 and png.shape == (*crop.shape[-2:], 3)
        mosaic = Plate(results / "plates" / f"{cell['plate']}.zarr").read(cell["well"])[0]
        windows = np.lib.stride_tricks.sliding_window_view(mosaic, crop.shape[-2:])
        top, left = np.argwhere((windows == crop.squeeze()).all((2, 3)))[0]
        assert top <= cell["y"] < top + crop.shape[-2] and left <= cell["x"] < left + crop.shape[-1]


def test_a_screen_without_cells_has_no_crops(results: Path, tmp_path: Path) -> None:
    folder = tmp_path / "screen"
    shutil.copytree(results, folder, ignore=shutil.ignore_patterns("plates", "objects"))
    with pytest.raises(UserError, match="none to cut out"):
        export(folder, "crops", tmp_path / "out")
