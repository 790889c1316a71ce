"""Broken and malicious metadata: each reader takes it or refuses it with the file's name; it never hangs or crashes.

The corpus changes real exports: cut short, bytes flipped, parts removed or repeated, values exchanged for ones that
overflow, leave the folder or fill the memory.
"""

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wscnn.acquisitions import open_acquisition
from wscnn.core.errors import UserError
from wscnn.core.wells import parse_well

Complete = Callable[..., dict[str, Any]]

#: The metadata of each export, one image of each, and what the channel is called.
EXPORTS = {
    "phenix": ("operetta_compose/tests/operetta_plate/Images", ["Index.idx.xml"], "*.tiff"),
    "cellvoyager": (
        "faim_ipa/resources/CV8000/CV8000-Minimal-DataSet-2C-3W-4S-FP2-stack_20230918_135839/"
        "CV8000-Minimal-DataSet-2C-3W-4S-FP2-stack",
        ["MeasurementData.mlf", "MeasurementDetail.mrf", "Minimal-3C3W2S-FP2-stack.mes"],
        "*_D08_T0001F001L01A01Z01C01.tif",
    ),
    "imagexpress": (
        "faim_ipa/resources/ImageXpress_exported/9987_Plate_3435/TimePoint_1",
        ["9987.HTD", "9987_B02_s1_w1.TIF"],
        "*_B02_s1_w1.TIF",
    ),
}
FILES = [(format_name, file) for format_name, (_, files, _) in EXPORTS.items() for file in files]

LAUGHS = (
    b"""<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha">%s]><EvaluationInputData>&z;</EvaluationInputData>"""
    % b"".join(b'<!ENTITY %c "%s">' % (i, b"&%c;" % (i - 1) * 10) for i in range(ord("b"), ord("z") + 1))
)
OUTSIDE = b"""<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a><URL>&x;</URL></a>"""
NASTY = [
    b"",
    b"\0" * 1000,
    b"\xff\xfe<\0?\0x\0m\0l\0",
    b"<",
    b"<a/>",
    b"<a>" * 100_000,
    b"<a " + b" ".join(b'x%d="1"' % i for i in range(10_000)) + b"/>",
    b'<?xml version="1.0" encoding="no-such"?><a/>',
    b'<?xml version="1.0" encoding="utf-16"?><a/>',
    b"II*\0\xff\xff\xff\xff",
    b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 100,
    b'"HTSInfoFile"\n' + b'"' * 1001,
    b'"HTSInfoFile", 1.0\n"WaveName99999999999999999999", "x"\n"WaveName1"\n"WaveName1", "a", "b"',
    b'"HTSInfoFile",' + b"x" * 500_000,
    LAUGHS,
    OUTSIDE,
]
VALUES = [
    b"",
    b"-1",
    b"99999999999999999999999",
    b"1e309",
    b"-1e308",
    b"NaN",
    "١".encode(),
    b"&lt;",
    b"../../../etc/passwd",
    b"/etc/passwd",
    b"A" * 5000,
]


@pytest.fixture(scope="module")
def originals(exports: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return for each format a small folder with its metadata and one image."""
    folders = {}
    for format_name, (source, files, images) in EXPORTS.items():
        folders[format_name] = tmp_path_factory.mktemp(format_name)
        for name in files:
            shutil.copy(exports / source / name, folders[format_name])
        for path in (exports / source).glob(images):
            shutil.copy(path, folders[format_name])
    # Three records show what a hundred would.
    records = folders["cellvoyager"] / "MeasurementData.mlf"
    head, *each = records.read_bytes().split(b"<bts:MeasurementRecord")
    records.write_bytes(b"<bts:MeasurementRecord".join([head, *each[:3]]) + b"</bts:MeasurementData>")
    return folders


def attempt(folder: Path, acquisition: dict[str, Any]) -> pd.DataFrame | None:
    """Return the index, or None where the reader refused it in a sentence that names the folder."""
    start = time.monotonic()
    try:
        table = open_acquisition(folder, acquisition).index("P")
    except UserError as error:
        assert str(folder) in str(error), error
        assert "Traceback" not in str(error)
        assert len(str(error)) < 2000
        table = None
    assert time.monotonic() - start < 10
    if table is not None:
        for well in table["well"].unique():
            parse_well(well)
        # Nothing outside the folder is ever listed.
        for path in table["path"].unique():
            assert Path(path).resolve().is_relative_to(folder.resolve())
        assert not (table[["y_um", "x_um", "pixel_size_um"]].abs() == float("inf")).any(axis=None)
    return table


@pytest.fixture
def broken(
    originals: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, settings: Complete
) -> Callable[[str, str, bytes], pd.DataFrame | None]:
    """Return a function that exchanges a file of an export for `content` and reads it."""
    made: dict[str, Path] = {}

    def read(format_name: str, file: str, content: bytes) -> pd.DataFrame | None:
        if format_name not in made:
            made[format_name] = tmp_path_factory.mktemp("broken") / format_name
            shutil.copytree(originals[format_name], made[format_name])
        (made[format_name] / file).write_bytes(content)
        return attempt(made[format_name], settings({"1": "DNA"}, format=format_name, z=1))

    return read


def test_what_is_not_broken_is_read(originals: dict[str, Path], broken: Callable) -> None:
    for format_name, file in FILES:
        assert len(broken(format_name, file, (originals[format_name] / file).read_bytes())) > 0


@pytest.mark.parametrize(("format_name", "file"), FILES)
def test_cut_short(originals: dict[str, Path], broken: Callable, format_name: str, file: str) -> None:
    whole = (originals[format_name] / file).read_bytes()
    for size in range(0, len(whole), max(len(whole) // 40, 1)):
        broken(format_name, file, whole[:size])


@pytest.mark.parametrize(("format_name", "file"), FILES)
def test_nasty_files(broken: Callable, format_name: str, file: str) -> None:
    for content in NASTY:
        broken(format_name, file, content)


@pytest.mark.parametrize("content", [LAUGHS, OUTSIDE])
@pytest.mark.parametrize(("format_name", "file"), [("phenix", "Index.idx.xml"), ("cellvoyager", "MeasurementData.mlf")])
def test_entities_are_refused(
    originals: dict[str, Path], settings: Complete, tmp_path: Path, format_name: str, file: str, content: bytes
) -> None:
    shutil.copytree(originals[format_name], tmp_path / "x")
    (tmp_path / "x" / file).write_bytes(content)
    with pytest.raises(UserError, match=f"{file}: declares XML entities"):
        open_acquisition(tmp_path / "x", settings({"1": "DNA"})).index("P")


def changed_values(content: bytes) -> Iterator[bytes]:
    """Yield an XML file with one kind of value at a time exchanged for each of `VALUES`."""
    kinds = set(re.findall(rb"<(\w+)(?: [^<>]*)?>[^<>]+</", content)) | set(re.findall(rb' ([\w:]+)="', content))
    for kind in sorted(kinds):
        for value in VALUES:
            element = re.sub(
                rb"(<%s(?: [^<>]*)?>)[^<>]*(</)" % kind, lambda m, v=value: m[1] + v + m[2], content, count=1
            )
            yield re.sub(rb'( %s=")[^"]*(")' % kind, lambda m, v=value: m[1] + v + m[2], element, count=1)


@pytest.mark.parametrize(("format_name", "file"), [pair for pair in FILES if pair[0] in ("phenix", "cellvoyager")])
def test_values_that_cannot_be(originals: dict[str, Path], broken: Callable, format_name: str, file: str) -> None:
    whole = (originals[format_name] / file).read_bytes()
    n = 0
    for content in changed_values(whole):
        broken(format_name, file, content)
        n += 1
    assert n > 100


@pytest.mark.parametrize(("format_name", "file"), FILES)
def test_random_damage(originals: dict[str, Path], broken: Callable, format_name: str, file: str) -> None:
    whole = (originals[format_name] / file).read_bytes()[:20_000]

    @given(
        st.lists(
            st.tuples(st.integers(0, len(whole)), st.integers(0, 300), st.binary(max_size=20)), min_size=1, max_size=4
        )
    )
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    def damage(edits: list[tuple[int, int, bytes]]) -> None:
        content = whole
        for start, removed, added in edits:
            content = content[:start] + added + content[start + removed :]
        broken(format_name, file, content)

    damage()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=200))
def test_random_bytes_as_any_metadata(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("random")
    for name in ("Index.xml", "MeasurementData.mlf", "MeasurementDetail.mrf", "p.HTD", "p_A01_s1_w1.tif", "zarr.json"):
        (folder / name).write_bytes(content)
    for format_name in ("phenix", "cellvoyager", "imagexpress", "omezarr", "auto"):
        acquisition = {
            "format": format_name,
            "pattern": None,
            "table": str(folder / "table.tsv"),
            "channels": {"1": "DNA"},
            "pixel_size_um": None,
        }
        attempt(folder, acquisition)
    shutil.rmtree(folder)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["plate", "wells", "path", "well", "images", "multiscales", "axes", "datasets", "shape", "omero"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(JSON, JSON, JSON, JSON)
def test_random_json_as_ome_zarr(
    tmp_path_factory: pytest.TempPathFactory, plate: object, well: object, image: object, array: object
) -> None:
    folder = tmp_path_factory.mktemp("random") / "P.zarr"
    root: object = {"plate": {"wells": [{"path": "A/1"}]}} if isinstance(plate, list) else plate
    for place, content in {".": root, "A/1": well, "A/1/0": image}.items():
        (folder / place).mkdir(parents=True, exist_ok=True)
        (folder / place / ".zattrs").write_text(json.dumps(content))
    (folder / "A/1/0/0").mkdir()
    (folder / "A/1/0/0/.zarray").write_text(json.dumps(array))
    attempt(folder, {"format": "omezarr", "pattern": None, "channels": {"1": "DNA"}, "pixel_size_um": None})
    shutil.rmtree(folder.parent)


def test_how_many_broken_files_there_are(originals: dict[str, Path]) -> None:
    """The corpus without what hypothesis adds: 40 cuts and every nasty file for each, and the exchanged values."""
    n = sum(40 + len(NASTY) for _ in FILES)
    n += sum(
        len(list(changed_values((originals[kind] / file).read_bytes())))
        for kind, file in FILES
        if kind != "imagexpress"
    )
    assert n > 1000
