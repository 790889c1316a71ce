import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wscnn.acquisitions import tiff as reader
from wscnn.acquisitions.tiff import MAX_PIXELS, read_tiff, tiff_planes
from wscnn.core.errors import UserError

IMAGE = np.random.default_rng(0).integers(0, 4096, (70, 90)).astype(np.uint16)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"byteorder": ">"},
        {"bigtiff": True},
        {"rowsperstrip": 7},
        {"tile": (32, 48)},
        {"compression": "lzw"},
        {"compression": "zlib", "predictor": True},
        {"compression": "zstd", "tile": (16, 16)},
        {"compression": "packbits", "byteorder": ">"},
        {"photometric": "miniswhite"},
    ],
    ids=str,
)
def test_every_kind_of_file_gives_the_pixels_that_were_written(tmp_path: Path, options: dict) -> None:
    path = tmp_path / "a b'ü.tif"
    tifffile.imwrite(path, IMAGE, **{"photometric": "minisblack"} | options)
    image = read_tiff(path)
    assert image.dtype == np.uint16 and image.dtype.isnative
    np.testing.assert_array_equal(image, IMAGE)


def test_pages_are_counted_from_zero(tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, np.stack([IMAGE, IMAGE + 1, IMAGE + 2]), photometric="minisblack")
    np.testing.assert_array_equal(read_tiff(path, 2), IMAGE + 2)
    with pytest.raises(UserError, match=r"stack\.tif: has no page 3 \(it has 3\)"):
        read_tiff(path, 3)


def test_a_stack_is_never_taken_for_one_image(tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, np.stack([IMAGE, IMAGE + 1, IMAGE + 2]), photometric="minisblack")
    assert tiff_planes(path) == [0, 1, 2]
    with pytest.raises(UserError, match=r"stack\.tif: holds 3 images where one is expected"):
        read_tiff(path)


def test_thumbnails_and_smaller_copies_are_no_planes(tmp_path: Path) -> None:
    path = tmp_path / "pyramid.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(IMAGE, photometric="minisblack", subifds=1)
        writer.write(IMAGE[::2, ::2], photometric="minisblack", subfiletype=1)
        writer.write(IMAGE[::4, ::4], photometric="minisblack")
        writer.write((IMAGE >> 4).astype(np.uint8), photometric="minisblack")
    assert tiff_planes(path) == [0]
    np.testing.assert_array_equal(read_tiff(path), IMAGE)


def test_ome_metadata_are_parsed_once_per_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stack.ome.tif"
    stack = np.stack([IMAGE + i for i in range(5)])
    tifffile.imwrite(path, stack, photometric="minisblack", metadata={"axes": "ZYX"}, ome=True)
    parsed = []
    parse = reader.fromstring
    monkeypatch.setattr(reader, "fromstring", lambda text: parsed.append(text) or parse(text))
    planes = tiff_planes(path)
    np.testing.assert_array_equal(np.stack([read_tiff(path, page) for page in planes]), stack)
    assert len(parsed) == 1


@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_pages_that_are_channels_or_times_by_the_files_words_are_no_planes(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "said.tif"
    stack = np.stack([IMAGE, IMAGE + 1])
    for axes in "CT":
        tifffile.imwrite(path, stack, photometric="minisblack", metadata={"axes": f"{axes}YX"}, **{kind: True})
        for page in (None, 0, 1):
            with pytest.raises(UserError, match=r"said\.tif: its 2 pages are channels or time points"):
                read_tiff(path, page)
    tifffile.imwrite(path, stack, photometric="minisblack", metadata={"axes": "ZYX"}, **{kind: True})
    np.testing.assert_array_equal(read_tiff(path, 1), IMAGE + 1)


def test_images_without_pages_of_their_own_are_told(tmp_path: Path) -> None:
    path = tmp_path / "large.tif"
    # As ImageJ writes files of more than 4 GiB.
    tifffile.imwrite(path, IMAGE, photometric="minisblack", description="ImageJ=1.53t\nimages=3\nslices=3\n")
    with pytest.raises(UserError, match=r"large\.tif: its 3 images are not pages"):
        read_tiff(path)


@pytest.mark.parametrize("dtype", ["int16", "uint32", "int32", "float32", "float64"])
def test_other_types_are_taken_when_nothing_is_lost(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "other.tif"
    tifffile.imwrite(path, IMAGE.astype(dtype), photometric="minisblack")
    image = read_tiff(path)
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image, IMAGE)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (IMAGE.astype(np.int16) - 5000, "cannot be kept"),
        (IMAGE.astype(np.uint32) + 65000, "cannot be kept"),
        (IMAGE.astype(np.float32) + 0.5, "cannot be kept"),
        (np.where(IMAGE > 4000, np.nan, IMAGE).astype(np.float32), "not numbers"),
        (IMAGE.astype(np.complex64), "complex64"),
    ],
)
def test_values_that_would_be_lost_are_refused(tmp_path: Path, image: np.ndarray, words: str) -> None:
    path = tmp_path / "lossy.tif"
    tifffile.imwrite(path, image, photometric="minisblack")
    with pytest.raises(UserError, match=rf"lossy\.tif: .*{words}"):
        read_tiff(path)


def test_colour_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "colour.tif"
    tifffile.imwrite(path, np.zeros((20, 30, 3), np.uint8), photometric="rgb")
    with pytest.raises(UserError, match=r"colour\.tif: a colour image \(RGB\)"):
        read_tiff(path)


def test_what_is_no_file_with_an_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.tif").touch()
    (tmp_path / "text.tif").write_text("not an image")
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "loop.tif").symlink_to(tmp_path / "loop.tif")
    (tmp_path / "nopage.tif").write_bytes(b"II*\0\0\0\0\0")
    for name in ("missing", "empty", "text", "folder", "loop", "nopage"):
        with pytest.raises(UserError, match=rf"{name}\.tif: "):
            read_tiff(tmp_path / f"{name}.tif")


@pytest.mark.parametrize(
    "options", [{}, {"compression": "lzw"}, {"tile": (16, 16)}, {"compression": "packbits"}], ids=str
)
def test_truncated_anywhere_is_an_error_or_whole(tmp_path: Path, options: dict) -> None:
    path = tmp_path / "whole.tif"
    tifffile.imwrite(path, IMAGE, photometric="minisblack", **options)
    data = path.read_bytes()
    for size in np.linspace(0, len(data) - 1, 60).astype(int):
        cut = tmp_path / "cut.tif"
        cut.write_bytes(data[:size])
        with pytest.raises(UserError, match=r"cut\.tif: "):
            read_tiff(cut)


def test_claimed_sizes_do_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tif"
    tifffile.imwrite(path, np.zeros((16, 16), np.uint8), photometric="minisblack", compression="zlib")
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        places = [tiff.pages[0].tags[name] for name in ("ImageWidth", "ImageLength")]
        for tag in places:
            struct.pack_into("<I" if tag.dtype == 4 else "<H", data, tag.valueoffset, 65535)
    path.write_bytes(data)
    assert MAX_PIXELS < 65535**2
    with pytest.raises(UserError, match=r"bomb\.tif: claims 65535 x 65535"):
        read_tiff(path)


@pytest.mark.parametrize("dtype", ["float64", "uint16", "complex64"])
def test_little_that_unpacks_to_very_much_is_not_unpacked(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "bomb.tif"
    side, rows = 16384, 2048
    packer = zlib.compressobj()
    row = bytes(side * np.dtype(dtype).itemsize)
    strip = b"".join([*(packer.compress(row) for _ in range(rows)), packer.flush()])
    tifffile.imwrite(
        path,
        iter([strip] * (side // rows)),
        shape=(side, side),
        dtype=dtype,
        compression="zlib",
        rowsperstrip=rows,
        photometric="minisblack",
    )
    assert path.stat().st_size < 3e6
    # In a process of its own, whose highest memory this file's reading makes.
    code = (
        "import re, sys; from pathlib import Path; from wscnn.acquisitions.tiff import read_tiff\n"
        "def most(): return int(re.search(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "before = most()\n"
        "try: read_tiff(Path(sys.argv[1]))\n"
        "except Exception as error: print(error)\n"
        "print(most() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    said, more_kib = done.stdout.splitlines()
    assert "bomb.tif: " in said and dtype in said
    assert int(more_kib) < 50_000


def test_a_dark_field_that_packs_well_is_read(tmp_path: Path) -> None:
    path = tmp_path / "dark.tif"
    tifffile.imwrite(path, np.zeros((2160, 2560), np.uint16), photometric="minisblack", compression="zlib")
    assert not read_tiff(path).any()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), compression=st.sampled_from([None, "lzw", "zlib"]), tiled=st.booleans())
def test_flipped_bytes_never_end_in_anything_but_an_image_or_a_named_error(
    tmp_path: Path, data: st.DataObject, compression: str | None, tiled: bool
) -> None:
    path = tmp_path / "fuzz.tif"
    tifffile.imwrite(
        path, IMAGE[:24, :32], photometric="minisblack", compression=compression, tile=(16, 16) if tiled else None
    )
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        image = read_tiff(path)
    except UserError as error:
        assert "fuzz.tif" in str(error)
    else:
        assert image.ndim == 2 and image.dtype in (np.uint8, np.uint16)


def test_a_file_cut_before_its_directory_or_between_pages_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    with tifffile.TiffWriter(path) as tiff:
        for n in range(3):
            tiff.write(IMAGE + n, photometric="minisblack", contiguous=False)
    with tifffile.TiffFile(path) as tiff:
        directories = [page.offset for page in tiff.pages]
    whole = path.read_bytes()
    for size in (directories[1], directories[2], directories[2] + 5):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"stack\.tif: the file is truncated"):
            tiff_planes(path)
        with pytest.raises(UserError, match=r"stack\.tif: the file is truncated"):
            read_tiff(path, 0)
