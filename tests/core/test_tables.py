"""The tables between stages."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from wscnn.core.errors import UserError
from wscnn.core.tables import (
    FIELDS,
    FILES,
    INDEX,
    OBJECTS,
    TABLES,
    WELLS,
    conform,
    described,
    read_notes,
    read_table,
    write_table,
)


def test_conform_orders_and_types_columns() -> None:
    table = pd.DataFrame({"score": ["1.5"], "b": [1], "a": [2]})
    done = conform(table, {"a": "int16", "score": "float64"})
    assert done.columns.tolist() == ["a", "score", "b"]
    assert done.dtypes.astype(str).to_dict() == {"a": "int16", "score": "float64", "b": "int64"}


@pytest.mark.parametrize("columns", [INDEX, WELLS, FIELDS, OBJECTS])
def test_empty_tables_keep_their_types(tmp_path: Path, columns: dict[str, str]) -> None:
    table = conform(pd.DataFrame(columns=list(columns)), columns)
    write_table(table, tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").dtypes.astype(str).to_dict() == columns


def test_missing_values_come_back_missing(tmp_path: Path) -> None:
    table = conform(pd.DataFrame({"fold": [1, None], "name": ["nan", ""]}), {"fold": "Int8", "name": "str"})
    write_table(table, tmp_path / "t.parquet")
    back = read_table(tmp_path / "t.parquet")
    assert back["fold"].isna().tolist() == [False, True]
    assert back["name"].tolist() == ["nan", ""]


def test_equal_tables_give_equal_bytes(tmp_path: Path) -> None:
    table = pd.DataFrame({"a": range(1000), "b": [f"w{i % 7}" for i in range(1000)]})
    for name in ("one", "two"):
        write_table(table, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("content", [b"", b"PAR1", b"plate\twell\n", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"t\.parquet: not a readable Parquet file"):
        read_table(tmp_path / "t.parquet")


def test_every_truncation_is_named(tmp_path: Path) -> None:
    write_table(pd.DataFrame({"a": [1.0, 2.0]}), tmp_path / "t.parquet")
    whole = (tmp_path / "t.parquet").read_bytes()
    for size in range(0, len(whole), 37):
        (tmp_path / "t.parquet").write_bytes(whole[:size])
        with pytest.raises(UserError):
            read_table(tmp_path / "t.parquet")


def test_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on file size stands in for a full disk: the write fails in its middle."""
    code = (
        "import resource, sys; from pathlib import Path\n"
        "import numpy as np, pandas as pd; from wscnn.core.tables import write_table\n"
        "table = pd.DataFrame({'a': np.random.default_rng(0).random(100_000)})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try: write_table(table, Path(sys.argv[1]))\n"
        "except OSError as error: print(error.filename, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "t.parquet")], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"{tmp_path / 't.parquet'} ") and "File too large" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        write_table(pd.DataFrame({"a": [1]}), tmp_path / "file" / "t.parquet")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_table(tmp_path / "none.parquet")
    write_table(pd.DataFrame({"a": [1]}), tmp_path / "screen=1" / "t.parquet")
    assert read_table(tmp_path / "screen=1" / "t.parquet").columns.tolist() == ["a"]
    with pytest.raises(UserError, match="not a readable Parquet file"):
        read_table(tmp_path / "screen=1")


COLUMNS = {"well": "str", "field": "int32", "used": "bool", "score": "float64", "fold": "Int8"}


def test_columns_are_read_as_declared(tmp_path: Path) -> None:
    table = pd.DataFrame({"more": [1], "field": [3], "well": ["A01"], "used": [True], "score": [2], "fold": [None]})
    write_table(table, tmp_path / "t.parquet")
    read = read_table(tmp_path / "t.parquet", COLUMNS)
    assert read.dtypes.astype(str).to_dict() == COLUMNS | {"more": "int64"}
    assert list(read) == [*COLUMNS, "more"] and read["fold"].isna().all() and read["score"].tolist() == [2.0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"used": ["False"]}, "column used holds .*string where true or false should be"),
        ({"used": [0]}, "column used holds int64 where true or false should be"),
        ({"used": pd.array([None], "boolean")}, "column used has missing values"),
        ({"well": [1]}, "column well holds int64 where text should be"),
        ({"well": [None]}, "column well holds null where text should be"),
        ({"field": ["1"]}, "column field holds .*string where whole numbers should be"),
        ({"field": [1.0]}, "column field holds double where whole numbers should be"),
        ({"field": [2**40]}, "column field holds numbers that do not fit into int32"),
        ({"score": ["1.5"]}, "column score holds .*string where numbers should be"),
        ({"score": [True]}, "column score holds bool where numbers should be"),
        ({"fold": [300]}, "column fold holds numbers that do not fit into Int8"),
    ],
)
def test_a_column_of_another_type_is_named(tmp_path: Path, change: dict[str, list], told: str) -> None:
    table = pd.DataFrame({"well": ["A01"], "field": [1], "used": [True], "score": [0.5], "fold": [1]}).assign(**change)
    write_table(table, tmp_path / "t.parquet")
    with pytest.raises(UserError, match=rf"t\.parquet: {told}; run the stage that makes it again"):
        read_table(tmp_path / "t.parquet", COLUMNS)
    write_table(table.drop(columns=list(change)), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=rf"t\.parquet: has no column {next(iter(change))}"):
        read_table(tmp_path / "t.parquet", COLUMNS)


def test_every_table_has_a_file_and_a_sentence_on_its_rows() -> None:
    assert set(FILES) == set(TABLES)
    for kind, (file, row) in FILES.items():
        assert file.endswith(".parquet") and row.startswith("One row per ") and not row.endswith("."), kind


def test_controls_have_columns_of_the_layout() -> None:
    assert TABLES["controls"].items() <= TABLES["layout"].items()


@pytest.mark.parametrize("kind", TABLES)
def test_every_column_has_a_plain_sentence(kind: str) -> None:
    for name, column in TABLES[kind].items():
        assert column.meaning[0] not in "aeiouy" and not column.meaning.endswith("."), name
        # A cell of a Markdown table.
        assert "|" not in column.meaning + column.unit and "\n" not in column.meaning + column.unit, name


def test_a_column_of_one_name_has_one_type_everywhere() -> None:
    kinds: dict[str, set[str]] = {}
    for columns in TABLES.values():
        for name, column in columns.items():
            kinds.setdefault(name, set()).add(column.kind)
    # A plane's z is a whole number, a score's z is not.
    assert {name for name, several in kinds.items() if len(several) > 1} == {"z"}


def test_notes_say_unit_and_meaning_of_each_column(tmp_path: Path) -> None:
    table = pd.DataFrame({"plate": ["P1"], "mean_DNA": [1.0], "focus_slope_a_b": [-2.0], "mine": ["x"]})
    write_table(table, tmp_path / "t.parquet", {"digest": "of another"}, kind="qc")
    notes = read_notes(tmp_path / "t.parquet")
    assert notes["table"] == "qc" and notes["digest"] == "of another"
    assert notes["columns"]["mean_DNA"] == {"unit": "intensity", "meaning": "Mean"}
    assert notes["columns"]["focus_slope_a_b"]["unit"] == "log per log"
    assert notes["columns"]["mine"] == {"unit": "", "meaning": "The user's own column, carried along"}
    assert described("qc", "mine") is None


def test_tables_that_are_searched_have_small_row_groups_and_filters(tmp_path: Path) -> None:
    write_table(pd.DataFrame({"a": range(40_000)}), tmp_path / "t.parquet", searched=["a"])
    metadata = pq.ParquetFile(tmp_path / "t.parquet").metadata
    assert metadata.num_row_groups == 3
