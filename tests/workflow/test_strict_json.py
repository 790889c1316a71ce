"""What the workflow writes as JSON and Zarr, read by programs that are not Python."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import zarr

NODE, NPM = shutil.which("node"), shutil.which("npm")

PARSE = """
const fs = require("fs");
for (const path of fs.readFileSync(0, "utf8").trim().split("\\n")) JSON.parse(fs.readFileSync(path, "utf8"));
"""

# Shape and values of the mosaic and all labels of each well, by the path of the array.
ZARRITA = """
import * as zarr from "zarrita";
import FileSystemStore from "@zarrita/storage/fs";
const store = new FileSystemStore(process.argv[2]);
const plate = await zarr.open(store, { kind: "group" });
const read = {};
for (const { path } of plate.attrs.ome.plate.wells) {
  const well = await zarr.open(plate.resolve(path), { kind: "group" });
  const image = await zarr.open(well.resolve(well.attrs.ome.well.images[0].path), { kind: "group" });
  const labels = await zarr.open(image.resolve("labels"), { kind: "group" });
  const groups = [[`${path}/0`, image]];
  for (const name of labels.attrs.ome.labels)
    groups.push([`${path}/0/labels/${name}`, await zarr.open(labels.resolve(name), { kind: "group" })]);
  for (const [where, group] of groups) {
    const dataset = group.attrs.ome.multiscales[0].datasets[0].path;
    const { data, shape } = await zarr.get(await zarr.open(group.resolve(dataset), { kind: "array" }));
    read[`${where}/${dataset}`] = { shape, values: Array.from(data, Number) };
  }
}
console.log(JSON.stringify(read));
"""


@pytest.mark.skipif(NODE is None, reason="node, the parser that is not Python's, is not installed")
def test_all_json_is_strict(finished: Path) -> None:
    results = finished / "results" / "small"
    paths = [path for kind in ("zarr.json", "fold-*.json") for path in results.rglob(kind)]
    paths += results.glob("plates/*.json")
    # Two plates of 24 wells with groups, images, arrays, masks and saliency; three cards.
    assert len(paths) > 2 * 24 * 5 and sum(path.name.startswith("fold-") for path in paths) == 3
    parsed = subprocess.run([str(NODE), "-e", PARSE], input="\n".join(map(str, paths)), text=True, capture_output=True)
    assert parsed.returncode == 0, parsed.stderr
    # The screen knows no stage positions, which were NaN once.
    group = json.loads((results / "plates/plate1.zarr/B/02/0/zarr.json").read_text())
    assert set(group["attributes"]["wscnn"]["fields"]["y_um"]) == {None}


@pytest.fixture(scope="module")
def zarrita(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which node finds zarrita."""
    if NODE is None or NPM is None:
        pytest.skip("node and npm, which run zarrita, are not installed")
    folder = tmp_path_factory.mktemp("node")
    packages = ["zarrita@0.7.5", "@zarrita/storage@0.2.0"]
    try:
        done = subprocess.run(
            [NPM, "install", "--no-fund", "--no-audit", *packages],
            cwd=folder,
            text=True,
            capture_output=True,
            timeout=60,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not install zarrita within a minute")
    if done.returncode != 0:
        pytest.skip(f"npm cannot install zarrita: {done.stderr.strip()[-200:]}")
    return folder


def test_zarrita_reads_the_same_plate_wells_and_labels(finished: Path, zarrita: Path) -> None:
    (zarrita / "read.mjs").write_text(ZARRITA)
    plate = finished / "results/small/plates/plate1.zarr"
    done = subprocess.run([str(NODE), "read.mjs", str(plate)], cwd=zarrita, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)
    assert sum("labels" not in path for path in read) == 24 and any("labels" in path for path in read)
    for path, found in read.items():
        expected = zarr.open_array(plate / path, mode="r")[:]
        assert found["shape"] == list(expected.shape)
        np.testing.assert_array_equal(np.array(found["values"]), expected.ravel())
