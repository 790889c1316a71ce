"""Novel cells beside the trained phenotypes of a plate: rows of their own, and the others as they were."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_score import CONTROLS, SAMPLES, SIZE, Screen, settings

from wscnn.core.config import section
from wscnn.core.errors import UserError
from wscnn.core.tables import read_table, write_table
from wscnn.core.wells import parse_well
from wscnn.discovery.learn import learn_novelty
from wscnn.network.card import Card
from wscnn.network.model import WSCNN
from wscnn.network.weights import save_model
from wscnn.plates.store import Plate
from wscnn.scoring.score import score_plate


def learn(screen: Screen, seed: int = 0) -> dict[str, Path]:
    """Give the screen an encoder, of random layers, and references; return what `score_plate` takes of them."""
    torch.manual_seed(seed)
    made = {
        "novelty": screen.folder / "model" / "novelty.safetensors",
        "encoder": screen.folder / f"e{seed}.safetensors",
    }
    card = Card("encoder", "noisy_or", "same", ["DNA"], 0.5, ["negative", "pasted"], "s", 0, {}, {})
    card.thresholds = {"pasted": {"field": 0.0, "place": 0.0}}
    save_model(made["encoder"], WSCNN("encoder", "noisy_or", 1, 2).eval(), card)
    rows = [("P1", well, *parse_well(well), "negative", "") for well in CONTROLS]
    controls = pd.DataFrame(rows, columns=["plate", "well", "well_row", "well_column", "role", "phenotype"])
    write_table(controls, screen.folder / "controls.parquet")
    given = section("discovery", '{"method": "novelty", "device": "cpu"}')
    learn_novelty(
        screen.folder / "controls.parquet",
        [screen.store],
        [screen.qc],
        made["encoder"],
        made["novelty"],
        screen="s",
        discovery=given,
    )
    return made


def score(screen: Screen, models: Path | None, output: Path, **made: Path) -> dict[str, pd.DataFrame]:
    paths = {name: output / f"{name}.parquet" for name in ("wells", "fields", "objects")}
    output.mkdir(exist_ok=True)
    more = {**made, "features": output / "features.parquet"} if made else {}
    score_plate(screen.store, screen.qc, models, **paths, screen="s", **settings(), **more)
    return {path.stem: read_table(path) for path in sorted(output.glob("*.parquet"))}


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Screen:
    return Screen(tmp_path_factory.mktemp("novel"))


@pytest.fixture(scope="module")
def made(screen: Screen) -> dict[str, Path]:
    return learn(screen)


def test_trained_phenotypes_score_as_without_novelty(screen: Screen, made: dict[str, Path], tmp_path: Path) -> None:
    alone = score(screen, screen.models, tmp_path / "alone")
    both = score(screen, screen.models, tmp_path / "both", **made)
    for name, table in alone.items():
        own = both[name][both[name]["phenotype"] == "mitotic"].reset_index(drop=True)
        pd.testing.assert_frame_equal(own, table)
        assert set(both[name]["phenotype"]) == {"mitotic", "novelty"}
    fields = both["fields"]
    assert fields[["well", "field", "phenotype"]].apply(tuple, axis=1).is_monotonic_increasing
    assert {"mitotic", "novelty", "novelty_saliency"} < set(Plate(screen.store).labels("B03"))


def test_a_well_is_the_share_of_its_cells_over_all_fields(
    screen: Screen, made: dict[str, Path], tmp_path: Path
) -> None:
    found = score(screen, None, tmp_path, **made)
    wells = found["wells"].set_index("well")
    assert set(found["wells"]["phenotype"]) == {"novelty"}
    # Few of the cells are found here, so that nine squares of a field take their place; every field has as many.
    assert (SIZE / 32) ** 2 == 9
    mean = found["fields"].groupby("well")["score"].mean()
    np.testing.assert_allclose(wells["score"].dropna(), mean[wells["score"].notna()])
    assert set(wells.loc[[*CONTROLS], "fold"]) == {0, 1, 2} and wells.loc[SAMPLES, "fold"].isna().all()
    assert wells.loc["C06", "why_no_score"] == "no good field" and wells["score"].isna().sum() == 1
    # Labels of phenotypes that were not looked for this time are gone.
    assert Plate(screen.store).labels("B03") == ["novelty", "novelty_saliency"]
    assert Plate(screen.store).labels("C06") == []
    assert len(found["features"]) == len(found["objects"])


def test_threads_change_nothing(
    screen: Screen, made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in (1, 3):
        monkeypatch.setattr("wscnn.core.cluster.cpus", lambda n=n: n)
        score(screen, None, tmp_path / str(n), **made)
    for path in (tmp_path / "1").iterdir():
        assert path.read_bytes() == (tmp_path / "3" / path.name).read_bytes(), path.name


def test_references_of_another_encoder_are_refused(screen: Screen, made: dict[str, Path], tmp_path: Path) -> None:
    other = Screen(tmp_path)
    encoder = learn(other, seed=1)["encoder"]
    with pytest.raises(UserError, match=r"novelty\.safetensors: was not learned by the encoder .*run `wscnn novelty`"):
        score(screen, None, tmp_path / "tables", novelty=made["novelty"], encoder=encoder)


def test_too_few_negative_controls_with_good_fields_are_told(tmp_path: Path) -> None:
    screen = Screen(tmp_path)
    screen.quality.loc[screen.quality["well"] == CONTROLS[0], "used"] = False
    write_table(screen.quality, screen.qc)
    with pytest.raises(UserError, match="no plate has 6 negative control wells with cells in good fields, 2 in each"):
        learn(screen)


def test_a_plate_that_lost_negative_controls_says_so(screen: Screen, made: dict[str, Path], tmp_path: Path) -> None:
    poor = Screen(tmp_path)
    poor.quality.loc[poor.quality["well"] == CONTROLS[0], "used"] = False
    write_table(poor.quality, poor.qc)
    wells = score(poor, None, tmp_path / "tables", **made)["wells"].set_index("well")
    assert wells["score"].isna().all()
    assert (wells.drop(["C06", CONTROLS[0]])["why_no_score"] == "too few negative controls").all()
