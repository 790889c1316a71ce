"""A simulated screen: its tables suit the workflow, its truth suits its images."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from scipy import ndimage

from wscnn.core.config import load_config
from wscnn.core.errors import UserError
from wscnn.core.screen_tables import load_layout, load_plates
from wscnn.simulate.cells import read_tiles
from wscnn.simulate.fields import FAULTS
from wscnn.simulate.screen import CELLS, ScreenSettings, simulate_screen

SMALL = {"wells": 24, "fields": 2, "size": 300, "strong": 1, "weak": 1, "prevalence": 0.3, "seed": 3}


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated") / "demo"
    simulate_screen(folder, **SMALL, faults=12)
    return folder


@pytest.fixture(scope="module")
def cells(screen: Path) -> pd.DataFrame:
    return pd.read_parquet(screen / "truth" / "cells.parquet")


def read(screen: Path, plate: str, well: str, field: int) -> np.ndarray:
    return tifffile.imread(screen / "images" / plate / f"{plate}_{well}_s{field}_w1.tif")


def faults(screen: Path) -> pd.DataFrame:
    return pd.read_csv(screen / "truth" / "faults.tsv", sep="\t")


def sums(folder: Path) -> dict[str, str]:
    """Checksums of what does not hold the folder's own name."""
    named = {"config.yaml", "plates.tsv"}
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in named
    }


def test_config_and_tables_are_what_the_workflow_reads(screen: Path) -> None:
    config = load_config(screen / "config.yaml")
    assert config["screen"] == "demo"
    plates = load_plates(Path(config["plates"]))
    assert plates["plate"].tolist() == ["plate1", "plate2"]
    layout = load_layout(Path(config["layout"]), plates["plate"].tolist())
    assert len(layout) == 48
    roles = layout.groupby(["plate", "role"]).size()
    assert roles.to_dict() == {
        (plate, role): n
        for plate in ("plate1", "plate2")
        for role, n in (("negative", 4), ("positive", 4), ("sample", 16))
    }
    assert set(layout.loc[layout["role"] == "positive", "phenotype"]) == {"mitotic"}
    replicates = layout[layout["role"] == "sample"].groupby(["perturbation", "plate"]).size()
    assert (replicates == 4).all()
    assert len(replicates) == 4 * 2
    # Places are drawn anew for each plate.
    one, two = (layout.loc[layout["plate"] == plate, "perturbation"].tolist() for plate in plates["plate"])
    assert one != two


def test_every_well_and_field_has_its_image_named_as_the_pattern_says(screen: Path) -> None:
    pattern = re.compile(load_config(screen / "config.yaml")["acquisition"]["pattern"])
    seen = set()
    for path in screen.glob("images/*/*"):
        match = pattern.fullmatch(path.name)
        assert match, path.name
        assert match["plate"] == path.parent.name
        seen.add((match["plate"], match["well"], match["field"], match["channel"]))
        image = tifffile.imread(path)
        assert (image.dtype, image.shape) == (np.uint16, (300, 300))
    assert len(seen) == 2 * 24 * 2


def test_cells_lie_where_the_truth_says(screen: Path, cells: pd.DataFrame) -> None:
    assert list(cells.columns) == list(CELLS)
    bad = faults(screen)[["plate", "well", "field"]]
    good = cells.merge(bad, how="left", indicator=True).query("_merge == 'left_only'")
    for (plate, well, field), rows in list(good.groupby(["plate", "well", "field"]))[:20]:
        image = ndimage.gaussian_filter(read(screen, plate, well, field).astype(float), 1)
        floor = np.percentile(image, 20)
        covered = np.zeros(image.shape, bool)
        for row in rows.itertuples():
            box = image[row.y0 : row.y1, row.x0 : row.x1]
            if box.size > 60:
                assert box.max() > floor + 250, row
            covered[max(row.y0 - 4, 0) : row.y1 + 4, max(row.x0 - 4, 0) : row.x1 + 4] = True
        # Nothing bright lies outside of the boxes.
        assert image[~covered].max() < floor + 450


def test_prevalence_is_what_the_truth_says(screen: Path, cells: pd.DataFrame) -> None:
    layout = pd.read_csv(screen / "layout.tsv", sep="\t", keep_default_na=False)
    hits = pd.read_csv(screen / "truth" / "hits.tsv", sep="\t", keep_default_na=False)
    assert hits["hit"].value_counts().to_dict() == {"none": 2, "strong": 1, "weak": 1}
    expected = {"scrambled": 0.003, "mitotic-control": 0.3} | dict(
        zip(hits["perturbation"], hits["prevalence"], strict=True)
    )
    joined = cells.merge(layout[["plate", "well", "perturbation"]])
    for perturbation, rows in joined.groupby("perturbation"):
        part = expected[perturbation]
        assert rows["rare"].mean() == pytest.approx(part, abs=4 * np.sqrt(part * (1 - part) / len(rows)) + 0.001)
    assert (cells["rare"] == (cells["phenotype"] == "mitotic")).all()
    assert (cells["rare"] == (cells["class"] != "Interphase")).all()


def test_faulty_fields_look_as_listed(screen: Path, cells: pd.DataFrame) -> None:
    listed = faults(screen)
    assert listed["fault"].value_counts().to_dict() == dict.fromkeys(FAULTS, 2)
    for row in listed.itertuples():
        image = read(screen, row.plate, row.well, row.field).astype(float)
        here = cells[(cells["plate"] == row.plate) & (cells["well"] == row.well) & (cells["field"] == row.field)]
        smooth = ndimage.gaussian_filter(image, 2)
        steepest = ndimage.gaussian_gradient_magnitude(image, 2).max() / (smooth.max() - smooth.min())
        match row.fault:
            case "saturated":
                assert (image == 65535).mean() > 0.01
            case "empty":
                assert here.empty
                assert smooth.max() - smooth.min() < 150
            case "fibre":
                assert smooth.max() > 8000
            case "blurred":
                assert steepest < 0.08
            case "stained":
                assert np.median(image) > 2000
            case "line":
                assert sum((lines == 0).all(axis=1).sum() for lines in (image, image.T)) == 1
        if row.fault != "empty":
            assert len(here) > 0


def test_workers_do_not_change_a_byte_and_the_seed_does(tmp_path: Path) -> None:
    settings = SMALL | {"fields": 1, "size": 128}
    simulate_screen(tmp_path / "one", **settings, workers=1)
    simulate_screen(tmp_path / "three", **settings, workers=3)
    simulate_screen(tmp_path / "other", **settings | {"seed": 4})
    one = sums(tmp_path / "one")
    assert one == sums(tmp_path / "three")
    assert one != sums(tmp_path / "other")


def test_label_noise_is_a_part_of_the_negative_fields(tmp_path: Path) -> None:
    simulate_screen(tmp_path / "noisy", **SMALL | {"size": 200}, background=0.0, label_noise=0.25)
    layout = pd.read_csv(tmp_path / "noisy" / "layout.tsv", sep="\t", keep_default_na=False)
    cells = pd.read_parquet(tmp_path / "noisy" / "truth" / "cells.parquet").merge(layout[["plate", "well", "role"]])
    rare = cells[(cells["role"] == "negative") & cells["rare"]]
    # 4 negative wells of 2 fields on each of 2 plates: a quarter is 2 a plate, one cell each.
    assert rare.groupby("plate").size().tolist() == [2, 2]
    assert not rare.duplicated(["plate", "well", "field"]).any()


def test_in_a_null_screen_nothing_acts(tmp_path: Path) -> None:
    simulate_screen(tmp_path / "null", **SMALL | {"size": 128, "fields": 1, "strong": 0, "weak": 0})
    hits = pd.read_csv(tmp_path / "null" / "truth" / "hits.tsv", sep="\t", keep_default_na=False)
    assert set(hits["hit"]) == {"none"}
    assert set(hits["prevalence"]) == {0.003}


def test_several_phenotypes_share_controls_and_hits(tmp_path: Path) -> None:
    simulate_screen(tmp_path / "two", **SMALL | {"size": 200}, phenotypes=("metaphase", "prometaphase"), background=0.0)
    layout = pd.read_csv(tmp_path / "two" / "layout.tsv", sep="\t", keep_default_na=False)
    cells = pd.read_parquet(tmp_path / "two" / "truth" / "cells.parquet").merge(
        layout[["plate", "well", "role", "phenotype"]], on=["plate", "well"], suffixes=("", "_of_control")
    )
    rare = cells[cells["rare"]]
    assert (rare["class"].str.lower() == rare["phenotype"]).all()
    controls = rare[rare["role"] == "positive"]
    assert (controls["phenotype"] == controls["phenotype_of_control"]).all()
    assert set(controls["phenotype"]) == {"metaphase", "prometaphase"}
    hits = pd.read_csv(tmp_path / "two" / "truth" / "hits.tsv", sep="\t", keep_default_na=False)
    assert set(hits["phenotype"]) == {"", "metaphase", "prometaphase"}


def test_multinucleate_cells_make_a_screen_too(tmp_path: Path) -> None:
    simulate_screen(tmp_path / "cytoplasm", **SMALL, cells="multinucleate", plates=1)
    config = load_config(tmp_path / "cytoplasm" / "config.yaml")
    assert config["acquisition"]["channels"] == {"1": "cytoplasm"}
    cells = pd.read_parquet(tmp_path / "cytoplasm" / "truth" / "cells.parquet")
    assert set(cells.loc[~cells["rare"], "class"]) == {"1 nucleus"}
    assert set(cells.loc[cells["rare"], "class"]) <= {"2 nuclei", "3 nuclei", "4 nuclei"}


def sources(folder: Path, group: Callable[[str], str], rare: bool | None = None) -> tuple[set[str], set[str]]:
    """Return the groups of sources that (rare or ordinary) cells of control and of sample wells come from."""
    layout = pd.read_csv(folder / "layout.tsv", sep="\t", keep_default_na=False)
    cells = pd.read_parquet(folder / "truth" / "cells.parquet").merge(layout[["plate", "well", "role"]])
    cells = cells if rare is None else cells[cells["rare"] == rare]
    samples = cells["role"] == "sample"
    return set(cells.loc[~samples, "source"].map(group)), set(cells.loc[samples, "source"].map(group))


def date_of(source: str) -> str:
    return source.split("/")[0]


TINY = {"plates": 1, "wells": 12, "fields": 2, "size": 270, "strong": 0, "weak": 0}


@pytest.mark.parametrize(("cells", "n_groups", "n_splits"), [("nuclei", 1, 2), ("micronuclei", 2, 6)])
def test_controls_and_samples_show_nuclei_of_different_sources_in_turn(
    tmp_path: Path, cells: str, n_groups: int, n_splits: int
) -> None:
    halves = {row["source"]: row["half"] for row in read_tiles("nuclei")[1]}
    seen = []
    for seed in range(n_splits):
        simulate_screen(tmp_path / str(seed), **TINY, cells=cells, seed=seed, prevalence=0.3, background=0.2)
        group = halves.get if cells == "nuclei" else date_of
        controls, samples = sources(tmp_path / str(seed), group, rare=True)
        assert len(controls) == len(samples) == n_groups
        assert not controls & samples
        # Negative controls stand for inactive samples: their ordinary cells have the same sources.
        of_controls, of_samples = sources(tmp_path / str(seed), group, rare=False)
        assert of_controls == of_samples == controls | samples
        seen.append(tuple(sorted(controls)))
    assert len(set(seen)) == n_splits


def test_sources_can_be_named(tmp_path: Path) -> None:
    chosen = {"controls_from": ("2022-03-18", "2022-05-25"), "samples_from": ("2022-03-18", "2022-05-25")}
    simulate_screen(tmp_path / "two", **TINY, cells="micronuclei", **chosen)
    assert sources(tmp_path / "two", date_of) == ({"2022-03-18", "2022-05-25"},) * 2
    simulate_screen(tmp_path / "rest", **TINY, cells="micronuclei", samples_from=("2022-04-14",))
    assert sources(tmp_path / "rest", date_of) == ({"2022-03-18", "2022-05-25", "2022-05-26"}, {"2022-04-14"})


def test_a_screen_of_micronuclei_has_its_own_defaults(tmp_path: Path) -> None:
    simulate_screen(tmp_path / "micro", plates=1, wells=96, fields=1, cells="micronuclei", negatives=24, positives=12)
    config = load_config(tmp_path / "micro" / "config.yaml")
    assert config["mosaic"]["downsample"] == "auto"
    layout = load_layout(Path(config["layout"]), ["plate1"])
    assert layout["role"].value_counts().to_dict() == {"sample": 60, "negative": 24, "positive": 12}
    assert set(layout.loc[layout["role"] == "positive", "phenotype"]) == {"micronuclei"}
    cells = pd.read_parquet(tmp_path / "micro" / "truth" / "cells.parquet").merge(layout[["plate", "well", "role"]])
    assert 30 < len(cells) / 96 < 40
    assert (cells["rare"] == (cells["class"] == "Micronucleated")).all()
    for role, part in (("negative", 0.005), ("positive", 0.05)):
        rare = cells.loc[cells["role"] == role, "rare"]
        assert rare.mean() == pytest.approx(part, abs=4 * np.sqrt(part / len(rare)))


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        simulate_screen(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_name_that_yaml_reads_as_a_number_stays_a_name(tmp_path: Path) -> None:
    simulate_screen(tmp_path / "2026", **SMALL | {"size": 64, "fields": 1}, plates=1)
    assert load_config(tmp_path / "2026" / "config.yaml")["screen"] == "2026"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"wells": 95}, "wells: 95"),
        ({"plates": 0, "size": 10}, "plates: 0"),
        ({"plates": 0, "size": 10}, "size: 10"),
        ({"prevalence": 1.2}, "prevalence: 1.2"),
        ({"prevalence": 0.8}, "prevalence"),
        ({"wells": 24}, "24 wells hold 4 perturbations"),
        ({"wells": 24, "strong": 0, "weak": 0, "faults": 1000}, "faults: 1000"),
        ({"cells": "yeast"}, "yeast"),
        ({"phenotypes": ("telophase",)}, "telophase"),
        ({"phenotypes": ("mitotic", "anaphase")}, "overlap"),
        ({"cells": "multinucleate", "phenotypes": ("mitotic",)}, "mitotic"),
        ({"cells": "micronuclei", "phenotypes": ("mitotic",)}, "mitotic"),
        ({"negatives": -1}, "negatives: -1"),
        ({"negatives": 80, "positives": 16}, "80 and 16 of 96 wells"),
        ({"negatives": 80, "positives": 12}, "96 wells hold 1 perturbations"),
        ({"samples_from": ("third",)}, "samples_from: 'third'"),
        ({"controls_from": ("first", "second")}, "one names all groups"),
        ({"cells": "micronuclei", "controls_from": ("first",)}, "2022-03-18"),
        ({"cells": "multinucleate", "samples_from": ("first",)}, "use none"),
    ],
)
def test_a_setting_out_of_range_is_named(settings: dict, named: str) -> None:
    with pytest.raises(UserError, match=named):
        ScreenSettings(**settings)
