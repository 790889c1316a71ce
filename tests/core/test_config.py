"""The user's three files: what is taken as it is meant, and what is refused with file and line."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from site_pages import config_page

import wscnn
from wscnn.core.config import complete_config, load_config, schema, section
from wscnn.core.errors import UserError
from wscnn.core.screen_tables import controls, load_layout, load_plates

MINIMAL: dict[str, Any] = {
    "screen": "s", "plates": "plates.tsv", "layout": "layout.tsv", "acquisition": {"channels": {"1": "DNA"}},
}  # fmt: skip


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def problems_of(given_config: object) -> str:
    with pytest.raises(UserError) as raised:
        complete_config(given_config, "config.yaml")
    return str(raised.value)


# ---- config


def test_defaults_are_filled_in_from_the_schema() -> None:
    config = complete_config(MINIMAL, "config.yaml")
    assert config["results"] == "results"
    assert config["acquisition"]["format"] == "auto"
    assert config["acquisition"]["z"] == "max"
    assert (
        config["mosaic"]["downsample"]
        == schema("config")["properties"]["mosaic"]["properties"]["downsample"]["default"]
    )
    assert set(config) == set(schema("config")["properties"])


def test_completing_leaves_schema_and_input_as_they_were() -> None:
    first = complete_config(MINIMAL, "config.yaml")
    first["mosaic"]["downsample"] = 31
    first["acquisition"]["channels"]["9"] = "x"
    assert complete_config(MINIMAL, "config.yaml")["mosaic"]["downsample"] != 31
    assert MINIMAL["acquisition"]["channels"] == {"1": "DNA"}


def test_completing_twice_changes_nothing() -> None:
    config = complete_config(MINIMAL, "config.yaml")
    assert complete_config(config, "config.yaml") == config


def test_shipped_configs_are_valid() -> None:
    folder = Path(__file__).parents[2] / "config"
    found = [folder / "config.yaml", *folder.glob("examples/*/config.yaml")]
    assert len(found) > 1
    for path in found:
        load_config(path)


def test_numbers_as_channel_keys(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", yaml.safe_dump(MINIMAL).replace("'1': DNA", "1: DNA\n    02: GFP"))
    assert load_config(path)["acquisition"]["channels"] == {"1": "DNA", "2": "GFP"}


def test_all_problems_at_once() -> None:
    told = problems_of(
        {"screen": 3, "plates": "p", "layout": "l", "acquisition": {"channels": {}}, "mosaik": {}, "hits": {"fdr": 2}}
    )
    for part in ("screen", "acquisition.channels", "unknown key 'mosaik'", "hits.fdr"):
        assert part in told


def test_unknown_key_deep_down_shows_the_known_ones() -> None:
    told = problems_of(MINIMAL | {"mosaic": {"down_sample": 2}})
    assert told.startswith("config.yaml: unknown key 'mosaic.down_sample'; known here: ")
    assert "downsample" in told


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"screen": "../x"}, "screen: '../x' cannot name a folder"),
        ({"screen": ""}, "cannot name a folder"),
        ({"acquisition": {"channels": {"1": "a/b"}}}, "acquisition.channels.1: 'a/b' cannot name"),
        ({"acquisition": {"channels": {"1": "DNA", "2": "DNA"}}}, "'DNA', 'DNA' are the same name"),
        ({"acquisition": {"channels": {"1": "DNA"}, "nuclei": "GFP"}}, "acquisition.nuclei: 'GFP' is none of"),
        ({"acquisition": {"channels": {"1": "DNA"}, "format": "pattern"}}, "needs a regular expression"),
        ({"acquisition": {"channels": {"1": "DNA"}, "format": "czi"}}, "acquisition.format"),
        ({"acquisition": {"channels": {"1": "DNA"}, "z": "min"}}, "acquisition.z"),
        ({"acquisition": {"channels": {"1": "DNA"}, "z": -1}}, "acquisition.z"),
        ({"acquisition": {"channels": {"1": "DNA"}, "pixel_size_um": 0}}, "acquisition.pixel_size_um"),
        ({"acquisition": {"channels": {"1": "DNA"}, "pixel_size_um": float("inf")}}, "not a number to work with"),
        ({"hits": {"fdr": float("nan")}}, "not a number to work with"),
        ({"dask": {"cluster": "treads"}}, "dask.cluster: 'treads' is not allowed; threads | local | slurm | the add"),
        ({"acquisition": None}, "acquisition: no key is given below it"),
        ({"acquisition": {"channels": {"1": "DNA", "2": "dna"}}}, "'DNA', 'dna' are the same name"),
        ({"acquisition": {"channels": {"1": "DNA."}}}, "'DNA.' cannot name a folder"),
        (
            {"acquisition": {"channels": {1: "DNA", "1": "GFP"}}},
            "acquisition.channels.1: this key is given as text and",
        ),
        (
            {"acquisition": {"channels": {"1": False}}},
            "acquisition.channels.1: YAML reads False here, which is not text",
        ),
        ({"train": {"seed": 2**63}}, f"train.seed: {2**63} is greater than the maximum of 4294967295"),
        ({"train": {"learning_rate": 1e38}}, "train.learning_rate: 1e+38 is greater than the maximum of 1"),
        ({"train": {"evaluations": 10**9}}, "train.evaluations: 1000000000 is greater than the maximum of 10000"),
        ({"train": {"steps": True}}, "train.steps: True is not of type 'integer', 'null'"),
        ({"train": {"steps": "300"}}, "train.steps: '300' is text, not a number; write 300"),
        ({"train": {"learning_rate": "0.001"}}, "train.learning_rate: '0.001' is text, not a number; write 0.001"),
        ({"train": {"learning_rate": "1e400"}}, "train.learning_rate: inf is greater than the maximum of 1"),
        ({"acquisition": {"channels": {"1": "DNA"}, "z": "3"}}, "acquisition.z: '3' is text, not a number; write 3"),
        ({"acquisition": {"channels": {"1": "DNA"}, "z": "max\n"}}, "acquisition.z: 'max\\n' holds a line break"),
        ({"dask": {"cluster": "host:99999"}}, "dask.cluster: 'host:99999' is not allowed"),
        ({"dask": {"slurm": {"walltime": 43200}}}, "walltime: YAML reads 43200 here, which is not text; put what you"),
        ({"dask": {"slurm": {"queue": "a\n#SBATCH --x"}}}, "dask.slurm.queue: 'a\\n#SBATCH --x' holds a line break"),
        ({"dask": {"slurm": {"memory": "much"}}}, "dask.slurm.memory: 'much' is not allowed; A number and its unit"),
    ],
)
def test_wrong_values(changed: dict[str, Any], told: str) -> None:
    assert told in problems_of(MINIMAL | changed)


@pytest.mark.parametrize("key", ["results", "plates", "layout", "model.checkpoint", "train.start_from"])
@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("", "is not a path: it is empty"),
        ("/", "the root of the disk"),
        (" x", "begins or ends with a space"),
        ("~/x", "~ is not expanded"),
        ("a/{plate}", "Snakemake takes {...} for a wildcard"),
        ("$HOME/x", "$ is not expanded"),
        ("C:\\x", "\\ does not separate folders"),
        ("s3://bucket/x", "is a URL"),
        ("a\nb", "holds a line break or another control character"),
        ("\ud800", "holds a line break or another control character"),
    ],
)
def test_paths_that_a_stage_would_read_otherwise(key: str, path: str, told: str) -> None:
    name, _, inner = key.partition(".")
    assert f"{key}: " in (problems := problems_of(MINIMAL | {name: {inner: path} if inner else path}))
    assert told in problems


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "1.0e-3", "1.e-03", "0.001", "10e-4", "+1e-3"])
def test_numbers_as_json_and_people_write_them(tmp_path: Path, text: str) -> None:
    # PyYAML reads 1e-3, as JSON writes it, as text.
    path = write(tmp_path / "c.yaml", yaml.safe_dump(MINIMAL) + f"train: {{learning_rate: {text}}}\n")
    assert load_config(path)["train"]["learning_rate"] == 0.001


def test_mistakes_of_values_and_between_keys_are_told_at_once() -> None:
    acquisition = {"channels": {"1": "DNA"}, "nuclei": "GFP", "format": "pattern", "time": -1, "patern": "x"}
    told = problems_of(MINIMAL | {"acquisition": acquisition, "hits": {"fdr": 2}})
    for part in ("acquisition.nuclei", "acquisition.pattern", "acquisition.time", "'acquisition.patern'", "hits.fdr"):
        assert part in told


def settings_of(rules: dict[str, Any], path: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Return every key of the schema that holds a value, and its rule."""
    found = []
    for key, rule in rules["properties"].items():
        found += settings_of(rule, f"{path}{key}.") if "properties" in rule else [(f"{path}{key}", rule)]
    return found


def test_every_number_has_bounds() -> None:
    numbers = [(key, rule) for key, rule in settings_of(schema("config")) if {"integer", "number"} & set(kinds(rule))]
    assert len(numbers) > 30
    for key, rule in numbers:
        assert {"minimum", "exclusiveMinimum"} & set(rule), key
        assert {"maximum", "exclusiveMaximum"} & set(rule), key


def kinds(rule: dict[str, Any]) -> list[str]:
    found = rule.get("type", [])
    return [found] if isinstance(found, str) else found


def values(rule: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for what a rule of the schema allows."""
    if "enum" in rule:
        return st.sampled_from(rule["enum"])
    low, high = (
        rule.get(inclusive, rule.get(f"exclusive{inclusive.capitalize()}")) for inclusive in ("minimum", "maximum")
    )
    made = [st.just(rule["default"])] if "default" in rule else []
    if "integer" in kinds(rule):
        whole = st.integers(low, high)
        made += [whole, whole.map(float)]
    elif "number" in kinds(rule):
        bounds = {f"exclude_{end[0:3]}": f"exclusive{end.capitalize()}" in rule for end in ("minimum", "maximum")}
        made += [st.floats(low, high, **bounds), st.integers(int(low) + 1, max(int(low) + 1, int(high) - 1))]
        made[-1] = made[-1].filter(lambda n: low < n < high)
    elif "string" in kinds(rule) and rule.get("format") == "path":
        made.append(st.sampled_from(["a", "./a/", "a//b c", "../a;'b", "/a/é"]))
    return st.one_of(made)


@given(st.data())
@settings(max_examples=50)
def test_what_a_config_may_hold_every_verb_takes_and_json_keeps(data: st.DataObject) -> None:
    sections = {}
    for name, rules in schema("config")["properties"].items():
        if name != "acquisition" and "properties" in rules:
            keys = {key: values(rule) for key, rule in rules["properties"].items() if "properties" not in rule}
            sections[name] = data.draw(st.fixed_dictionaries({}, optional=keys), label=name)
    config = complete_config(MINIMAL | sections, "config")
    assert json.loads(json.dumps(config)) == config
    assert json.dumps(complete_config(config, "config")) == json.dumps(config)
    for name in ("acquisition", *sections):
        assert json.dumps(section(name, json.dumps(config[name]))) == json.dumps(config[name])


def test_settings_that_are_equal_are_the_same_json() -> None:
    one = {"results": "./out/", "mosaic": {"downsample": 2.0}, "qc": {"staining": 12, "empty": -0.0}}
    other = {"results": "out", "mosaic": {"downsample": 2}, "qc": {"staining": 12.0, "empty": 0}}
    assert json.dumps(complete_config(MINIMAL | one, "")) == json.dumps(complete_config(MINIMAL | other, ""))
    assert type(section("mosaic", '{"downsample": 2.0}')["downsample"]) is int


def test_yaml_reads_every_key_and_value_of_the_reference_as_it_stands() -> None:
    for key, rule in settings_of(schema("config")):
        for text in [*key.split("."), *(value for value in rule.get("enum", []) if isinstance(value, str))]:
            assert yaml.safe_load(text) == text, key
    rows = [line for line in config_page().splitlines() if line.startswith("| `")]
    words = [word for row in rows for word in re.findall(r"`([A-Za-z][\w.]*)`", row)]
    assert len(rows) > 40 and "hits.compare_with" in words and "none" in words
    for word in words:
        assert word == "null" or yaml.safe_load(word) == word


def test_a_scheduler_is_given_by_its_address() -> None:
    for address in ("tcp://10.0.0.1:8786", "tls://host:8786", "host:8786", "threads", "local", "slurm"):
        complete_config(MINIMAL | {"dask": {"cluster": address}}, "config")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "- a",
        "3",
        "a: [",
        "\t",
        "a: &x 1\nb: *x",
        "a: 1\na: 2",
        "[" * 5000,
        "a: !!python/object:os.system x",
    ],
)
def test_files_that_are_no_config(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"c\.yaml"):
        load_config(write(tmp_path / "c.yaml", text))


def test_yaml_bomb_is_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(UserError, match="aliases"):
        load_config(write(tmp_path / "c.yaml", "\n".join(lines)))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"screen: \x80", b"\x00"])
def test_bytes_that_are_no_text(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UserError, match=r"c\.yaml"):
        load_config(write(tmp_path / "c.yaml", content))


def test_missing_config_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            load_config(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(schema("config")["properties"])), JSON)
def test_any_value_of_a_key_is_taken_or_refused(key: str, value: object) -> None:
    try:
        complete_config(MINIMAL | {key: value}, "config.yaml")
    except UserError as error:
        assert "config.yaml" in str(error)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_is_a_config_or_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UserError):
        load_config(write(tmp_path / "c.yaml", content))


def test_section_on_the_command_line() -> None:
    assert section("mosaic", '{"downsample": 4}')["downsample"] == 4
    assert section("acquisition", '{"channels": {"1": "DNA"}}')["z"] == "max"


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"downsample": NaN}', '{"downsampel": 4}', "[" * 100_000])
def test_section_that_is_wrong(text: str) -> None:
    with pytest.raises(UserError, match="--mosaic"):
        section("mosaic", text)


# ---- tables

PLATES = "plate\timages\tbatch\nP1\t/data/P1\tb1\nP2\t/data/P2\tb2\n"
LAYOUT = """\
well	perturbation	role	phenotype	dose
A01	DMSO	negative		0
A02	taxol	positive		1
b3	gene	sample		NaN
"""


def test_plates(tmp_path: Path) -> None:
    table = load_plates(write(tmp_path / "p.tsv", PLATES))
    assert table.to_dict("list") == {
        "plate": ["P1", "P2"], "images": ["/data/P1", "/data/P2"], "batch": ["b1", "b2"],
    }  # fmt: skip


def test_layout_holds_for_every_plate(tmp_path: Path) -> None:
    table = load_layout(write(tmp_path / "l.tsv", LAYOUT), ["P1", "P2"])
    assert table["plate"].tolist() == ["P1"] * 3 + ["P2"] * 3
    assert table["well"].tolist() == ["A01", "A02", "B03"] * 2
    assert table["well_row"].tolist() == [0, 0, 1] * 2
    assert table["well_column"].tolist() == [0, 1, 2] * 2
    assert table["phenotype"].tolist() == ["", "rare", ""] * 2
    assert table["dose"].tolist() == ["0", "1", "NaN"] * 2
    assert table.index.tolist() == [2, 3, 4] * 2


def test_a_plates_own_row_wins(tmp_path: Path) -> None:
    text = "plate,well,perturbation,role\n,A01,DMSO,negative\nP2,a1,drug,sample\n"
    table = load_layout(write(tmp_path / "l.csv", text), ["P1", "P2"])
    assert table[["plate", "perturbation"]].to_numpy().tolist() == [["P1", "DMSO"], ["P2", "drug"]]


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_every_dialect_of_spreadsheets(tmp_path: Path, separator: str, end: str, mark: str, quote: str) -> None:
    rows = [[f"{quote}{cell}{quote}" for cell in line.split("\t")] for line in LAYOUT.splitlines()]
    text = mark + end + "".join(separator.join(row) + end for row in rows)
    table = load_layout(write(tmp_path / "l.txt", text), ["P1"])
    plain = load_layout(write(tmp_path / "plain.tsv", LAYOUT), ["P1"])
    pd.testing.assert_frame_equal(table.reset_index(drop=True), plain.reset_index(drop=True))


def test_spaces_capitals_and_empty_columns_and_rows(tmp_path: Path) -> None:
    text = ' Well ;PERTURBATION; Role;;\n A01 ;"two words; and more"; negative ;;\n;;;;\n\nh12;x;sample;;\n'
    table = load_layout(write(tmp_path / "l.csv", text), ["P1"])
    assert table[["well", "perturbation", "role"]].to_numpy().tolist() == [
        ["A01", "two words; and more", "negative"],
        ["H12", "x", "sample"],
    ]
    assert table.index.tolist() == [2, 5]


def test_names_that_look_missing_are_names(tmp_path: Path) -> None:
    text = "well,perturbation,role\nA1,NA,sample\nA2,nan,sample\nA3,None,sample\nA4,001,sample\nA5,1e5,sample\n"
    table = load_layout(write(tmp_path / "l.csv", text), ["P1"])
    assert table["perturbation"].tolist() == ["NA", "nan", "None", "001", "1e5"]


def test_1536_wells(tmp_path: Path) -> None:
    text = "well,perturbation,role\nAA01,x,sample\naf48,y,sample\nZ9,z,sample\n"
    table = load_layout(write(tmp_path / "l.csv", text), ["P1"])
    assert table["well"].tolist() == ["Z09", "AA01", "AF48"]


def test_all_problems_of_a_layout_with_their_lines(tmp_path: Path) -> None:
    text = (
        "plate\twell\tperturbation\trole\tphenotype\n"
        "\tQ99\tDMSO\tnegative\t\n"
        "\tA02\t\tsample\t\n"
        "P9\tA03\tx\tsample\t\n"
        "\tA04\tx\tcontrol\t\n"
        "\tA05\tx\tpositive\tnegative\n"
        "\tA06\tx\tpositive\ta/b\n"
        "\t\tx\tsample\t\n"
        "\tA07\tx\tpositive\tround_saliency\n"
    )
    with pytest.raises(UserError) as raised:
        load_layout(write(tmp_path / "l.tsv", text), ["P1"])
    told = raised.value.problems
    assert len(told) == 8
    for line, part in {
        2: "'Q99' is not a well",
        3: "perturbation",
        4: "'P9' is not in the table of plates",
        5: "role: 'control' is not one of",
        6: "cannot be called 'negative'",
        7: "'a/b' cannot name",
        8: "well: empty; fill it in",
        9: "phenotype 'round_saliency' ends in _saliency",
    }.items():
        assert any(f"l.tsv, line {line}: " in problem and part in problem for problem in told), (line, told)


def test_well_twice(tmp_path: Path) -> None:
    text = "well,perturbation,role\nB3,x,sample\nA1,x,sample\nb03,y,sample\n"
    with pytest.raises(UserError, match=r"lines 2, 4: well B03 has several rows"):
        load_layout(write(tmp_path / "l.csv", text), ["P1"])


def test_plate_twice_and_names_that_leave(tmp_path: Path) -> None:
    text = "plate,images\nP1,a\n../P2,b\nP1,c\nP3,\n"
    with pytest.raises(UserError) as raised:
        load_plates(write(tmp_path / "p.csv", text))
    assert len(raised.value.problems) == 3
    assert "lines 2, 4: plate 'P1' is listed twice" in str(raised.value)
    assert "line 3: plate: '../P2' cannot name a folder" in str(raised.value)
    assert "line 5: images" in str(raised.value)


def test_a_fault_in_many_rows_is_one_sentence(tmp_path: Path) -> None:
    rows = "".join(f"{row}{column},x,Sample\n" for row in "ABCDEFGH" for column in range(1, 13))
    with pytest.raises(UserError) as raised:
        load_layout(write(tmp_path / "l.csv", f"well,perturbation,role\n{rows}"), ["P1"])
    assert len(raised.value.problems) == 1
    assert "lines 2, 3, 4, 5, 6 and 91 more: role: 'Sample' is not one of" in raised.value.problems[0]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([f"{n},x,sample" for n in range(384)], "line 2: '0' is not a well;"),
        ([f"A{n % 48 + 1},x,role{n}" for n in range(48)], "line 2: role: 'role0' is not one of"),
        ([f"{row}{column},x,sample" for row in "ABCDEFGH" for column in range(1, 13)] * 2, "well A01 has several rows"),
        ([f"A{n + 1},x,positive,p/{n}" for n in range(40)], "line 2: phenotype: 'p/0' cannot name a folder"),
    ],
)
def test_one_mistake_in_many_values_is_one_sentence(tmp_path: Path, rows: list[str], told: str) -> None:
    head = "well,perturbation,role" + ",phenotype" * (rows[0].count(",") - 2)
    with pytest.raises(UserError) as raised:
        load_layout(write(tmp_path / "l.csv", "\n".join([head, *rows])), ["P1"])
    (problem,) = raised.value.problems
    assert told in problem and "; the same holds for " in problem and problem.endswith(" more")


def test_names_that_differ_by_case_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="plates 'P1', 'p1' are the same name"):
        load_plates(write(tmp_path / "p.csv", "plate,images\nP1,a\np1,b\n"))
    text = "well,perturbation,role,phenotype\nA1,x,positive,big\nA2,x,positive,Big\nA3,x,positive,Negative\n"
    with pytest.raises(UserError) as raised:
        load_layout(write(tmp_path / "l.csv", text), ["P1"])
    told = str(raised.value)
    for part in ("phenotypes 'big', 'Big'", "cannot be called 'Negative'"):
        assert part in told
    with pytest.raises(UserError, match=r"two columns have the same name; the columns are .*Dose, dose"):
        load_layout(write(tmp_path / "l.csv", "well,perturbation,role,Dose,dose\nA1,x,sample,1,1\n"), ["P1"])
    with pytest.raises(UserError, match="column Score: the results have columns of that name"):
        load_layout(write(tmp_path / "l.csv", "well,perturbation,role,Score\nA1,x,sample,1\n"), ["P1"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no column plate, images; the columns are none"),
        ("\n\n", "no column"),
        ("plate,images\n", "lists no plate"),
        ("images\nx\n", "no column plate"),
        ("plate,images,plate\na,b,c\n", "two columns have the same name"),
        ("plate,images\nP1\n", "line 2: 1 cells where the header has 2"),
        ("plate,images\nP1,a,b\n", "line 2: 3 cells"),
        ('plate,images\nP1,"a\nP2,b\n', "fix the quotes"),
        ('plate,images\nP1,"a"b\n', "fix the quotes"),
        ("plate,images\nP1," + "x" * 200_000 + "\n", "field larger than field limit"),
    ],
)
def test_tables_that_cannot_be(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as raised:
        load_plates(write(tmp_path / "p.csv", text))
    assert "p.csv" in str(raised.value)


def test_table_in_another_encoding(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="save the table as UTF-8"):
        load_plates(write(tmp_path / "p.csv", "plate,images\nP1,é\n".encode("latin-1")))
    # What Excel calls "Unicode text".
    table = load_plates(write(tmp_path / "p.txt", "plate\timages\r\nP1\té\r\n".encode("utf-16")))
    assert table["images"].tolist() == ["é"]


@pytest.mark.parametrize("name", ["well_row", "batch", "score", "p", "q", "hit"])
def test_columns_that_the_results_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"column {name}: the results have"):
        load_layout(write(tmp_path / "l.csv", f"well,perturbation,role,{name}\nA1,x,sample,1\n"), ["P1"])


def test_without_plates_the_rows_are_checked_all_the_same(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a well"):
        load_layout(write(tmp_path / "l.csv", "plate,well,perturbation,role\nP1,Q99,x,sample\n"), None)
    load_layout(write(tmp_path / "l.csv", "plate,well,perturbation,role\nP1,A1,x,sample\n"), None)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=80) | st.text('",;\t\r\n A1B\ufeff', max_size=80))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_a_layout_or_refused(tmp_path: Path, text: str) -> None:
    for head in ("", "well,perturbation,role\n"):
        try:
            load_layout(write(tmp_path / "l.csv", head + text), ["P1"])
        except UserError as error:
            assert "l.csv" in str(error)


def test_controls(tmp_path: Path) -> None:
    table = controls(load_layout(write(tmp_path / "l.tsv", LAYOUT), ["P1"]))
    assert table.columns.tolist() == ["plate", "well", "well_row", "well_column", "role", "phenotype"]
    assert table["well"].tolist() == ["A01", "A02"]


def test_a_program_without_its_data_says_how_to_install_it(tmp_path: Path) -> None:
    # The package alone, as no installation leaves it.
    shutil.copytree(Path(wscnn.__file__).parent, tmp_path / "wscnn", ignore=shutil.ignore_patterns("__pycache__"))
    config = write(tmp_path / "config.yaml", yaml.safe_dump(MINIMAL))
    program = [sys.executable, "-c", "from wscnn.cli import main; main()", "check", str(config)]
    done = subprocess.run(
        program, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, text=True, capture_output=True
    )
    assert done.returncode == 1
    assert (
        done.stderr.startswith("error: ")
        and "install wscnn again with pip" in done.stderr
        and "Traceback" not in done.stderr
    )


def test_a_value_that_was_renamed_is_answered_with_its_new_name() -> None:
    with pytest.raises(UserError, match=r"arrange: 'stage' is called 'positions' now; write that"):
        section("mosaic", '{"arrange": "stage"}')
