"""Tables that users write: plates, layouts and well scores, in text or Parquet."""

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from wscnn.cli import main
from wscnn.core.errors import UserError
from wscnn.core.screen_tables import load_layout, load_plates
from wscnn.core.tables import FIELDS, INDEX, OBJECTS, QC, WELLS
from wscnn.core.user_tables import MAX_BYTES, as_text, typed
from wscnn.statistics.hits import HITS, SUSPECTS

CASES = Path(__file__).parents[3] / "shared" / "cases"
LAYOUT = "well,perturbation,role\n"


def hits(output: Path, *wells: Path, layout: Path | None = None, **settings: object) -> Result:
    """Run ``wscnn hits``; what it raises beside a `UserError` is raised."""
    options = [text for path in wells for text in ("--wells", str(path))]
    options += [] if layout is None else ["--layout", str(layout)]
    options += ["--output", str(output), "--hits", json.dumps(settings)]
    return CliRunner().invoke(main, ["hits", *options], catch_exceptions=False)


def refused(*wells: Path, layout: Path | None = None) -> list[str]:
    """Return what ``wscnn hits`` says against tables that it must refuse."""
    done = hits(wells[0].parent / "out", *wells, layout=layout)
    assert done.exit_code == 1
    assert "delete it" not in done.output
    return [line.removeprefix("error: ") for line in done.output.splitlines() if line.startswith("error: ")]


def scores(n_plates: int = 3) -> pd.DataFrame:
    """Return own scores of twelve perturbations on each plate, of which ``g0`` acts; wells are named as in A1."""
    rng = np.random.default_rng(0)
    wells = [f"{row}{column}" for row in "ABC" for column in range(1, 9)]
    role = np.array(["negative"] * 8 + ["positive"] * 4 + ["sample"] * 12)
    names = np.array([*["DMSO"] * 8, *["control"] * 4, *(f"g{i}" for i in range(12))])
    acts = np.where(role == "positive", 8.0, np.where(names == "g0", 6.0, 0.0))
    plates = [
        {"plate": f"P{p}", "well": wells, "perturbation": names, "role": role, "score": rng.normal(acts)}
        for p in range(1, n_plates + 1)
    ]
    return pd.concat([pd.DataFrame(plate) for plate in plates], ignore_index=True)


def csv(path: Path, table: pd.DataFrame) -> Path:
    table.to_csv(path, index=False)
    return path


def parquet(path: Path, table: pd.DataFrame) -> Path:
    table.to_parquet(path, index=False)
    return path


def finds_g0(output: Path) -> bool:
    table = pd.read_parquet(output / "hits.parquet").query("role == 'sample'")
    return (
        len(table) == 12
        and table.loc[table["hit"], "perturbation"].tolist() == ["g0"]
        and (table["n_wells"] == 3).all()
    )


# -------------------------------------------------------------------------- cases that went wrong, with the right value


@pytest.fixture
def case() -> Callable[[str], Path]:
    """Return a function that finds a case by its name."""

    def find(name: str) -> Path:
        if not (CASES / name).is_dir():
            pytest.skip(f"the case is not here: {CASES / name} is missing")
        return CASES / name

    return find


@pytest.mark.parametrize("file", ["wells.csv", "wells.parquet"])
def test_perturbations_that_look_like_numbers_stay_apart(case: Callable, tmp_path: Path, file: str) -> None:
    assert hits(tmp_path, case("hits_ids_merged") / file).exit_code == 0
    table = pd.read_parquet(tmp_path / "hits.parquet").query("role == 'sample'")
    assert set(table["perturbation"]) == {"10", "1E1", "0010", "100", "1E2", "7"}
    assert (table["n_wells"] == 3).all()
    called = table[table["hit"]].squeeze()
    assert called["perturbation"] == "10"
    assert (called["p"], called["q"]) == (pytest.approx(0.00137, abs=5e-6), pytest.approx(0.0082, abs=5e-5))


def test_wells_named_a1_are_those_that_the_layout_names_a01(case: Callable, tmp_path: Path) -> None:
    folder = case("hits_384_A1_with_layout")
    done = hits(tmp_path, folder / "scores.csv", layout=folder / "layout.parquet")
    assert "not in the layout" not in done.output
    table = pd.read_parquet(tmp_path / "hits.parquet").query("role == 'sample'")
    assert len(table) == 336
    assert set(table.loc[table["hit"], "perturbation"]) == {"gC05", "gK17"}


def test_a_position_comes_from_the_wells_name(case: Callable, tmp_path: Path) -> None:
    folder = case("hits_row_counted_from_1")
    warned = [hits(tmp_path / name, folder / name, normalize="robust_z").output for name in ("plain.csv", "wells.csv")]
    assert all("edge wells score" in text for text in warned)
    plain, rows = (pd.read_parquet(tmp_path / name / "plates.parquet") for name in ("plain.csv", "wells.csv"))
    pd.testing.assert_frame_equal(plain, rows)
    wells = pd.read_parquet(tmp_path / "wells.csv" / "wells.parquet")
    # The user's own columns are carried along.
    assert (wells["row"] == wells["well_row"] + 1).all()


def test_rows_may_be_letters(case: Callable, tmp_path: Path) -> None:
    assert hits(tmp_path, case("hits_row_letters_traceback") / "wells.csv").exit_code == 0
    wells = pd.read_parquet(tmp_path / "wells.parquet")
    assert set(wells["row"]) == {"A", "B"}
    assert set(wells["well_row"]) == {0, 1}


def test_counts_are_taken_or_named(case: Callable, tmp_path: Path) -> None:
    folder = case("hits_counts_traceback")
    done = hits(tmp_path, folder / "fraction.csv")
    assert done.exit_code == 1
    assert "lines 2, 3, 4, 5, 6 and 49 more: column n_cells: '37.5' is not a whole number" in done.output
    assert hits(tmp_path, folder / "missing.csv").exit_code == 0
    assert pd.read_parquet(tmp_path / "wells.parquet")["n_objects"].isna().sum() == 1


def test_an_excluded_well_needs_no_perturbation(case: Callable, tmp_path: Path) -> None:
    assert hits(tmp_path, case("hits_excluded_blank") / "wells.csv").exit_code == 0
    wells = pd.read_parquet(tmp_path / "wells.parquet")
    assert wells.loc[wells["role"] == "exclude", "perturbation"].tolist() == [""]


def test_nobody_is_told_to_delete_their_data(case: Callable, tmp_path: Path) -> None:
    done = hits(tmp_path, case("hits_advice_to_delete") / "wells.csv.gz")
    assert done.exit_code == 1
    assert "give Parquet, CSV or TSV" in done.output and "delete it" not in done.output


def test_samples_in_one_row_are_scored_beside_negative_controls(case: Callable, tmp_path: Path) -> None:
    # Fitted on samples alone, B-scores left no residual, and nothing was called without a word.
    hits(tmp_path, case("hits_bscore_one_row") / "wells.csv", normalize="bscore")
    called = pd.read_parquet(tmp_path / "hits.parquet").query("role == 'sample'")
    assert called["p"].notna().all() and (called["n_wells"] > 0).all() and (called["reason"] != "").all()


# ------------------------------------------------------------------------------------------------------- own scores


@pytest.mark.parametrize(
    ("settings", "drop", "reason"),
    [
        ({"normalize": "bscore"}, ["sample", "negative"], "samples and negative controls are missing"),
        ({"normalize": "control_percent"}, ["positive"], "positive controls are missing"),
    ],
)
def test_a_plate_without_any_z_says_why(tmp_path: Path, settings: dict, drop: list[str], reason: str) -> None:
    table = scores()
    hits(tmp_path / "out", csv(tmp_path / "w.csv", table[~table["role"].isin(drop)]), **settings)
    assert pd.read_parquet(tmp_path / "out" / "plates.parquet")["reasons"].str.contains(reason).all()


def test_a_screen_without_samples_and_positive_controls_has_no_hits(tmp_path: Path) -> None:
    table = scores()
    assert hits(tmp_path, csv(tmp_path / "w.csv", table[table["role"] == "negative"])).exit_code == 0
    assert pd.read_parquet(tmp_path / "hits.parquet").empty


def test_one_name_over_files_of_different_kinds(tmp_path: Path) -> None:
    """What pandas reads as a number in one file and as text in another; Parquet that holds numbers; 10.0 is 10."""
    table = scores()
    table["perturbation"] = table["perturbation"].replace({f"g{i}": str(i + 10) for i in range(12)})
    numbers = table[table["plate"] == "P1"].replace({"perturbation": {"DMSO": "1", "control": "2"}})
    files = [
        parquet(tmp_path / "1.parquet", numbers.astype({"perturbation": "float64"})),
        csv(tmp_path / "2.csv", table[table["plate"] == "P2"].replace({"perturbation": {"DMSO": "1", "control": "2"}})),
        csv(tmp_path / "3.csv", table[table["plate"] == "P3"]),
    ]
    assert hits(tmp_path / "out", *files).exit_code == 0
    found = pd.read_parquet(tmp_path / "out" / "hits.parquet").query("role == 'sample'")
    assert found.set_index("perturbation")["n_wells"].to_dict() == {str(i): 3 for i in range(10, 22)}


def test_spellings_of_one_well_are_one_well(tmp_path: Path) -> None:
    text = csv(tmp_path / "w.csv", scores(1)).read_text() + "P1,c03,g10,sample,1\nP1,C003,g10,sample,2\n"
    (tmp_path / "w.csv").write_text(text)
    (problem,) = refused(tmp_path / "w.csv")
    assert problem.startswith(f"{tmp_path / 'w.csv'}, lines 20, 26, 27: P1 C03: scored twice")
    other = csv(tmp_path / "v.csv", scores(1).iloc[[5]].assign(well="a006"))
    assert "P1 A06: scored twice" in refused(csv(tmp_path / "w.csv", scores(1)), other)[0]


@pytest.mark.parametrize("file", ["l.csv", "l.parquet"])
def test_a_users_layout_serves_as_well_as_the_one_of_check(tmp_path: Path, file: str) -> None:
    table = scores()
    layout = table[["well", "perturbation", "role"]].iloc[:24].assign(dose=0.5, row="A")
    write = csv if file.endswith("csv") else parquet
    own = csv(tmp_path / "w.csv", table[["plate", "well", "score"]])
    assert hits(tmp_path / "out", own, layout=write(tmp_path / file, layout)).exit_code == 0
    assert finds_g0(tmp_path / "out")
    wells = pd.read_parquet(tmp_path / "out" / "wells.parquet")
    assert (wells["dose"] == 0.5).all() and (wells["row"] == "A").all()


def test_a_layout_that_names_none_of_the_wells_is_refused(tmp_path: Path) -> None:
    own = csv(tmp_path / "w.csv", scores())
    layout = csv(tmp_path / "l.csv", scores()[["plate", "well", "perturbation", "role"]].assign(plate="Q").iloc[:24])
    (problem,) = refused(own, layout=layout)
    assert "their plates are P1, P2, P3, the layout's are Q" in problem


def test_a_folder_gives_all_its_tables_and_names_the_rest(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    plates = dict(list(scores().groupby("plate")))
    parquet(tmp_path / "in" / "1.parquet", plates["P1"])
    csv(tmp_path / "in" / "2.CSV", plates["P2"])
    plates["P3"].to_csv(tmp_path / "in" / "3.tsv", sep="\t", index=False)
    (tmp_path / "in" / "._2.csv").write_bytes(b"\0\5")
    (tmp_path / "in" / "notes.docx").touch()
    done = hits(tmp_path / "out", tmp_path / "in")
    assert finds_g0(tmp_path / "out")
    assert "notes.docx" in done.output and "._2" not in done.output


def test_mistakes_are_found_at_once_and_grouped(tmp_path: Path) -> None:
    table = scores()
    table.loc[table["perturbation"] == "g1", "role"] = "Sample"
    table.loc[table["perturbation"] == "g2", "perturbation"] = ""
    table.loc[table["perturbation"] == "g3", "well"] = "C"
    table["score"] = table["score"].astype(str).str.replace(".", ",")
    told = refused(csv(tmp_path / "w.csv", table))
    assert len(told) == 4
    assert "lines 16, 40, 64: 3 rows have no perturbation; fill it in" in told[0]
    assert "lines 17, 41, 65: 'C' is not a well" in told[1]
    assert "lines 15, 39, 63: role 'Sample' does not exist" in told[2]
    assert "and 67 more is not a number; write numbers with a decimal point" in told[3]


def test_whole_numbers_of_counts_are_asked_for(tmp_path: Path) -> None:
    for name, value in (("n_objects", 1.5), ("n_objects", -1), ("n_fields_used", "many"), ("fold", 200)):
        (problem,) = refused(csv(tmp_path / "w.csv", scores().assign(**{name: value})))
        assert f"column {name}: '{value}' is not a whole number" in problem


def test_further_columns_keep_their_meaning(tmp_path: Path) -> None:
    table = scores().assign(dose=[1.5, 2] * 36, code="0012", position="1E1", empty="", barcode="12345678901234567890")
    hits(tmp_path / "out", csv(tmp_path / "w.csv", table))
    wells = pd.read_parquet(tmp_path / "out" / "wells.parquet")
    assert set(wells["dose"]) == {1.5, 2.0}
    assert wells.loc[0, ["code", "position", "empty", "barcode"]].tolist() == [
        "0012",
        "1E1",
        "",
        "12345678901234567890",
    ]
    # One type over all files: what is text in one is text in all.
    one, two = (table[(table["plate"] == "P1") == first] for first in (True, False))
    files = csv(tmp_path / "1.csv", one.assign(dose=1)), csv(tmp_path / "2.csv", two.assign(dose="high"))
    hits(tmp_path / "out", *files)
    assert set(pd.read_parquet(tmp_path / "out" / "wells.parquet")["dose"]) == {"1", "high"}


def test_columns_that_hits_computes_are_replaced_with_a_word(tmp_path: Path) -> None:
    done = hits(tmp_path / "out", csv(tmp_path / "w.csv", scores().assign(z="high", Rank=1)))
    assert "column z of the tables of wells: replaced" in done.output
    assert finds_g0(tmp_path / "out")
    # Readers such as DuckDB do not distinguish Rank from rank.
    assert "Rank" not in pd.read_parquet(tmp_path / "out" / "hits.parquet")


def test_empty_tables(tmp_path: Path) -> None:
    (tmp_path / "w.csv").write_bytes(b"")
    assert "no column plate, well, perturbation, role, score" in refused(tmp_path / "w.csv")[0]
    header = csv(tmp_path / "w.csv", scores().iloc[:0])
    assert "lists no well" in refused(header)[0]
    # A plate may have no well left.
    assert hits(tmp_path / "out", header, csv(tmp_path / "v.csv", scores())).exit_code == 0
    csv(tmp_path / "w.csv", scores()).write_text((tmp_path / "w.csv").read_text() + ",,,,\n,,,,\n\n")
    assert hits(tmp_path / "out", tmp_path / "w.csv").exit_code == 0


# ------------------------------------------------------------------------------------------------------- the reader


def test_the_content_decides_what_a_file_is(tmp_path: Path) -> None:
    parquet(tmp_path / "w.csv", scores())
    assert hits(tmp_path / "out", tmp_path / "w.csv").exit_code == 0
    # What Excel calls "Unicode text", and data frames with their index.
    for text in (scores().to_csv(sep="\t", index=False).encode("utf-16"), scores().to_csv().encode()):
        (tmp_path / "w.txt").write_bytes(text)
        assert hits(tmp_path / "out", tmp_path / "w.txt").exit_code == 0
        assert finds_g0(tmp_path / "out")


def test_spreadsheets_are_called_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.xlsx", "w") as book:
        book.writestr("xl/workbook.xml", "<workbook/>")
    (tmp_path / "p.xls").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100))
    for path in (tmp_path / "p.xlsx", tmp_path / "p.xls"):
        with pytest.raises(UserError, match=r"a spreadsheet.*; save the sheet as CSV or TSV"):
            load_plates(path)


def test_only_regular_files_of_bearable_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large.csv").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    told = {"/dev/zero": "regular file", tmp_path / "pipe": "regular file", tmp_path / "large.csv": "1 GiB are read"}
    for path, words in told.items():
        for read in (load_plates, lambda path: load_layout(path, None)):
            with pytest.raises(UserError, match=words):
                read(Path(path))
    assert "give a file" in refused(tmp_path / "w.csv", tmp_path / "pipe", layout=Path("/dev/zero"))[-1]


def test_parquet_is_read_whatever_its_pandas_metadata_says(tmp_path: Path) -> None:
    for metadata in (b"{ damaged", b'{"index_columns": ["plate"], "columns": [], "column_indexes": []}'):
        data = pa.Table.from_pandas(scores()).replace_schema_metadata({b"pandas": metadata})
        pq.write_table(data, tmp_path / "w.parquet")
        assert hits(tmp_path / "out", tmp_path / "w.parquet").exit_code == 0
        assert finds_g0(tmp_path / "out")
    scores().set_index(["plate", "well"]).to_parquet(tmp_path / "w.parquet")
    assert hits(tmp_path / "out", tmp_path / "w.parquet").exit_code == 0


def test_parquet_that_cannot_be_taken_is_named(tmp_path: Path) -> None:
    whole = parquet(tmp_path / "w.parquet", scores()).read_bytes()
    for size in (4, len(whole) // 2, len(whole) - 1):
        (tmp_path / "w.parquet").write_bytes(whole[:size])
        assert "not a readable Parquet file" in refused(tmp_path / "w.parquet")[0]
    nested = parquet(tmp_path / "w.parquet", scores().assign(parts=[[1, 2]] * 72))
    assert "column parts holds list" in refused(nested)[0]


def test_a_column_is_numbers_where_every_cell_is_a_plain_number() -> None:
    def kind(*cells: str) -> str:
        return str(typed(pd.Series(cells, dtype="str")).dtype)

    assert kind("0", "12", "-3") == kind("7", "") == "Int64"
    assert kind("0.5", "12", "") == kind("1e-05", "2") == "float64"
    for cell in ("007", "+5", "1E1", "1e5", "NaN", "inf", "0x1", "1_0", "1,5", "٣", "9" * 20, "1e+999"):
        assert kind("1", cell) == "str", cell


def test_ids_of_a_parquet_file_become_their_text() -> None:
    for values in ([10, 7], [10.0, 7.0], ["10", " 7 "], pd.Series([10, 7], dtype="Int8")):
        assert as_text(pd.Series(values)).tolist() == ["10", "7"]
    assert as_text(pd.Series([10.0, None, 2.5])).tolist() == ["10", "", "2.5"]


def test_a_layouts_further_columns_are_numbers_by_the_same_rule(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("well,perturbation,role,dose,code\nA1,x,sample,0.5,01\nA2,y,sample,,2\n")
    table = load_layout(tmp_path / "l.csv", ["P1"])
    assert table["dose"].dtype == "float64" and table["code"].tolist() == ["01", "2"]


def test_many_mistakes_of_one_kind_are_one_sentence(tmp_path: Path) -> None:
    for text, words in {
        LAYOUT + "A1,x\n" * 90: "lines 2, 3, 4, 5, 6 and 85 more: 2 cells where the header has 3",
        LAYOUT + "".join(f"{number},x,sample\n" for number in range(1, 385)): "'1' is not a well",
    }.items():
        (tmp_path / "l.csv").write_text(text)
        with pytest.raises(UserError, match=words) as raised:
            load_layout(tmp_path / "l.csv", ["P1"])
        assert len(raised.value.problems) == 1


# ---------------------------------------------------------------------------------- columns of the tables that we write


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Return the columns and types of the tables that ``wscnn hits`` writes, as they are read back."""
    folder = tmp_path_factory.mktemp("written")
    hits(folder, csv(folder / "w.csv", scores().assign(n_objects=1, n_cells=20, n_fields=2, n_fields_used=2)))
    names = ("hits", "wells", "plates", "suspects")
    return {name: pd.read_parquet(folder / f"{name}.parquet").dtypes.astype(str).to_dict() for name in names}


def test_no_column_is_a_reserved_word(written: dict[str, dict[str, str]]) -> None:
    words = "select keyword_name from duckdb_keywords() where keyword_category = 'reserved'"
    reserved = set(duckdb.sql(words).pl()["keyword_name"])
    columns = {
        *INDEX,
        *WELLS,
        *FIELDS,
        *OBJECTS,
        *QC,
        *HITS,
        *SUSPECTS,
        *(name for table in written.values() for name in table),
    }
    assert not reserved & columns


def test_a_column_of_one_name_has_one_type_in_all_tables(written: dict[str, dict[str, str]], tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(LAYOUT + "A1,x,sample\n")
    layout = load_layout(tmp_path / "l.csv", ["P1"]).dtypes.astype(str).to_dict()
    # The index's z is the number of a plane, elsewhere z is the normalised score.
    index = {name: kind for name, kind in INDEX.items() if name != "z"}
    kinds: dict[str, set[str]] = {}
    for table in (index, WELLS, FIELDS, OBJECTS, QC, HITS, SUSPECTS, layout, *written.values()):
        for name, kind in table.items():
            kinds.setdefault(name, set()).add(kind)
    assert {name: several for name, several in kinds.items() if len(several) > 1} == {}
