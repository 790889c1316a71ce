"""How even the illumination of staged fields is, before and after each correction.

Run by hand: ``python tests/benchmarks/flatness.py [--data ../shared/data]``. Plates: a simulated one; the real 96-well
plate (BBBC013) and the real Harmony export, where their archives are; a Harmony export made with the real one's
flat-field profile, of more fields. Nothing is asserted.
"""

import argparse
import re
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from wscnn.acquisitions.index import index_plate
from wscnn.core.config import complete_config
from wscnn.plates.store import Plate
from wscnn.simulate.cells import Nuclei
from wscnn.simulate.fields import compose, expose, optics
from wscnn.staging.stage import stage_plate

#: Background polynomial of a real Operetta export (Harmony 5): of degree d powers of x fall, those of y rise.
COEFFICIENTS = [
    [1.1282],
    [-0.0165, 0.0298],
    [-0.8004, -0.0792, -0.2953],
    [-0.3127, 0.1014, -0.0155, 0.0063],
    [-0.7439, 0.2779, -1.4485, -0.2966, -1.4036],
]
NAME = r"(?P<well>[A-Z]\d\d)_s(?P<field>\d+)\.tif"
_TILES = 10


def light(size: int) -> np.ndarray:
    """Return the profile's brightness over a field (y, x), x and y from -1/2 to 1/2."""
    y, x = (np.mgrid[:size, :size] - (size - 1) / 2) / size
    terms = [(c, d - p, p) for d, row in enumerate(COEFFICIENTS) for p, c in enumerate(row)]
    return sum(c * x**of_x * y**of_y for c, of_x, of_y in terms)  # type: ignore[return-value]


def write_harmony(folder: Path, fields: Iterable[np.ndarray], pixel_size_um: float = 1.2, side: int = 2) -> None:
    """Write fields as an export of Harmony does: wells from A01 along row A, `side` x `side` fields each."""
    folder.mkdir(parents=True)
    entries = []
    size = 0
    for i, field in enumerate(fields):
        size = len(field)
        well, number = divmod(i, side**2)
        name = f"r01c{well + 1:02d}f{number + 1:02d}p01-ch1sk1fk1fl1.tiff"
        tifffile.imwrite(folder / name, field)
        x, y = ((place - (side - 1) / 2) * size * pixel_size_um * 1e-6 for place in (number % side, -(number // side)))
        entries.append(
            f"<Image><URL>{name}</URL><Row>1</Row><Col>{well + 1}</Col><FieldID>{number + 1}</FieldID>"
            "<PlaneID>1</PlaneID><TimepointID>0</TimepointID><ChannelID>1</ChannelID><ChannelName>GFP</ChannelName>"
            f'<ImageResolutionX Unit="m">{pixel_size_um * 1e-6}</ImageResolutionX>'
            f'<PositionX Unit="m">{x}</PositionX><PositionY Unit="m">{y}</PositionY></Image>'
        )
    profile = (
        f"{{Background: {{Character: NonFlat, Profile: {{Coefficients: {COEFFICIENTS}, Dims: [{size}, {size}], "
        f"Origin: [{(size - 1) / 2}, {(size - 1) / 2}], Scale: [{1 / size}, {1 / size}], Type: Polynomial}}}}, "
        "Channel: 1, Version: Acapella:2013}"
    )
    (folder / "Index.idx.xml").write_text(
        '<?xml version="1.0" encoding="utf-8"?><EvaluationInputData xmlns="http://www.perkinelmer.com/PEHH/HarmonyV5">'
        f'<Maps><Map><Entry ChannelID="1"><FlatfieldProfile>{profile}</FlatfieldProfile></Entry></Map></Maps>'
        f"<Images>{''.join(entries)}</Images></EvaluationInputData>"
    )


def staged(images: Path, out: Path, method: str, acquisition: Mapping[str, Any], downsample: int = 2) -> Plate:
    """Stage a folder with one correction of the illumination."""
    sections = {"acquisition": acquisition, "illumination": {"method": method}, "mosaic": {"downsample": downsample}}
    config = complete_config({"screen": "s", "plates": "p", "layout": "l"} | sections, "flatness")
    index_plate("p", images, config["acquisition"], out / "index.parquet")
    stage_plate(
        "p",
        out / "index.parquet",
        images,
        out / f"{method}.zarr",
        out / f"{method}.json",
        out / f"{method}.parquet",
        acquisition=config["acquisition"],
        mosaic=config["mosaic"],
        illumination=config["illumination"],
        quality=config["qc"],
        dask=config["dask"],
    )
    return Plate(out / f"{method}.zarr")


def unevenness(plate: Plate, channel: str) -> float:
    """Return the relative standard deviation, over 10 x 10 parts of the field, of the background.

    That is each part's 10th percentile, the median over fields.
    """
    parts = []
    for well in plate.wells:
        [mosaic] = plate.read(well, [channel])
        for y, x, height, width in plate.fields(well)[["y", "x", "height", "width"]].astype(int).to_numpy():
            side_y, side_x = height // _TILES, width // _TILES
            field = mosaic[y : y + side_y * _TILES, x : x + side_x * _TILES]
            parts.append(np.percentile(field.reshape(_TILES, side_y, _TILES, side_x), 10, axis=(1, 3)))
    typical = np.median(parts, axis=0)
    return float(typical.std() / typical.mean())


def main(data: Path, n_fields: int, size: int) -> None:
    """Print a line a plate, channel and method."""
    rng = np.random.default_rng(0)
    cells = Nuclei()
    scenes = [compose(rng, cells, size, max(rng.poisson((size / 60) ** 2 / 2), 1), {}, "") for _ in range(n_fields)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "simulated").mkdir()
        shading = optics(rng, size, 1.0)
        profile = shading._replace(flat=(light(size) / light(size).max()).astype(np.float32))
        for i, scene in enumerate(scenes):
            name = f"A{i // 4 + 1:02d}_s{i % 4 + 1}.tif"
            tifffile.imwrite(folder / "simulated" / name, expose(rng, scene.signal, shading, 1.0))
        write_harmony(folder / "harmony", [expose(rng, scene.signal, profile, 1.0) for scene in scenes])
        plates = [
            ("simulated, vignetting", folder / "simulated", {"pattern": NAME, "channels": {"1": "DNA"}}, False),
            ("Harmony export made with a real profile", folder / "harmony", {"channels": {"1": "GFP"}}, True),
        ]
        if (archive := data / "acquisitions.tar.xz").is_file():
            unpack(archive, folder)
            real = folder / "operetta_compose" / "tests" / "operetta_plate" / "Images"
            plates.append(("real Harmony export, 2 fields", real, {"channels": {"1": "GFP"}}, True))
        if (archive := data / "sbs96.tar.xz").is_file():
            unpack(archive, folder)
            pattern = r"Channel(?P<channel>\d)-\d+-(?P<row>[A-H])-(?P<column>\d+)\.tif"
            real = folder / "tests" / "core" / "data" / "ExampleSBSImages"
            plates.append(("real plate sbs96", real, {"pattern": pattern, "channels": {"1": "GFP", "2": "DNA"}}, False))
        for name, images, acquisition, instrument in plates:
            out = folder / re.sub(r"\W", "_", f"out {name}")
            methods = ["none", "retrospective", *(["instrument"] if instrument else [])]
            left = {method: staged(images, out, method, acquisition) for method in methods}
            for channel in acquisition["channels"].values():
                figures = ", ".join(f"{method} {unevenness(plate, channel):.4f}" for method, plate in left.items())
                print(f"{name}, {channel}: unevenness {figures}", flush=True)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive of data."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[3] / "shared" / "data")
    parser.add_argument("--fields", type=int, default=96)
    parser.add_argument("--size", type=int, default=540)
    arguments = parser.parse_args()
    main(arguments.data, arguments.fields, arguments.size)
