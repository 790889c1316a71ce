"""`wscnn init` starts a screen that `wscnn check` accepts from any folder, or says what it cannot decide."""

import json
import tarfile
from pathlib import Path

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner, Result
from tiny import tiny_tiff

from wscnn.cli import main

SHARED = Path(__file__).parents[3] / "shared" / "data"
WELLS = [f"{row}{column:02d}" for row in "AB" for column in range(1, 7)]
GRID = ",1,2,3,4,5,6\nA,DMSO,DMSO,DMSO,DMSO,a,b\nB,taxol,taxol,taxol,a,b,a\n"


def init(screen: Path, *options: object) -> Result:
    return CliRunner().invoke(main, ["init", str(screen), *map(str, options)], catch_exceptions=False)


def problems(screen: Path) -> list[str]:
    """Return the problems that `wscnn check` finds."""
    done = CliRunner().invoke(main, ["check", "--json", str(screen / "config.yaml")], catch_exceptions=False)
    return json.loads(done.stdout)["problems"]


def make(images: Path, *names: str) -> Path:
    for name in names:
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        tiny_tiff(images / name)
    return images


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return a folder of a plate with 12 wells, 2 fields and 2 channels, named as by MetaXpress."""
    names = [f"exp_{well}_s{field}_w{channel}.TIF" for well in WELLS for field in (1, 2) for channel in (1, 2)]
    return make(tmp_path / "images" / "P1", *names)


@pytest.fixture
def plate_map(tmp_path: Path) -> Path:
    path = tmp_path / "map.csv"
    path.write_text(GRID)
    return path


def test_what_was_understood_is_shown_and_the_layout_is_left_to_fill_in(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(images, "overview.tif", "exp_A01_s1_w1_thumb12.TIF")
    monkeypatch.chdir(tmp_path)
    done = init(Path("screens/my_screen"), "--images", "images/P1")
    assert done.exit_code == 0, done.output
    lines = [line.split(maxsplit=1) for line in done.output.splitlines() if ":" in line]
    said = {words[0]: words[1] for words in lines if len(words) == 2}
    assert said["images:"].startswith("48, ")
    assert said["plates:"] == "1 (P1)"
    assert said["wells:"] == "12 per plate, A01 to B06"
    assert said["fields:"] == "2 per well"
    assert said["channels:"] == "2: ch1 ('1'), ch2 ('2')"
    examples = [line for line in done.output.splitlines() if " is plate P1, well " in line]
    assert len(examples) == 3
    assert "exp_A01_s1_w1.TIF is plate P1, well A01, field 1, channel ch1, plane 1, time point 1" in examples[0]
    assert "left out, because they do not fit: overview.tif" in done.output
    screen = tmp_path / "screens" / "my_screen"
    layout = pd.read_csv(screen / "layout.tsv", sep="\t", dtype=str, keep_default_na=False)
    assert layout["well"].tolist() == WELLS
    monkeypatch.chdir("/")
    lines = ", ".join(map(str, range(2, 7))) + " and 7 more"
    assert problems(screen) == [
        f"{screen}/layout.tsv, lines {lines}: perturbation: empty; fill it in",
        f"{screen}/layout.tsv, lines {lines}: role: empty; fill it in with negative, positive, sample, exclude",
    ]
    roles = ["negative"] * 4 + ["positive"] * 4 + ["sample"] * 4
    layout.assign(perturbation=roles, role=roles).to_csv(screen / "layout.tsv", sep="\t", index=False)
    assert problems(screen) == []


def test_a_plate_map_with_its_controls_leaves_nothing_to_fill_in(images: Path, tmp_path: Path, plate_map: Path) -> None:
    screen = tmp_path / "screen"
    done = init(
        screen, "--images", images, "--plate-map", plate_map, "--negative", "DMSO", "--positive", "taxol"
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    layout = pd.read_csv(screen / "layout.tsv", sep="\t", dtype=str, keep_default_na=False).set_index("well")
    assert layout.loc["A01", ["plate", "perturbation", "role"]].tolist() == ["", "DMSO", "negative"]
    assert layout.loc["B03", "role"] == "positive" and layout.loc["B05", "role"] == "sample"
    assert problems(screen) == []


def test_where_plate_map_and_images_differ_is_said(images: Path, tmp_path: Path, plate_map: Path) -> None:
    for path in images.glob("exp_A06_*"):
        path.unlink()
    plate_map.write_text(GRID.replace("B,taxol", "B,"))
    done = init(tmp_path / "screen", "--images", images, "--plate-map", plate_map)
    assert "of 1 wells of the plate map there are no images (A06)" in done.output
    assert "1 wells are not in the plate map and get role exclude (B01)" in done.output
    assert "fill in the role of every well, or give --negative and --positive" in done.output
    (problem,) = problems(tmp_path / "screen")
    assert "role: empty; fill it in with negative" in problem


def test_a_plate_map_that_does_not_fit_is_refused(images: Path, tmp_path: Path, plate_map: Path) -> None:
    done = init(tmp_path / "s", "--images", images, "--plate-map", plate_map, "--negative", "dmso")
    assert "the plate map has no perturbation dmso; it has DMSO, a, b, taxol" in done.output
    plate_map.write_text(f"P2\n{GRID}")
    done = init(tmp_path / "s", "--images", images, "--plate-map", plate_map)
    assert "the plate map names plate P2, of which there are no images; the plates are P1" in done.output
    done = init(tmp_path / "s", "--images", images, "--negative", "DMSO")
    assert "give --plate-map, too" in done.output
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("name", ["config.yaml", "plates.tsv", "layout.tsv"])
def test_nothing_is_overwritten(images: Path, tmp_path: Path, name: str) -> None:
    screen = tmp_path / "screen"
    screen.mkdir()
    (screen / name).write_text("mine")
    done = init(screen, "--images", images)
    assert done.exit_code == 1 and f"holds {name} already, which stay as they are; give another folder" in done.output
    assert [path.name for path in screen.iterdir()] == [name] and (screen / name).read_text() == "mine"


def test_a_screen_does_not_lie_in_its_images(images: Path) -> None:
    for screen in (images, images / "screen"):
        assert "is inside the images" in init(screen, "--images", images).output
    assert not (images / "screen").exists()


def test_names_that_leave_it_open_are_a_question(tmp_path: Path) -> None:
    images = make(tmp_path / "images", *(f"{well}_{number}.tif" for well in WELLS for number in (1, 2)))
    done = init(tmp_path / "screen", "--images", images)
    assert done.exit_code == 1 and not (tmp_path / "screen").exists()
    assert "'A01_1.tif': it is not clear what '1' means; give a pattern" in done.output
    pattern = r"(?P<well>[A-Z]\d+)_(?P<channel>\d)\.tif"
    assert "channels: 2: ch1 ('1'), ch2 ('2')" in init(tmp_path / "a", "--images", images, "--pattern", pattern).output
    rows = [f"{well}_{number}.tif\t{well}\t{number}\tDNA" for well in WELLS for number in (1, 2)]
    (tmp_path / "mine.tsv").write_text("\n".join(["path\twell\tfield\tchannel", *rows]) + "\n")
    done = init(tmp_path / "b", "--images", images, "--table", tmp_path / "mine.tsv")
    assert "fields:   2 per well" in done.output and "channels: 1: DNA" in done.output
    assert all("layout.tsv" in problem for problem in problems(tmp_path / "b"))


def test_numbered_wells_are_listed_in_a_table(tmp_path: Path, plate_map: Path) -> None:
    numbers = [*range(1, 7), *range(13, 19)]
    images = make(tmp_path / "images", *(f"W{number}F001T0001Z01C{c}.tif" for number in numbers for c in (1, 2)))
    done = init(tmp_path / "screen", "--images", images)
    assert "so its size has to be known; give wscnn init --wells with one of 6, 12" in done.output
    controls = ["--plate-map", plate_map, "--negative", "DMSO", "--positive", "taxol"]
    done = init(tmp_path / "screen", "--images", images, "--wells", "96", *controls)
    assert "W18F001T0001Z01C2.tif is plate images, well B06, field 1, channel ch2" in done.output
    assert "no pattern expresses these names, so images.tsv lists the images" in done.output
    assert problems(tmp_path / "screen") == []


def test_stacks_without_a_plane_in_their_names_stay_stacks_in_a_table(tmp_path: Path) -> None:
    images = make(tmp_path / "images", *(f"row{row}_col{col}_DAPI.tif" for row in (0, 1) for col in (0, 1)))
    init(tmp_path / "screen", "--images", images)
    header = (tmp_path / "screen" / "images.tsv").read_text().partition("\n")[0]
    assert header == "path\twell\tfield\tchannel\ttime"


@pytest.mark.parametrize("inside", ["exp_{well}_s1_w1.TIF", "TimePoint_1/exp_{well}_s1_w1.TIF"])
def test_plates_in_folders(tmp_path: Path, plate_map: Path, inside: str) -> None:
    names = [f"Plate {number}/{inside.format(well=well)}" for number in (1, 2) for well in WELLS]
    images = make(tmp_path / "images", *names)
    plate_map.write_text(f"Plate 1\n{GRID}\nPlate 2\n{GRID.replace('taxol', 'x').replace('DMSO', 'taxol')}")
    controls = ["--plate-map", plate_map, "--negative", "taxol", "--positive", "x"]
    done = init(tmp_path / "screen", "--images", images, *controls)
    assert "plates:   2 (Plate_1, Plate_2)" in done.output
    plates = pd.read_csv(tmp_path / "screen" / "plates.tsv", sep="\t")
    assert plates["images"].tolist() == [f"{images}/Plate 1", f"{images}/Plate 2"]
    layout = pd.read_csv(tmp_path / "screen" / "layout.tsv", sep="\t")
    assert len(layout) == 24 and set(layout["plate"]) == {"Plate_1", "Plate_2"}
    # A pattern, so that images that are added later are found.
    assert yaml.safe_load((tmp_path / "screen" / "config.yaml").read_text())["acquisition"]["format"] == "pattern"
    assert [problem for problem in problems(tmp_path / "screen") if "no well with role" not in problem] == []


def test_folders_that_are_channels_or_time_points_are_no_plates(tmp_path: Path) -> None:
    for folders in (("DAPI", "GFP"), ("TimePoint_1", "TimePoint_2")):
        images = make(
            tmp_path / folders[0], *(f"{folder}/exp_{well}_s1.TIF" for folder in folders for well in WELLS)
        )  # fmt: skip
        assert "plates:   1" in init(tmp_path / f"of_{folders[0]}", "--images", images).output


def test_names_of_folders_that_no_config_takes_are_refused(images: Path, tmp_path: Path) -> None:
    done = init(tmp_path / "{mine}", "--images", images)
    assert done.exit_code == 1 and "holds {" in done.output
    assert not (tmp_path / "{mine}").exists()


@pytest.mark.parametrize(
    ("archive", "folder", "said"),
    [
        ("scanr_export", "SCANR-C2-S1-T1", ["wells:    2 per plate, A01 to B02", "channels: 2: GFP, mcherry"]),
        (
            "acquisitions",
            "faim_ipa/resources/ImageXpress_exported/9987_Plate_3434",
            ["images:   36", "wells:    2", "channels: 3: DAPI ('1'), FITC ('2'), Texas_Red ('3')", "nuclei:   DAPI"],
        ),
        (
            "acquisitions",
            "faim_ipa/resources/ImageXpress_exported",
            ["plates:   3 (9987_Plate_3420, 9987_Plate_3434, 9987_Plate_3435)", "not every plate has it: channel 2, 3"],
        ),
        ("acquisitions", "faim_ipa/resources/CV8000", ["images:   96", "wells:    3", "fields:   4", "planes:   4"]),
        ("acquisitions", "operetta_compose/tests/operetta_plate", ["wells:    1", "fields:   2", "Fluorescein_FITC"]),
        ("imagexpress_multisite", "MD-MULTISITE-TIF", ["names as by MetaXpress", "wells:    2 per plate, A01 to A02"]),
    ],
)
def test_real_exports(
    archive: str, folder: str, said: list[str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    source = SHARED / f"{archive}.tar.xz"
    if not source.is_file():
        pytest.skip(f"the real export is not here: {source} is missing")
    unpacked = tmp_path_factory.getbasetemp() / f"init-{archive}"
    if not unpacked.exists():
        with tarfile.open(source) as tar:
            tar.extractall(unpacked, filter="data")
    done = init(tmp_path / "screen", "--images", unpacked / folder)
    assert done.exit_code == 0 and [text for text in said if text not in done.output] == [], done.output
    assert [problem for problem in problems(tmp_path / "screen") if "layout.tsv, line" not in problem] == []
