"""A lab's plate map, as a grid or a table, from text or a spreadsheet."""

import zipfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import openpyxl
import pytest

from wscnn.core.errors import UserError
from wscnn.preflight.plate_map import read_plate_map

GRID = [["", "1", "2", "3"], ["A", "DMSO", "drug 1", ""], ["B", "drug 2", "", "DMSO"]]
EXPECTED = [("", "A01", "DMSO"), ("", "A02", "drug 1"), ("", "B01", "drug 2"), ("", "B03", "DMSO")]


def text(path: Path, rows: Sequence[Sequence[object]], separator: str = "\t") -> Path:
    path.write_text("".join(separator.join(map(str, row)) + "\n" for row in rows))
    return path


def sheet(path: Path, *sheets: Sequence[Sequence[object]]) -> Path:
    book = openpyxl.Workbook()
    for number, rows in enumerate(sheets):
        into = book.worksheets[0] if number == 0 else book.create_sheet()
        for row in rows:
            into.append([cell if cell != "" else None for cell in row])
    book.save(path)
    return path


def read(path: Path, column: str | None = None) -> list[tuple[str, str, str]]:
    table = read_plate_map(path, column)
    return list(table[["plate", "well", "perturbation"]].itertuples(index=False, name=None))


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
def test_a_grid_in_text(tmp_path: Path, separator: str) -> None:
    assert read(text(tmp_path / "map", GRID, separator)) == EXPECTED


def test_a_grid_in_a_spreadsheet_wherever_it_begins(tmp_path: Path) -> None:
    below = [["Screen of June"], [], *([["", "", *row] for row in GRID]), [], ["made by AB"]]
    # Spreadsheets hold column numbers as numbers.
    numbers = [[int(cell) if str(cell).isdecimal() else cell for cell in row] for row in below]
    assert read(sheet(tmp_path / "map.xlsx", numbers)) == EXPECTED
    assert read(sheet(tmp_path / "map.xlsx", numbers, [])) == EXPECTED


def test_a_grid_per_plate(tmp_path: Path) -> None:
    rows = [["P1"], *GRID, [], ["P2"], *GRID[:2]]
    assert read(text(tmp_path / "map.csv", rows, ",")) == [
        *(("P1", well, name) for _, well, name in EXPECTED),
        ("P2", "A01", "DMSO"),
        ("P2", "A02", "drug 1"),
    ]


def test_part_of_a_plate_of_1536_wells(tmp_path: Path) -> None:
    rows = [["", "46", "47", "48"], ["AF", "x", "y", "z"]]
    assert read(text(tmp_path / "map.tsv", rows)) == [("", "AF46", "x"), ("", "AF47", "y"), ("", "AF48", "z")]


def test_a_table_keeps_its_other_columns(tmp_path: Path) -> None:
    rows = [
        ["Ordered 3 May", "", "", "", "", ""],
        ["Plate ID", "Well", "Compound", "dose", "Role", "score"],
        ["P1", "a1", "DMSO", "0", "negative", "7"],
        ["P1", "B002", "taxol", "0.5", "positive", "8"],
        ["P1", "B3", "", "", "", ""],
    ]
    table = read_plate_map(text(tmp_path / "map.tsv", rows))
    dmso = {"plate": "P1", "well": "A01", "perturbation": "DMSO", "role": "negative", "phenotype": "", "dose": "0"}
    taxol = dmso | {"well": "B02", "perturbation": "taxol", "role": "positive", "dose": "0.5"}
    # The results have a column `score`.
    assert table.to_dict("records") == [dmso | {"score_given": "7"}, taxol | {"score_given": "8"}]


def test_a_table_with_rows_and_columns(tmp_path: Path) -> None:
    rows = [["row", "column", "gene"], [1, 2, "KIF11"], [32, 48.0, "PLK1"], ["C", 4, "AURKB"]]
    assert read(sheet(tmp_path / "map.xlsx", rows)) == [
        ("", "A02", "KIF11"),
        ("", "AF48", "PLK1"),
        ("", "C04", "AURKB"),
    ]


def test_the_column_of_perturbations_is_asked_for(tmp_path: Path) -> None:
    path = text(tmp_path / "map.tsv", [["well", "compound", "gene", "batch no"], ["A1", "x", "y", "3"]])
    with pytest.raises(UserError, match=r"not clear which column .*; give --perturbation with one of compound, gene$"):
        read(path)
    assert read(path, "gene") == [("", "A01", "y")]
    with pytest.raises(UserError, match="no column 'drug'; the columns are well, compound, gene, batch no"):
        read(path, "drug")
    path = text(tmp_path / "map.tsv", [["well", "what"], ["A1", "x"]])
    with pytest.raises(UserError, match="give --perturbation with one of well, what"):
        read(path)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([["a", "b"], ["1", "2"]], "neither a grid of the plate .* its first row is a, b"),
        ([["well", "drug"], ["A1", "x"], ["A01", "y"]], "well A01 is listed twice; keep one"),
        (
            [["well", "drug"], ["13", "x"], ["14", "y"]],
            r"line 2: '13' is not a well.*the same holds for '14' \(line 3\)",
        ),
        ([["well", "drug"], ["A1", ""]], "lists no well with a perturbation"),
        ([["well", "drug"], ["A1", "2-Sep"]], "are dates, which spreadsheets make of names such as SEPT2"),
        ([["well", "drug", "x", "X"], ["A1", "a", "1", "2"]], "line 1: two columns have the same name"),
        ([["", "1", "2", "3", "", "", "1", "2", "3"], ["A", *"xyz", "", "A", *"xyz"]], "two grids beside each other"),
        ([*GRID, *GRID], "well A01 is listed twice"),
    ],
)
def test_what_is_not_clear_is_asked(tmp_path: Path, rows: list[list[str]], said: str) -> None:
    for path in (text(tmp_path / "map.tsv", rows), sheet(tmp_path / "map.xlsx", rows)):
        with pytest.raises(UserError, match=said):
            read(path)


def test_spreadsheets_that_cannot_be_read_as_they_look(tmp_path: Path) -> None:
    path = tmp_path / "map.xlsx"
    with pytest.raises(UserError, match="sheets Sheet, Sheet1 all hold a plate map; save the one to use as CSV"):
        read(sheet(path, GRID, GRID))
    with pytest.raises(UserError, match="sheet Sheet, row 2, column 2: a formula without a value"):
        read(sheet(path, [["well", "drug"], ["A1", '="a"&"b"']]))
    with pytest.raises(UserError, match="the perturbations 2026-09-02 are dates"):
        read(sheet(path, [["well", "gene"], ["A1", datetime(2026, 9, 2)]]))
    path.write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(UserError, match=r"not a readable \.xlsx file"):
        read(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/sharedStrings.xml", bytes(2**28 + 1))
    with pytest.raises(UserError, match="too large for a plate map"):
        read(path)
    path.write_bytes(b"\xd0\xcf\x11\xe0 old")
    with pytest.raises(UserError, match="old Excel format"):
        read(path)
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path / "gone.xlsx")
