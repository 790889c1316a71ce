import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from skimage.transform import rescale

from wscnn.core.config import section
from wscnn.core.errors import UserError
from wscnn.simulate.cells import Nuclei
from wscnn.simulate.fields import compose, expose, optics
from wscnn.staging.scale import Sample, Scale, factor_for, read_scale, resolved, sample, write_scale
from wscnn.statistics.cautions import of_scale

ACQUISITION = section(
    "acquisition",
    json.dumps(
        {
            "channels": {"1": "DNA"},
            "format": "pattern",
            "pattern": (r"(?P<plate>[^_]+)_(?P<well>[A-Z]{1,2}\d{2})_s(?P<field>\d+)_w(?P<channel>\d+)\.tif"),
        }
    ),
)


def screen(folder: Path, **pictures: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write a plate of three wells for each picture, all wells and fields alike; return plates and layout."""
    rows = []
    for plate, picture in pictures.items():
        (folder / plate).mkdir()
        for well in ("A01", "A02", "B01"):
            tifffile.imwrite(folder / plate / f"{plate}_{well}_s1_w1.tif", picture)
            rows.append({"plate": plate, "well": well, "role": "negative" if well == "A01" else "sample"})
    plates = pd.DataFrame({"plate": list(pictures), "images": [str(folder / plate) for plate in pictures]})
    return plates, pd.DataFrame(rows)


def picture(seed: int = 0, times: float = 1.0, n: int = 14) -> np.ndarray:
    rng = np.random.default_rng(seed)
    signal = compose(rng, Nuclei(), 300, n, {}, "").signal
    signal = rescale(signal, times).astype(np.float32) if times != 1 else signal
    return expose(rng, signal, optics(rng, signal.shape[0], 1.0), 1.0)


@pytest.mark.parametrize(("times", "factor"), [(1.0, 1), (2.0, 2), (3.0, 4)])
def test_the_factor_follows_the_size_of_the_cells(tmp_path: Path, times: float, factor: int) -> None:
    # A composed HeLa nucleus is 27 raw pixels wide (area 560 px, measured on its masks).
    seen = sample(*screen(tmp_path, plate1=picture(0, times), plate2=picture(1, times)), ACQUISITION)
    assert seen.diameter == pytest.approx(26.5 * times, rel=0.08)
    assert factor_for(seen, 40)[0] == factor
    assert 18 <= seen.diameter / factor < 28


def test_noise_falls_back_with_a_reason(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(300, 10, (300, 300)).astype(np.uint16)
    seen = sample(*screen(tmp_path, plate1=noise), ACQUISITION)
    factor, reason = factor_for(seen, 40)
    assert (factor, seen.diameter) == (2, None)
    assert "0 cells were found" in reason


def test_fields_never_become_smaller_than_the_network_needs() -> None:
    seen = Sample({"plate1": np.full(50, 80.0)}, (300, 200), [])
    factor, reason = factor_for(seen, 80)
    assert factor == 2
    assert "80 px that the network needs" in reason
    assert factor_for(seen, 400)[0] == 1


def test_a_plate_that_disagrees_is_a_warning(tmp_path: Path) -> None:
    small, large = picture(0), picture(1, 2.0)
    seen = sample(*screen(tmp_path, plate1=small, plate2=large, plate3=small), ACQUISITION)
    [caution] = of_scale(Scale(1, "", seen.diameter, seen.plates))
    assert (caution.plate, caution.code) == ("plate2", "other_scale")


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    plates, layout = screen(tmp_path, plate1=picture(), plate2=picture(1))
    for path in (tmp_path / "plate2").iterdir():
        path.write_bytes(b"no image")
    plates.loc[2] = ["plate3", str(tmp_path / "gone")]
    seen = sample(plates, layout, ACQUISITION)
    assert seen.plates["plate1"] is not None
    assert seen.plates["plate2"] is seen.plates["plate3"] is None


def test_a_scale_comes_back_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scale.json"
    write_scale(Scale(3, "cells", 60.5, {"plate1": 60.5, "plate2": None}), path)
    assert read_scale(path) == Scale(3, "cells", 60.5, {"plate1": 60.5, "plate2": None})
    assert resolved({"downsample": "auto", "arrange": "grid"}, path) == {"downsample": 3, "arrange": "grid"}
    for content in (
        "",
        "[]",
        '{"downsample": 0, "reason": ""}',
        '{"downsample": 2}',
        '{"downsample": true, "reason": ""}',
    ):
        path.write_text(content)
        with pytest.raises(UserError, match=r"scale\.json: not the scale of a screen"):
            read_scale(path)
    with pytest.raises(UserError, match="wscnn scale"):
        resolved({"downsample": "auto"}, None)
