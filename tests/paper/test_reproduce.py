"""The paper's tables made again, at a size that takes seconds: what is measured is right, and nothing is done twice."""

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from skimage.io import imread

from wscnn.cli import main
from wscnn.core.errors import UserError
from wscnn.paper.reproduce import TABLES, reproduce

COLUMNS = ["table", "network", "data", "measure", "paper", "ours", "lowest", "highest", "seeds", "seconds", "device"]


@pytest.mark.parametrize(
    "table", [pytest.param(table, marks=pytest.mark.long) if table == "prevalence" else table for table in TABLES]
)
def test_a_small_table_is_made_and_its_networks_are_kept(table, tmp_path):
    settings = {"seeds": 1, "images": 12, "steps": 2, "architecture": "compact", "pools": ["noisy_or"], "device": "cpu"}
    made = reproduce(table, tmp_path, **settings)
    assert list(made.columns) == COLUMNS and (made["table"] == table).all()
    shares = made["ours"].dropna()
    assert shares.between(0, 1).all()
    written = pd.read_csv(tmp_path / f"table-{table}.tsv", sep="\t")
    assert len(written) == len(made)
    networks = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")}
    assert networks
    again = reproduce(table, tmp_path, **settings)
    pd.testing.assert_frame_equal(again, made)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")} == networks
    # Other settings are another network.
    reproduce(table, tmp_path, **(settings | {"steps": 1}))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.safetensors")} != networks


@pytest.mark.long
def test_nuclei_are_shown_with_all_their_pixels_where_that_is_asked_for(tmp_path):
    settings = {"seeds": 1, "images": 12, "steps": 1, "device": "cpu"}
    halved, whole = (reproduce("prevalence", tmp_path, downsample=factor, **settings) for factor in (2, 1))
    assert halved["data"].tolist() == whole["data"].tolist() == ["1% mitotic", "2% mitotic", "5% mitotic"]
    kept = {path.name for path in tmp_path.glob("*.safetensors")}
    assert kept == {
        f"nuclei-{p}-{factor}-compact-leaky_noisy_or-0.safetensors" for p in (0.01, 0.02, 0.05) for factor in (1, 2)
    }
    assert halved["ours"].tolist() != whole["ours"].tolist()


def test_the_papers_figures_stand_beside_ours(tmp_path):
    made = reproduce("1", tmp_path, seeds=2, images=12, steps=1, pools=["noisy_or", "avg", "fc"], device="cpu")
    # Table 1 of Sailem et al. (2017).
    accuracy = made[(made["measure"] == "accuracy") & (made["data"] == "Sim. Data 1")].set_index("network")["paper"]
    assert accuracy.to_dict() == {"compact noisy_or": 0.9962, "compact avg": 0.5103, "compact fc": 0.8673}
    assert (made["seeds"].max(), made["ours"].isna().all()) == (2, False)
    assert np.isnan(made.loc[made["data"] == "one circle", "paper"]).all()


@pytest.mark.long
def test_networks_for_cells_stand_beside_the_papers_of_as_many_convolutions(tmp_path):
    settings = {"seeds": 1, "images": 12, "steps": 1, "pools": ["noisy_or"], "device": "cpu"}
    four, six = (reproduce("2", tmp_path, architecture=name, **settings) for name in ("compact", "wscnn6"))
    # Table 2 of Sailem et al. (2017).
    measures = ["accuracy", "precision", "recall"]
    assert four.set_index("measure").loc[measures, "paper"].tolist() == [0.9027, 0.8824, 0.9020]
    assert six.set_index("measure").loc[measures, "paper"].tolist() == [0.9189, 0.8897, 0.9365]


def test_pictures_of_the_maps_stand_beside_table_3(tmp_path):
    reproduce("3", tmp_path, seeds=1, images=12, steps=1, device="cpu")
    maps = imread(tmp_path / "circles-compact-noisy_or-0.maps.png")
    # Three rows of three pictures; image and detector each with contrast of its own.
    assert maps.shape == (3 * 210 + 8, 3 * 280 + 8)
    for panel in (maps[:210, :280], maps[:210, 284:564]):
        assert (panel.min(), panel.max()) == (0, 255)
    values = imread(tmp_path / "circles-compact-noisy_or-0.values.png")
    assert len(np.unique(values.reshape(-1, values.shape[-1]), axis=0)) > 10


def test_the_command_prints_the_table(tmp_path):
    options = ["reproduce", "pools", str(tmp_path), "--seeds", "1", "--images", "12", "--steps", "1", "--pool", "max"]
    done = CliRunner().invoke(main, options, catch_exceptions=False)
    assert done.exit_code == 0 and "false frequency" in done.output


@pytest.mark.parametrize(
    "wrong",
    [{"table": "4"}, {"seeds": 0}, {"images": 3}, {"pools": ["median"]}, {"architecture": "deep"}, {"downsample": 3}],
)
def test_what_cannot_be_made_is_told(wrong, tmp_path):
    with pytest.raises(UserError):
        reproduce(**({"table": "pools", "folder": tmp_path, "device": "cpu"} | wrong))
