"""`check` finds all that is wrong, at once, and names file, line and what to do."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from click.testing import CliRunner
from tiny import tiny_tiff

from wscnn.acquisitions.index import index_plate
from wscnn.cli import main
from wscnn.core.errors import UserError
from wscnn.core.tables import read_table
from wscnn.network.card import Card
from wscnn.network.model import ARCHITECTURES, WSCNN
from wscnn.network.weights import save_model
from wscnn.plates.store import Channel, PlateWriter
from wscnn.preflight.check import LARGE_FIELD, Screen, _ignored, check_screen, write_screen
from wscnn.preflight.scale import factor_of_card

PATTERN = r"(?P<well>[A-Z]+\d+)_s(?P<field>\d+)_w(?P<channel>\d)\.tif"
ROWS = "ABCDEFGH"
THRESHOLDS = {"rare": {"field": 0.0, "place": 0.0}}


class Setup:
    """A screen of two 96-well plates, two fields and two channels, complete and without a fault."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plates = {"P1": "images/P1", "P2": "images/P2"}
        #: Role and phenotype by column: negatives in 3 and 10, positives in 5 and 8.
        roles = {3: "negative\t", 10: "negative\t", 5: "positive\trare", 8: "positive\trare"}
        self.layout = ["well\tperturbation\trole\tphenotype\tdose"]
        for row in ROWS:
            for column in range(1, 13):
                name = {"negative\t": "DMSO", "positive\trare": "drug"}.get(
                    roles.get(column, ""), f"g{row}{column // 2}"
                )
                self.layout.append(f"{row}{column:02d}\t{name}\t{roles.get(column, 'sample' + chr(9))}\t1")
        self.config: dict = {
            "screen": "s",
            "plates": str(folder / "plates.tsv"),
            "layout": str(folder / "layout.tsv"),
            "acquisition": {"channels": {"1": "DNA", "2": "actin"}, "pattern": PATTERN},
        }
        for images in self.plates.values():
            (folder / images).mkdir(parents=True)
            for row in ROWS:
                for column in range(1, 13):
                    for field in (1, 2):
                        for channel in (1, 2):
                            tiny_tiff(folder / images / f"{row}{column:02d}_s{field}_w{channel}.tif")

    def check(self) -> Screen:
        rows = [f"{plate}\t{self.folder / images}\tb{plate}" for plate, images in self.plates.items()]
        (self.folder / "plates.tsv").write_text("\n".join(["plate\timages\tbatch", *rows]) + "\n")
        (self.folder / "layout.tsv").write_text("\n".join(self.layout) + "\n")
        (self.folder / "config.yaml").write_text(json.dumps(self.config))
        return check_screen(self.folder / "config.yaml")

    def problems(self) -> list[str]:
        with pytest.raises(UserError) as raised:
            self.check()
        return raised.value.problems

    def replace(self, well: str, change: Callable[[str], str]) -> int:
        """Change a well's row; return its line in the file."""
        at = next(i for i, row in enumerate(self.layout) if row.startswith(well))
        self.layout[at] = change(self.layout[at])
        return at + 1


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


def test_a_faultless_screen(setup: Setup) -> None:
    screen = setup.check()
    assert screen.plates["plate"].tolist() == ["P1", "P2"]
    assert screen.layout.columns.tolist() == [
        "plate", "well", "well_row", "well_column", "perturbation", "role", "phenotype", "batch", "dose",
    ]  # fmt: skip
    assert len(screen.layout) == 2 * 96
    assert screen.layout.groupby("plate")["batch"].unique().str[0].to_dict() == {"P1": "bP1", "P2": "bP2"}
    assert not any("edge" in warning or "one well only" in warning for warning in screen.warnings)


def test_tables_that_are_written(setup: Setup, tmp_path: Path) -> None:
    screen = setup.check()
    write_screen(screen, tmp_path / "out" / "layout.parquet", tmp_path / "out" / "controls.parquet")
    assert read_table(tmp_path / "out" / "layout.parquet").equals(screen.layout.reset_index(drop=True))
    controls = read_table(tmp_path / "out" / "controls.parquet")
    assert controls.columns.tolist() == ["plate", "well", "well_row", "well_column", "role", "phenotype"]
    assert controls["role"].value_counts().to_dict() == {"negative": 32, "positive": 32}


def test_controls_do_not_change_with_the_name_of_a_sample(setup: Setup, tmp_path: Path) -> None:
    write_screen(setup.check(), tmp_path / "l1", tmp_path / "c1")
    setup.replace("A01", lambda row: row.replace("gA0", "mended"))
    write_screen(setup.check(), tmp_path / "l2", tmp_path / "c2")
    assert (tmp_path / "c1").read_bytes() == (tmp_path / "c2").read_bytes()
    assert (tmp_path / "l1").read_bytes() != (tmp_path / "l2").read_bytes()


def test_well_without_images(setup: Setup) -> None:
    for path in (setup.folder / "images/P2").glob("C04*"):
        path.unlink()
    line = setup.replace("C04", lambda row: row)
    (told,) = setup.problems()
    assert told.startswith(f"{setup.folder / 'layout.tsv'}: plate 'P2': no image of well C04 (line {line}) in ")
    setup.replace("C04", lambda row: row.replace("sample", "exclude"))
    setup.check()


def test_files_of_an_excluded_well_do_not_matter(setup: Setup) -> None:
    (setup.folder / "images/P1/C04_s1_w2.tif").unlink()
    tiny_tiff(setup.folder / "images/P1/C4_s02_w2.tif")
    setup.replace("C04", lambda row: row.replace("sample", "exclude"))
    setup.check()


def test_a_well_that_was_excluded_when_its_plate_was_staged_and_put_away(setup: Setup, tmp_path: Path) -> None:
    setup.config["results"] = str(setup.folder / "results")
    line = setup.replace("C04", lambda row: row.replace("sample", "exclude"))
    screen = setup.check()
    write_screen(screen, tmp_path / "layout", tmp_path / "controls")
    results, images = setup.folder / "results/s", setup.folder / "images/P2"
    index_plate("P2", images, screen.config["acquisition"], results / "index/P2.parquet", tmp_path / "layout")
    (results / "plates").mkdir()
    (results / "plates/P2.json").write_text("{}")
    shutil.rmtree(images)
    setup.check()
    setup.replace("C04", lambda row: row.replace("exclude", "sample"))
    (told,) = setup.problems()
    assert f"plate 'P2': no image of well C04 (line {line}) in {images}; copy the images there" in told


def test_images_without_a_row(setup: Setup) -> None:
    setup.layout = [row for row in setup.layout if not row.startswith("H12")]
    (told,) = setup.problems()
    assert "plate 'P1': no row for well H12, of which there are images" in told
    assert told.endswith("; the same holds for plate 'P2'")


def test_missing_field(setup: Setup) -> None:
    for path in (setup.folder / "images/P1").glob("B07_s2_*"):
        path.unlink()
    line = setup.replace("B07", lambda row: row)
    (told,) = setup.problems()
    assert told.startswith(f"{setup.folder / 'layout.tsv'}: plate 'P1', well B07 (line {line}): field 2 is missing")
    assert "role exclude" in told
    setup.config["acquisition"]["missing_fields"] = "accept"
    screen = setup.check()
    assert any("well B07" in warning and "field 2 is missing" in warning for warning in screen.warnings)
    write_screen(screen, *(setup.folder / name for name in ("layout.parquet", "controls.parquet", "warnings.parquet")))
    warnings = read_table(setup.folder / "warnings.parquet").query("code == 'missing_fields'")
    assert warnings[["stage", "plate"]].to_numpy().tolist() == [["check", "P1"]]
    # Tables hold no path.
    assert not any(str(setup.folder) in message for message in read_table(setup.folder / "warnings.parquet")["message"])


def test_missing_channel_of_a_field(setup: Setup) -> None:
    (setup.folder / "images/P1/B07_s2_w2.tif").unlink()
    (told,) = setup.problems()
    assert "well B07" in told
    assert "well B07, field 2: no image of channel actin" in told


def test_channel_that_no_file_has(setup: Setup) -> None:
    setup.config["acquisition"]["channels"] = {"1": "DNA", "5": "tubulin"}
    (told,) = setup.problems()
    assert "no image of channel tubulin ('5' in acquisition.channels); unlisted channels there are 2" in told


def test_no_listed_channel_at_all(setup: Setup) -> None:
    setup.config["acquisition"]["channels"] = {"DAPI": "DNA"}
    (told,) = setup.problems()
    assert "the instrument's channels here are 1, 2" in told


def test_two_files_for_one_field(setup: Setup) -> None:
    tiny_tiff(setup.folder / "images/P1/B7_s02_w2.tif")
    (told,) = setup.problems()
    assert "B07_s2_w2.tif" in told
    assert "B7_s02_w2.tif: both are well B07, field 2, channel actin" in told


def test_time_point_that_there_is_not(setup: Setup) -> None:
    setup.config["acquisition"]["time"] = 4
    (told,) = setup.problems()
    assert "acquisition.time: no time point 4; there are 1; correct it" in told


def test_missing_and_unmatched_folders_of_some_plates(setup: Setup) -> None:
    setup.plates |= {"P3": "images/none", "P4": "images/empty"}
    (setup.folder / "images/empty").mkdir()
    told = setup.problems()
    assert len(told) == 2
    assert "images/none: no such folder" in told[1]
    assert "images/empty: holds no file" in told[0]


def test_a_folder_that_cannot_be_looked_at_is_one_problem_among_others(setup: Setup) -> None:
    setup.plates |= {"P3": "images/none", "P4": "images/" + "x" * 300}
    told = setup.problems()
    assert len(told) == 2
    assert any("x: cannot be read (File name too long)" in problem for problem in told)


def test_one_folder_given_for_two_plates(setup: Setup) -> None:
    setup.plates["P2"] = "images/P1"
    (told,) = setup.problems()
    assert "plates 'P1' and 'P2' have the same images" in told


def test_too_few_controls(setup: Setup) -> None:
    setup.layout = [setup.layout[0]] + [
        row.replace("negative", "sample") if row[0] != "A" else row.replace("positive\trare", "positive\tother")
        for row in setup.layout[1:]
    ]
    setup.layout = [
        row.replace("positive\tother", "positive\tfew") if row.startswith("A05") else row for row in setup.layout
    ]
    setup.layout = [row.replace("positive\tother", "sample\t") for row in setup.layout]
    told = setup.problems()
    # On two plates: A03 and A10 are four negative wells, A05 two wells of phenotype few.
    assert len(told) == 1
    assert "2 wells of class few, but three folds need at least 3" in told[0]


@pytest.mark.parametrize(("hold_out", "many"), [("plate", "plates"), ("batch", "batches")])
def test_fewer_plates_or_batches_than_three_cannot_be_held_out(setup: Setup, hold_out: str, many: str) -> None:
    setup.config["train"] = {"hold_out": hold_out}
    (problem,) = setup.problems()
    assert f"train.hold_out: {hold_out} needs at least 3 {many}" in problem
    assert "but there are 2" in problem


def test_no_positive_and_no_negative(setup: Setup) -> None:
    setup.layout = [row.replace("positive\trare", "sample\t").replace("negative", "sample") for row in setup.layout]
    told = "\n".join(setup.problems())
    assert "0 wells of class negative" in told
    assert "no well has role positive" in told
    assert "plate 'P1' has no well with role negative, against which" in told


def test_all_problems_at_once(setup: Setup) -> None:
    (setup.folder / "images/P1/B07_s2_w2.tif").unlink()
    for path in (setup.folder / "images/P2").glob("C04*"):
        path.unlink()
    setup.plates["P3"] = "images/none"
    setup.layout = [row.replace("positive\trare", "sample\t") for row in setup.layout]
    told = setup.problems()
    assert len(told) == 4


def test_faults_of_both_tables_at_once(setup: Setup) -> None:
    setup.plates["../x"] = "images/P1"
    setup.replace("A01", lambda row: row.replace("sample", "smaple"))
    told = setup.problems()
    assert len(told) == 2
    assert "plates.tsv, line 4: plate: '../x' cannot name a folder" in told[0]
    assert "layout.tsv, line 2: role: 'smaple' is not one of" in told[1]


def test_column_that_the_hit_table_has(setup: Setup) -> None:
    setup.layout[0] = setup.layout[0].replace("dose", "effect")
    (told,) = setup.problems()
    assert "column effect: the results have columns of that name; rename it" in told


def test_model_that_is_not_there(setup: Setup) -> None:
    setup.config["model"] = {"checkpoint": str(setup.folder / "model")}
    (told,) = setup.problems()
    assert "holds no model" in told


def test_model_that_does_not_fit(setup: Setup) -> None:
    folder = setup.folder / "model"
    folder.mkdir()
    network = WSCNN("wscnn4", "noisy_or", n_channels=1, n_classes=2)
    card = Card("wscnn4", "noisy_or", "same", ["tubulin"], 0.5, ["negative", "rare"], "other", 0, {}, THRESHOLDS)
    save_model(folder / "fold-0.safetensors", network, card)
    setup.config["model"] = {"checkpoint": str(folder)}
    setup.config["acquisition"]["pixel_size_um"] = 0.65
    setup.config["mosaic"] = {"downsample": 2}
    told = setup.problems()
    assert len(told) == 2
    assert "no channel tubulin" in told[0]
    assert "a mosaic pixel is 1.3 um, but the model was trained at 0.5 um" in told[1]


def test_trained_model_needs_no_positive_controls(setup: Setup) -> None:
    folder = setup.folder / "model"
    folder.mkdir()
    network = WSCNN("wscnn4", "noisy_or", n_channels=1, n_classes=2)
    card = Card("wscnn4", "noisy_or", "same", ["actin"], None, ["negative", "rare"], "other", 0, {}, THRESHOLDS)
    save_model(folder / "fold-0.safetensors", network, card)
    setup.config["model"] = {"checkpoint": str(folder)}
    setup.layout = [row.replace("positive\trare", "sample\t") for row in setup.layout]
    assert len(setup.check().layout) == 192


def test_discovery_needs_no_positive_controls(setup: Setup) -> None:
    setup.layout = [row.replace("positive\trare", "sample\t") for row in setup.layout]
    [problem] = setup.problems()
    assert "no well has role positive" in problem and "discovery.method: novelty" in problem
    setup.config["discovery"] = {"method": "novelty"}
    assert set(setup.check().layout["role"]) == {"negative", "sample"}


def test_what_discovery_cannot_work_with_is_told_at_once(setup: Setup) -> None:
    setup.config |= {"discovery": {"method": "novelty"}, "hits": {"normalize": "control_percent"}}
    setup.layout = [row.replace("positive\trare", "positive\tnovelty") for row in setup.layout]
    # Five negative controls are left on each plate.
    kept = [at for at, row in enumerate(setup.layout) if "negative" in row][:5]
    setup.layout = [row if at in kept else row.replace("negative\t", "sample\t") for at, row in enumerate(setup.layout)]
    text = "\n".join(setup.problems())
    assert "hits.normalize: control_percent needs positive controls" in text
    assert "phenotype novelty is a name that discovery.method uses" in text
    assert "fewer than 6 wells have role negative on plate 'P1' (5), 'P2' (5)" in text


def test_discovery_beside_an_applied_model_is_refused(setup: Setup) -> None:
    save_folds(setup.folder / "model", "compact", ["DNA", "actin"])
    setup.config |= {"discovery": {"method": "novelty"}, "model": {"checkpoint": str(setup.folder / "model")}}
    assert any("discovery.method: needs an encoder that learns from this screen" in text for text in setup.problems())


def test_settings_that_no_network_can_be_trained_with(setup: Setup) -> None:
    setup.config["model"] = {"channels": ["GFP", "DNA"]}
    setup.config["model"]["architecture"] = "compact"
    setup.config["train"] = {"crop": 32, "freeze": 1}
    assert setup.problems() == [
        "model.channels: 'GFP' is none of the channels DNA, actin in acquisition.channels; correct it",
        "train.crop: 32 px is too small for the network 'compact', which needs 40; raise it",
        "train.freeze: layers can be frozen only when train.start_from names a trained model",
    ]
    # All of this is for training alone.
    folder = setup.folder / "model"
    save_folds(folder, "compact", ["actin"])
    setup.config["model"]["checkpoint"] = str(folder)
    setup.check()


def save_folds(folder: Path, architecture: str, channels: list[str]) -> None:
    """Write three folds that were not trained."""
    network = WSCNN(architecture, "noisy_or", len(channels), 2)
    for fold in range(3):
        card = Card(
            architecture, "noisy_or", "topk", channels, None, ["negative", "rare"], "other", fold, {}, THRESHOLDS
        )
        save_model(folder / f"fold-{fold}.safetensors", network, card)


def test_a_model_to_start_from_has_to_be_there_whole_and_fit(setup: Setup) -> None:
    folder = setup.folder / "model"
    setup.config["model"] = {"architecture": "compact"}
    setup.config["train"] = {"start_from": str(folder), "freeze": 3}
    assert all("cannot be read" in told and "train.start_from" in told for told in setup.problems())
    save_folds(folder, "compact", ["DNA", "actin"])
    setup.check()
    (folder / "fold-2.safetensors").unlink()
    (told,) = setup.problems()
    assert told.startswith(f"train.start_from: {folder}/fold-2.safetensors: not the weights")
    save_folds(folder, "wscnn4", ["DNA", "actin"])
    assert "cannot be the start of 'compact' of 2; give both the same" in setup.problems()[0]


def test_plates_that_are_trained_on_together_have_one_pixel_size(setup: Setup) -> None:
    setup.config["acquisition"] = {"channels": {"0": "DNA"}, "format": "omezarr"}
    for plate in ("P1", "P2"):
        setup.plates[plate] = f"zarr/{plate}"
        wells = [f"{row}{column:02d}" for row in ROWS for column in range(1, 13)]
        writer = PlateWriter(setup.folder / f"zarr/{plate}", plate, wells, [Channel("DNA", "FFFFFF", (0, 1))], 1.0)
        boxes = pd.DataFrame({"field": [1], "y": [0], "x": [0], "height": [80], "width": [80]})
        for well in wells:
            writer.write_well(well, np.ones((1, 80, 80), np.uint16), boxes, (80, 80))
    setup.check()
    for path in (setup.folder / "zarr/P2").glob("*/*/0/zarr.json"):
        path.write_text(path.read_text().replace("1.0", "1.005"))
    setup.check()
    for path in (setup.folder / "zarr/P2").glob("*/*/0/zarr.json"):
        path.write_text(path.read_text().replace("1.005", "0.5"))
    (told,) = setup.problems()
    assert told.startswith("plate 'P2' (0.5 um): a raw pixel has another size than on plate 'P1' (1 um)")


def test_the_papers_way_with_another_network_is_warned_of_once(setup: Setup) -> None:
    setup.config["train"] = {"preset": "paper"}
    (told,) = setup.problems()
    assert told.startswith("train.preset: 'paper' trains the paper's networks; set model.architecture to wscnn4")
    setup.config["model"] = {"architecture": "compact"}
    (told,) = [warning for warning in setup.check().warnings if warning.startswith("train.preset: paper")]
    assert "model.architecture is compact, not wscnn4" in told and "model.pool is noisy_or, not max" in told
    setup.config["model"] = {"architecture": "wscnn4_cells", "pool": "avg"}
    assert not any(warning.startswith("train.preset") for warning in setup.check().warnings)


def test_warnings_of_a_poor_layout(setup: Setup) -> None:
    wanted = {"A01": "negative\t", "B01": "negative\t", "C01": "negative\t", "A12": "positive\trare"}
    wanted |= {"B12": "positive\trare", "C12": "positive\trare", "A06": "sample\t", "B06": "sample\t"}
    setup.plates = {"P1": "images/P1"}
    setup.layout = ["well\tperturbation\trole\tphenotype"] + [
        f"{well}\t{well}\t{role}" for well, role in wanted.items()
    ]
    for path in (setup.folder / "images/P1").iterdir():
        if path.name[:3] not in wanted:
            path.unlink()
    warnings = "\n".join(setup.check().warnings)
    assert "2 of 2 perturbations have one well only" in warnings
    assert "all control wells of class negative are in the two outermost columns" in warnings
    assert "all control wells of class rare are in the two outermost columns" in warnings
    # Three negative wells: no p-value below 1/4, whatever the scores.
    assert "no perturbation can be called at a false discovery rate of 0.05, whatever the scores" in warnings


def test_plates_in_one_folder_told_apart_by_the_pattern(setup: Setup) -> None:
    for plate in ("P1", "P2"):
        for path in (setup.folder / "images" / plate).iterdir():
            shutil.move(path, setup.folder / "images" / f"{plate}_{path.name}")
    setup.plates = {"P1": "images", "P2": "images"}
    setup.config["acquisition"]["pattern"] = "(?P<plate>P.)_" + PATTERN
    assert len(setup.check().layout) == 192


def test_config_from_standard_input(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.check()
    with (setup.folder / "config.yaml").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        assert len(check_screen(Path("-")).layout) == 192


def test_real_plate(sbs96: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(Path(__file__).parents[2] / "config", tmp_path / "config")
    (tmp_path / "ExampleSBSImages").symlink_to(sbs96, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    screen = check_screen(Path("config/examples/sbs96/config.yaml"))
    assert len(screen.layout) == 96


# ---- all at once, and once each


def test_mistakes_of_config_tables_images_and_models_are_told_at_once(setup: Setup) -> None:
    setup.config |= {"mosaik": {}, "hits": {"fdr": 2}, "train": {"start_from": str(setup.folder / "none"), "freeze": 3}}
    setup.config["model"] = {"architecture": "compact"}
    setup.plates |= {"P3": "images/none"}
    setup.replace("A01", lambda row: row.replace("sample", "smaple"))
    told = "\n".join(problems := setup.problems())
    assert len(problems) == 5
    for part in ("unknown key 'mosaik'", "hits.fdr: 2", "role: 'smaple'", "images/none: no such folder", "start_from"):
        assert part in told


def test_a_wrong_section_hides_neither_tables_nor_folders(setup: Setup) -> None:
    setup.check()
    (setup.folder / "plates.tsv").unlink()
    config = json.loads((setup.folder / "config.yaml").read_text())
    config["acquisition"] = {"channels": {"1": 3}}
    (setup.folder / "config.yaml").write_text(json.dumps(config))
    with pytest.raises(UserError) as raised:
        check_screen(setup.folder / "config.yaml")
    assert len(raised.value.problems) == 2
    assert "plates.tsv: cannot be read" in str(raised.value)
    setup.config["acquisition"] = {"channels": {"1": 3}}
    setup.plates["P2"] = "images/none"
    told = setup.problems()
    assert len(told) == 2
    assert "images/none: no such folder" in told[1]


def test_one_sentence_for_all_wells_and_plates_with_one_mistake(setup: Setup) -> None:
    for plate in ("P1", "P2"):
        for path in (setup.folder / "images" / plate).glob("*_s2_*"):
            if not path.name.startswith("H"):
                path.unlink()
        for path in (setup.folder / "images" / plate).glob("A*_s1_w2.tif"):
            path.unlink()
    # Most wells are to have both fields: rows A to D have them again, row H still, E to G not.
    for row in "ABCD":
        for column in range(1, 13):
            for channel in (1, 2):
                for plate in ("P1", "P2"):
                    tiny_tiff(setup.folder / "images" / plate / f"{row}{column:02d}_s2_w{channel}.tif")
    told = setup.problems()
    assert len(told) == 2
    layout = setup.folder / "layout.tsv"
    assert told[0].startswith(
        f"plate 'P1' ({layout}): well A01, field 1 and 11 more fields: no image of channel actin "
    )
    assert "and 26 more: field 2 is missing in " in told[1]
    assert all(problem.endswith("; the same holds for plate 'P2'") for problem in told)


def test_plates_that_share_a_mistake_share_a_sentence(setup: Setup) -> None:
    setup.plates |= {f"Q{number:03d}": f"gone/Q{number:03d}" for number in range(100)}
    (told,) = setup.problems()
    assert told.startswith(f"plate 'Q000': {setup.folder}/gone/Q000: no such folder")
    assert "; the same holds for plate 'Q001', plate 'Q002', " in told
    assert told.endswith(", plate 'Q010' and 89 more")


def test_paths_that_are_meant_from_another_folder(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.check()
    (setup.folder / "elsewhere").mkdir()
    monkeypatch.chdir(setup.folder / "elsewhere")
    config = setup.config | {"plates": "plates.tsv", "layout": "layout.tsv"}
    (setup.folder / "config.yaml").write_text(json.dumps(config))
    with pytest.raises(UserError) as raised:
        check_screen(setup.folder / "config.yaml")
    for name, problem in zip(("plates.tsv", "layout.tsv"), raised.value.problems, strict=True):
        assert problem.startswith(
            f"{name}: cannot be read (No such file or directory); paths are relative to the folder"
        )
        assert f"but there is {setup.folder / name}: write that" in problem
    (setup.folder / "config.yaml").write_text(json.dumps(setup.config))
    (setup.folder / "plates.tsv").write_text("plate\timages\nP1\timages/P1\nP2\timages/P2\n")
    with pytest.raises(
        UserError, match=f"images/P1: no such folder.* but there is {setup.folder}/images/P1: write that"
    ):
        check_screen(setup.folder / "config.yaml")


# ---- what would stop a later stage


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"qc": {"min_fields": 3}}, "no well has more than 2 fields, but qc.min_fields requires 3 good ones"),
        ({"mosaic": {"arrange": "positions"}}, "gives the stage positions that mosaic.arrange: positions needs"),
        ({"illumination": {"method": "instrument"}}, "holds no illumination profile of channel DNA"),
        ({"train": {"gpus": 20}}, "train.gpus: 20 cannot share a batch of 16 images"),
    ],
)
def test_settings_that_a_later_stage_refuses(setup: Setup, changed: dict, told: str) -> None:
    setup.config |= changed
    assert told in setup.problems()[0]


def test_more_phenotypes_than_fields_that_are_held(setup: Setup) -> None:
    setup.layout = [
        row.replace("positive\trare", f"positive\tp{int(row[1:3]) // 8}{row[0]}") if "positive" in row else row
        for row in setup.layout
    ]
    setup.config["train"] = {"max_fields": 6}
    assert "train.max_fields: 6 cannot hold a field of each of 17 classes" in setup.problems()[-1]


def test_fields_that_are_too_small_for_the_network(setup: Setup) -> None:
    for path in (setup.folder / "images/P1").iterdir():
        tifffile.imwrite(path, np.zeros((100, 120), np.uint16))
    setup.config["mosaic"] = {"downsample": 4}
    setup.config["model"] = {"architecture": "compact"}
    small = "mosaic.downsample: 4 makes fields of 25 x 30 pixels out of 100 x 120, but the network 'compact'"
    assert any(warning.startswith(small) for warning in setup.check().warnings)
    setup.config["mosaic"] = {"downsample": 2}
    assert not any("makes fields of" in warning for warning in setup.check().warnings)
    setup.config["model"] = {"architecture": "wscnn4"}
    needed = "makes fields of 50 x 60 pixels out of 100 x 120, but the network 'wscnn4' needs 70"
    assert any(needed in warning for warning in setup.check().warnings)


def test_a_given_factor_that_does_not_fit_the_cells(setup: Setup) -> None:
    y, x = np.mgrid[:240, :240] % 60 - 30
    noise = np.random.default_rng(0).normal(200, 10, (240, 240))
    # Discs of 18 raw pixels.
    image = (noise + 1000 * (y**2 + x**2 <= 81)).astype(np.uint16)
    for path in (setup.folder / "images/P1").iterdir():
        tifffile.imwrite(path, image)
    found = {}
    for factor in (1, 2, "auto"):
        setup.config["mosaic"] = {"downsample": factor}
        found[factor] = [text for text in setup.check().warnings if "typical cell" in text]
    assert found[1] == found["auto"] == []
    [text] = found[2]
    assert re.match(
        r"mosaic.downsample: 2 makes the typical cell, 1[789](\.\d+)? raw pixels wide, [89]\.\d+ mosaic", text
    )
    assert text.endswith("auto would take 1")


@pytest.mark.parametrize(("raw", "factor"), [(0.65, 2), (0.325, 4), (1.3, 1)])
def test_the_factor_follows_the_card_of_a_model_that_is_applied(raw: float, factor: int) -> None:
    assert factor_of_card(_card(1.3), raw) == factor


def test_a_pixel_size_that_no_factor_gives_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"nearest factor, 3: a mosaic pixel is 1.5 um, but the model was trained at 1.3"
    ):
        factor_of_card(_card(1.3), 0.5)


def test_without_a_pixel_size_the_recorded_factor_is_taken() -> None:
    assert factor_of_card(_card(None), 0.5) is None
    assert factor_of_card(replace(_card(None), settings={"mosaic": {"downsample": 3}}), None) == 3


def _card(pixel_size_um: float | None) -> Card:
    parts: dict[str, list[str]] = {"train": [], "select": [], "test": []}
    return Card("compact", "max", "max", ["DNA"], pixel_size_um, ["negative", "rare"], "s", 0, parts, {})


def test_every_network_takes_a_large_field() -> None:
    for name in ARCHITECTURES:
        network = WSCNN(name, "max", 1, 2)
        assert max(network.receptive_field, network.margin + network.stride + 1) <= LARGE_FIELD


def test_a_plate_whose_wells_are_all_excluded(setup: Setup) -> None:
    setup.layout[0] += "\tplate"
    setup.layout = [setup.layout[0]] + [
        f"{row}\t{plate}" if plate == "P1" else f"{row.split(chr(9))[0]}\tx\texclude\t\t1\t{plate}"
        for plate in ("P1", "P2")
        for row in setup.layout[1:]
    ]
    assert any("plate 'P2': every well has role exclude" in problem for problem in setup.problems())


def test_results_that_cannot_be_written(setup: Setup) -> None:
    setup.config["results"] = str(setup.folder / "plates.tsv" / "results")
    (told,) = setup.problems()
    assert told.startswith(f"results: {setup.folder}/plates.tsv is a file, but the results go to the folder ")
    setup.config["results"] = "x" * 300
    (told,) = setup.problems()
    assert "cannot be a folder (File name too long)" in told


def test_control_percent_needs_both_kinds_of_controls(setup: Setup) -> None:
    setup.config |= {"hits": {"normalize": "control_percent"}, "model": {"checkpoint": str(setup.folder / "model")}}
    save_folds(setup.folder / "model", "compact", ["DNA"])
    setup.layout = [row.replace("positive\trare", "sample\t") for row in setup.layout]
    (told,) = setup.problems()
    assert "plate 'P1' has no well with role positive, against which its scores are normalised" in told


@pytest.mark.parametrize("case", ["no sample", "samples excluded", "hits.min_controls", "hits.fdr"])
def test_a_layout_with_which_nothing_can_be_called(setup: Setup, case: str) -> None:
    if case in ("no sample", "samples excluded"):
        role = "negative" if case == "no sample" else "exclude"
        setup.layout = [row.replace("sample", role) for row in setup.layout]
    elif case == "hits.min_controls":
        setup.config["hits"] = {"min_controls": 100}
    else:
        setup.config["hits"] = {"fdr": 1e-9}
    warnings = setup.check().warnings
    assert warnings[0].startswith(f"{setup.folder / 'layout.tsv'}: no perturbation can be called")


def test_settings_and_names_that_do_not_do_what_they_seem_to(setup: Setup) -> None:
    setup.replace("A01", lambda row: row.replace("gA0", "GB0"))
    assert any("perturbations 'GB0' and 'gB0' differ by case alone" in text for text in setup.check().warnings)
    config = {**setup.check().config, "acquisition": {"pattern": "x", "table": None, "format": "phenix"}}
    assert _ignored(config) == ["acquisition.pattern has no effect with acquisition.format: phenix"]


def test_the_command_writes_what_is_asked_for_and_says_how_it_went(setup: Setup, tmp_path: Path) -> None:
    setup.check()
    config, out = str(setup.folder / "config.yaml"), tmp_path / "out"
    runner = CliRunner()
    done = runner.invoke(main, ["check", config, "--layout", str(out / "layout.parquet")])
    assert done.exit_code == 0
    assert [path.name for path in out.iterdir()] == ["layout.parquet"]
    assert "no problem found, but " not in done.output or "warning: " in done.output
    done = runner.invoke(main, ["check", config, "--controls", str(out / "controls.parquet"), "--json"])
    assert done.exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == ["controls.parquet", "layout.parquet"]
    setup.config["hits"] = {"fdr": 1e-9}
    setup.check()
    done = runner.invoke(main, ["check", config])
    assert done.exit_code == 0
    assert "no perturbation can be called" in done.output
    assert "2 plates, 192 wells, no problem found, but " in done.output and "3 warnings" in done.output
    setup.config["hits"] = {"fdr": 9}
    setup.problems()
    assert runner.invoke(main, ["check", config]).exit_code == 1
    assert runner.invoke(main, ["check"]).exit_code == 2
