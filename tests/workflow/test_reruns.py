"""What runs again after which change: the table in the docs, every cell of it, on the real Snakefile."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import yaml
from runs import ROOT, command, environment, snakemake, start_snakemake

from wscnn.core.tables import read_table

STAGES = ["index", "stage", "encode", "train", "score", "hits", "report"]
PLATES = {"plate1", "plate2"}
RESULTS = Path("results/small")


def matrix() -> dict[str, list[str]]:
    """Return the cells of each kind of change in the docs."""
    text = (ROOT / "docs" / "how-to" / "reruns.md").read_text()
    lines = re.search(r"\| change \|.*\n\|[-|]+\n((?:\|.*\n)+)", text)
    assert lines
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1].splitlines()]
    return {row[0]: row[1:] for row in rows}


def configure(folder: Path, **sections: object) -> None:
    """Change keys of sections of the config, or whole values."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for name, value in sections.items():
        config[name] = config.get(name, {}) | value if isinstance(value, dict) else value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def edit(folder: Path, table: str, change: Callable[[pd.DataFrame], pd.DataFrame], old: bool = False) -> None:
    """Change a table of the user's; `old` gives it the time of an older file, as `mv` and `rsync -t` do."""
    path = folder / f"{table}.tsv"
    change(pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)).to_csv(path, sep="\t", index=False)
    if old:
        os.utime(path, (1_500_000_000, 1_500_000_000))


def where(plate: str, well: str, **cells: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Return a change of the cells of one well in the layout."""

    def change(layout: pd.DataFrame) -> pd.DataFrame:
        chosen = (layout["plate"] == plate) & (layout["well"] == well)
        assert chosen.sum() == 1
        layout.loc[chosen, list(cells)] = list(cells.values())
        return layout

    return change


def image(folder: Path, well: str, number: int = 1) -> Path:
    return folder / "images" / "plate1" / f"plate1_{well}_s{number}_w1.tif"


def overwrite(folder: Path) -> None:
    path = image(folder, "A03")
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    os.utime(path, (1_500_000_000, 1_500_000_000))


def below(folder: Path) -> None:
    """Overwrite an image in a folder below, to which moving it made no difference."""
    (folder / "images" / "plate1" / "below").mkdir()
    overwrite(folder)
    image(folder, "A03").rename(folder / "images" / "plate1" / "below" / image(folder, "A03").name)


def touch(folder: Path) -> None:
    image(folder, "A03").touch()
    copy = shutil.copytree(folder / "images" / "plate2", folder / "copy", copy_function=shutil.copy)
    shutil.rmtree(folder / "images" / "plate2")
    copy.rename(folder / "images" / "plate2")


def move(folder: Path) -> None:
    (folder / "images").rename(folder / "archive")
    edit(folder, "plates", lambda plates: plates.assign(images="archive/" + plates["plate"]))


def add_plate(folder: Path) -> None:
    (folder / "images" / "plate3").mkdir()
    for path in (folder / "images" / "plate1").glob("*.tif"):
        shutil.copy(path, folder / "images" / "plate3" / path.name.replace("plate1", "plate3"))
    edit(folder, "plates", lambda plates: add(plates, plates.iloc[:1].assign(plate="plate3", images="images/plate3")))
    edit(folder, "layout", lambda layout: add(layout, layout[layout["plate"] == "plate1"].assign(plate="plate3")))


def add(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, rows])


def remove_plate(folder: Path) -> None:
    for table in ("plates", "layout"):
        edit(folder, table, lambda rows: rows[rows["plate"] != "plate2"])


def return_plate(folder: Path) -> None:
    """Let a plate leave, have all that follows noted as made without it (``--touch``), and list it again."""
    before = {name: (folder / f"{name}.tsv").read_bytes() for name in ("plates", "layout")}
    remove_plate(folder)
    done = snakemake(folder, "--configfile", "config.yaml", "--touch")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / RESULTS / "left" / "plate2" / "qc" / "plate2.parquet").is_file()
    for name, content in before.items():
        (folder / f"{name}.tsv").write_bytes(content)


def change_model(folder: Path) -> None:
    configure(folder, model={"checkpoint": str(RESULTS / "model")})
    card = folder / RESULTS / "model" / "fold-1.json"
    card.write_text(card.read_text() + "\n")


def reorder(folder: Path) -> None:
    """Write layout and config in another order, the layout also with other line ends and at another path."""
    layout = pd.read_csv(folder / "layout.tsv", dtype=str, sep="\t", keep_default_na=False)
    layout.iloc[::-1].to_csv(folder / "other.csv", index=False, lineterminator="\r\n")
    configure(folder, layout="other.csv")


def reorder_keys(folder: Path) -> None:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for name in ("acquisition", "train"):
        config[name] = dict(reversed(config[name].items()))
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def without_effect(folder: Path) -> None:
    configure(
        folder,
        dask={"cluster": "local", "workers": 3, "wait_s": 7, "slurm": {"queue": "long"}},
        train={"device": "cpu"},
        score={"device": "cpu"},
        acquisition={"missing_fields": "accept"},
    )
    reorder_keys(folder)


def upgrade(folder: Path) -> None:
    """Put a copy of the program beside the screen, of another version and with another function."""
    for name in ("wscnn", "workflow", "envs", "config"):
        shutil.copytree(ROOT / name, folder / "program" / name)
    shutil.copy(ROOT / "Snakefile", folder / "program")
    version = folder / "program" / "wscnn" / "__init__.py"
    version.write_text(re.sub(r'__version__ = ".*"', '__version__ = "99.0"', version.read_text()))
    assert "99.0" in version.read_text()


def settings(**sections: object) -> Callable[[Path], None]:
    return lambda folder: configure(folder, **sections)


def layout(*change: object, **cells: str) -> Callable[[Path], None]:
    return lambda folder: edit(folder, "layout", where(*change, **cells))


#: What is done for each kind of change, by the words with which it begins in the manual.
CHANGES: list[tuple[str, Callable[[Path], None]]] = [
    ("image overwritten", overwrite),
    ("image overwritten", below),
    ("image added", lambda folder: shutil.copy2(image(folder, "A03"), image(folder, "A03", 3))),
    ("image removed", lambda folder: image(folder, "A03", 2).unlink()),
    ("image touched", touch),
    ("folder of images moved", move),
    ("folder of images put away", lambda folder: shutil.rmtree(folder / "images")),
    ("layout: perturbation renamed", layout("plate1", "A03", perturbation="other")),
    ("layout: perturbation renamed", lambda folder: edit(folder, "layout", lambda rows: rows.assign(gene="g"))),
    ("layout: role or phenotype", layout("plate1", "A01", role="negative", phenotype="")),
    ("layout: role `exclude`", layout("plate1", "A01", role="exclude", phenotype="")),
    (
        "layout: an older file",
        lambda folder: edit(folder, "layout", where("plate1", "A03", perturbation="x"), old=True),
    ),
    ("layout: other order", reorder),
    ("section `acquisition`", settings(acquisition={"pixel_size_um": 0.65})),
    ("sections `mosaic`", settings(mosaic={"downsample": 4})),
    ("sections `mosaic`", settings(illumination={"method": "none"})),
    ("sections `mosaic`", settings(qc={"blur_slope": 2})),
    ("section `encoder`", settings(encoder={"steps": 6})),
    ("sections `model`", settings(model={"score_pool": "max"})),
    ("sections `model`", settings(train={"steps": 149})),
    ("section `score`", settings(score={"mask_fraction": 0.5})),
    ("section `hits`", settings(hits={"fdr": 0.1})),
    ("section `dask`", without_effect),
    ("plate added", add_plate),
    ("plate left", remove_plate),
    ("plate back", return_plate),
    ("a file of a model", change_model),
    ("another version", upgrade),
]


def planned(folder: Path) -> dict[str, set[str]]:
    """Return the plates that a dry run names for each stage; ``screen`` for a stage of all plates together."""
    options, program = ["--configfile", "config.yaml", "-n", "-p"], folder / "program"
    if program.is_dir():
        line = command(*options)
        line[line.index("--snakefile") + 1] = str(program / "Snakefile")
        variables = environment() | {"PYTHONPATH": str(program)}
        done = subprocess.run(line, cwd=folder, env=variables, text=True, capture_output=True)
    else:
        done = snakemake(folder, *options)
    log = done.stdout + done.stderr
    assert done.returncode == 0, log
    found: dict[str, set[str]] = {stage: set() for stage in STAGES}
    for stage, line in re.findall(r"wscnn (\w+) (--.*)", log):
        if stage in found:
            plate = re.search(r"--plate (\w+)|--store \S+/(\w+)\.zarr --quality", line)
            found[stage].add((plate[1] or plate[2]) if plate and stage not in ("encode", "train") else "screen")
    assert any(found.values()) != ("Nothing to be done" in log), log
    return found


def cell(stage: str, plates: set[str]) -> str:
    """Return what the manual writes for a stage that runs for `plates`."""
    if not plates:
        return ""
    if stage in ("encode", "train", "hits", "report"):
        return "yes"
    return "all plates" if len(plates & PLATES) == 2 or stage == "score" else "the plate"


def test_the_manual_tells_of_each_change():
    begins = [start for start, _ in CHANGES]
    assert [next((start for start in begins if row.startswith(start)), row) for row in matrix()] == list(
        dict.fromkeys(begins)
    )


@pytest.mark.parametrize(("start", "change"), CHANGES, ids=lambda value: value if isinstance(value, str) else "")
def test_what_runs_again(start: str, change: Callable[[Path], object], finished: Path, tmp_path: Path):
    [expected] = [cells for row, cells in matrix().items() if row.startswith(start)]
    folder = Path(shutil.copytree(finished, tmp_path / "screen"))
    change(folder)
    found = planned(folder)
    assert [cell(stage, plates) for stage, plates in found.items()] == expected
    if expected[0] == "the plate":
        assert found["index"] == found["stage"] == {"plate3" if start == "plate added" else "plate1"}
    if expected[4] and start != "plate left":
        assert found["score"] >= PLATES


def test_images_that_are_gone_are_asked_for_before_anything_is_deleted(finished: Path, tmp_path: Path):
    folder = Path(shutil.copytree(finished, tmp_path / "screen"))
    shutil.rmtree(folder / "images" / "plate2")
    configure(folder, mosaic={"downsample": 4})
    failed = snakemake(folder, "--configfile", "config.yaml")
    assert failed.returncode != 0
    said = failed.stdout + failed.stderr
    assert "Raw images are gone (plate2: 1 plates)" in said and "Traceback" not in said
    assert not re.search(r"^rule ", said, re.MULTILINE), "a job was started"
    for name in ("plates/plate2.json", "qc/plate2.parquet", "plates/plate1.json"):
        assert (folder / RESULTS / name).read_bytes() == (finished / RESULTS / name).read_bytes()


def test_a_well_without_images_stops_the_run_though_missing_fields_are_accepted(finished: Path, tmp_path: Path):
    folder = Path(shutil.copytree(finished, tmp_path / "screen"))
    configure(folder, acquisition={"missing_fields": "accept"})
    for number in (1, 2):
        image(folder, "A03", number).unlink()
    failed = snakemake(folder, "--configfile", "config.yaml")
    said = failed.stdout + failed.stderr
    assert failed.returncode != 0 and "no image of well A03" in said
    assert not re.search(r"^rule ", said, re.MULTILINE), "a job was started"


def test_a_plate_that_left_is_out_of_the_results_and_comes_back(finished: Path, tmp_path: Path):
    folder = Path(shutil.copytree(finished, tmp_path / "screen"))
    # Without training, so that only what is common to all plates is made again.
    configure(folder, model={"checkpoint": str(RESULTS / "model")})
    before = {name: (folder / f"{name}.tsv").read_bytes() for name in ("plates", "layout")}
    remove_plate(folder)
    done = snakemake(folder, "--configfile", "config.yaml")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "plate 'plate2' left the screen" in said and not re.search("wscnn (index|stage|score) ", said)
    results = folder / RESULTS
    assert not [path for path in results.rglob("*plate2*") if "left" not in path.relative_to(results).parts]
    for name in ("index", "qc", "wells", "fields", "objects"):
        assert (results / "left" / "plate2" / name / "plate2.parquet").is_file()
        assert set(pd.read_parquet(results / name)["plate"]) <= {"plate1"}
    assert set(read_table(results / "hits.parquet")["n_plates"]) == {1}

    for name, content in before.items():
        (folder / f"{name}.tsv").write_bytes(content)
    done = snakemake(folder, "--configfile", "config.yaml")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "plate 'plate2' is listed again" in said and not re.search("wscnn (index|stage|score) ", said)
    assert not (results / "left" / "plate2").exists()
    for name in ("hits", "wells", "plates"):
        again, first = (read_table(folder / f"{name}.parquet") for folder in (results, finished / RESULTS))
        # An applied model has been compared with the plates, too.
        compared = [column for column in again if column.startswith("drift")]
        pd.testing.assert_frame_equal(again.drop(columns=compared), first.drop(columns=compared, errors="ignore"))


def test_a_layout_edited_during_a_run_is_used_by_the_next_one(finished: Path, tmp_path: Path):
    folder = Path(shutil.copytree(finished, tmp_path / "screen"))
    checked = folder / RESULTS / "layout.parquet"
    before = checked.read_bytes()
    layout("plate1", "A03", perturbation="first")(folder)
    run = start_snakemake(folder, "--configfile", "config.yaml", "--until", "hits")
    while checked.read_bytes() == before:
        assert run.is_alive()
        time.sleep(0.02)
    edit(folder, "layout", where("plate1", "A03", perturbation="second"), old=True)
    run.join(300)
    assert run.exitcode == 0
    names = set(read_table(folder / RESULTS / "hits.parquet")["perturbation"])
    assert "first" in names and "second" not in names
    assert {stage for stage, plates in planned(folder).items() if plates} == {"hits", "report"}
