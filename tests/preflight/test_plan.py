"""The plan of a screen: what it adds up, by hand, and how the command line takes a screen's size."""

import json
import subprocess
import sys

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from wscnn.cli import main
from wscnn.core.config import section
from wscnn.core.errors import UserError
from wscnn.preflight.plan import PLANNED, RATES, Rate, multiplications, plan, size_by_numbers

SETTINGS = {name: section(name, "{}") for name in PLANNED}
JUMP = {"wells": 384, "fields": 9, "channels": 5, "planes": 1, "size": 1080, "controls": 24}


def planned(plates: int = 1, rates: dict[str, Rate] = RATES, settings: dict = SETTINGS, **numbers: int) -> pd.DataFrame:
    return plan(size_by_numbers(plates=plates, **JUMP | numbers), settings, rates).set_index("stage")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["plan", *arguments])


def test_multiplications_of_a_pixel_by_hand():
    # At a quarter of the places 6 x 6 to 16 filters and 3 x 3 to 32; at a 16th the same; at a 64th 3 x 3 to two maps.
    by_hand = 36 * 16 / 4 + 9 * 16 * 32 / 4 + 9 * 32 * 32 / 16 + 9 * 32 * 2 / 64
    assert multiplications("compact", 1, 2) == by_hand
    assert multiplications("compact", 5, 2) == by_hand + 4 * 36 * 16 / 4
    # The encoder's layers: at a quarter 6 x 6 and 3 x 3, at a 16th twice 3 x 3 and the two maps.
    by_hand = 36 * 16 / 4 + 9 * 16 * 32 / 4 + (9 * 32 * 48 + 9 * 48 * 64 + 64 * 2) / 16
    assert multiplications("encoder", 1, 2) == by_hand
    # A layer that pools is computed at all of its places.
    by_hand = 121 * 50 + (9 * 50 * 100) / 4 + (25 * 100 * 100) / 16 + (25 * 100 * 2) / 64
    assert multiplications("wscnn4", 1, 2) == by_hand


def test_two_thousand_plates_by_hand():
    table = planned(2000)
    images = 2000 * 384 * 9 * 5
    assert table["jobs"].to_dict() == {
        "index": 2000, "stage": 2000, "encode": 1, "novelty": 0, "train": 3, "score": 2000, "hits": 1, "report": 1,
        "total": 6006,
    }  # fmt: skip
    assert table.loc["stage", "read"] == images * 1080 * 1080 * 2
    # Blocks of 2 x 2 pixels become one, 16 bit, packed to a half; tables are a hundredth of that.
    assert table.loc["stage", "written"] == pytest.approx(images * 540 * 540 * 2 / 2, rel=0.01)
    for column in ("files", "read", "written", "core_hours", "gpu_hours"):
        assert table.loc["total", column] == pytest.approx(table[column].drop("total").sum())


def test_hours_are_starts_and_work():
    rates = dict.fromkeys(RATES, Rate(0, 0, 0)) | {"stage": Rate(36, 0.1, 9), "score": Rate(0, 0, 3600)}
    table = planned(2, rates)
    megabytes = 2 * 384 * 9 * 5 * 1080 * 1080 * 2 / 1e6
    assert table.loc["stage", "core_hours"] == pytest.approx((2 * 36 + megabytes * 0.1) / 3600)
    # 10^9 multiplications of three folds over the mosaics.
    work = 3 * 2 * 384 * 9 * 540 * 540 * multiplications("encoder", 5, 2) / 1e9
    assert table.loc["score", "gpu_hours"] == pytest.approx(work)
    assert table.loc["stage", "gpu_hours"] == 0


def test_a_trained_model_is_not_trained_again():
    applied = SETTINGS | {"model": SETTINGS["model"] | {"checkpoint": "elsewhere"}}
    trained = planned(settings=applied).loc[["encode", "train"]]
    assert (trained == 0).all(axis=None)
    # Networks that are trained from a random start have no encoder.
    compact = SETTINGS | {"model": SETTINGS["model"] | {"architecture": "compact"}}
    assert planned(settings=compact)["jobs"].loc[["encode", "train"]].to_list() == [0, 3]


def test_what_makes_a_screen_larger_makes_it_dearer():
    base = planned(10)["core_hours"]
    for more in ({"plates": 20}, {"fields": 18}, {"planes": 2}, {"size": 2160}, {"channels": 10}):
        larger = planned(**{"plates": 10} | more)["core_hours"]
        assert larger["stage"] > 1.8 * base["stage"], more
        assert (larger >= base).all(), more
    finer = SETTINGS | {"mosaic": SETTINGS["mosaic"] | {"downsample": 1}}
    assert planned(10, settings=finer)["core_hours"]["score"] > 3.5 * base["score"]


def test_the_command_line_plans_by_numbers_without_any_file():
    table = pd.DataFrame(json.loads(run("--plates", "2000", "--json").stdout)).set_index("stage")
    pd.testing.assert_frame_equal(table, planned(2000), check_dtype=False)
    text = run("--plates", "2000").stdout
    assert "2,000 plates, 768,000 wells, 6,912,000 fields, 34,560,000 images of 1080 x 1080 pixels" in text
    assert "80.6 TB" in text and "upper bound" in text


@pytest.mark.parametrize(
    ("arguments", "unneeded"),
    [(["--help"], {"pandas", "jsonschema"}), (["plan", "--plates", "2"], {"torch", "zarr", "tifffile", "scipy"})],
)
def test_commands_import_only_what_they_need(arguments: list[str], unneeded: set[str]):
    # Importing torch alone takes longer than a plan should.
    code = "import sys; from wscnn.cli import main; main(sys.argv[1:], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert unneeded.isdisjoint(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "give a config, or the size of a screen"),
        (["--plates", "1", "--wells", "2000"], "--wells: 2000 are more than a plate has"),
        (["--plates", "1", "--measured", "nowhere"], "nowhere/logs/benchmarks: holds no job's benchmark"),
        (["missing.yaml"], "missing.yaml: cannot be read"),
    ],
)
def test_mistakes_are_told_in_a_sentence(arguments: list[str], word: str):
    done = run(*arguments)
    assert done.exit_code == 1 and word in done.output and "Traceback" not in done.output


def test_more_wells_than_a_plate_has():
    with pytest.raises(UserError, match="the largest has 1536"):
        size_by_numbers(plates=1, **JUMP | {"wells": 1537})
