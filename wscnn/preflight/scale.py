"""Command `scale`: the scale of a screen, decided once, from the size of its cells or from the applied model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from wscnn.core.errors import UserError
from wscnn.core.progress import log
from wscnn.core.screen_folder import ScreenFolder
from wscnn.core.screen_tables import load_layout, load_plates
from wscnn.network.card import Card
from wscnn.network.model import WSCNN
from wscnn.network.weights import check_fits, load_folds
from wscnn.staging.scale import MAX_FACTOR, Scale, factor_for, resolved, sample, write_scale

# Cells below this many mosaic pixels are too small.
_MIN_WIDE = 10.0


def decide_scale(
    plates: Path, layout: Path, output: Path, *, acquisition: Mapping[str, Any], model: Mapping[str, Any]
) -> None:
    """Decide how many raw pixels make a pixel of a screen's mosaics, and write it as JSON.

    Parameters
    ----------
    plates
        The table of plates.
    layout
        The screen's layout, as `check` or the user wrote it.
    output
        The file to write (`wscnn.staging.scale.Scale`).
    acquisition, model
        Sections of the config, complete with defaults.

    Raises
    ------
    UserError
        When a model is applied and no whole factor gives its pixel size.
    """
    table = load_plates(plates)
    scale = scale_of(table, load_layout(layout, list(table["plate"]), checked=True), acquisition, model)
    write_scale(scale, output)
    log(f"mosaic.downsample: {scale.downsample}: {scale.reason}")


def scale_of(
    plates: pd.DataFrame, layout: pd.DataFrame, acquisition: Mapping[str, Any], model: Mapping[str, Any]
) -> Scale:
    """Return the scale of a screen, as `decide_scale` writes it."""
    seen = sample(plates, layout, acquisition)
    if model["checkpoint"] is not None:
        card = load_folds(Path(model["checkpoint"]))[0][1]
        known = factor_of_card(card, seen.pixel_sizes[0] if seen.pixel_sizes else None)
        if known is not None:
            return Scale(known, "that of the model that is applied", seen.diameter, seen.plates)
    factor, reason = factor_for(seen, smallest_field(model)[1])
    return Scale(factor, reason, seen.diameter, seen.plates)


def with_factor(config: Mapping[str, Any], plates: pd.DataFrame, layout: pd.DataFrame) -> dict[str, Any]:
    """Return a config with the number that ``mosaic.downsample: auto`` stands for: as decided, else as it would be."""
    if config["mosaic"]["downsample"] != "auto":
        return dict(config)
    decided = ScreenFolder(Path(config["results"]) / config["screen"]).scale
    if decided.is_file():
        return {**config, "mosaic": resolved(config["mosaic"], decided)}
    scale = scale_of(plates, layout, config["acquisition"], config["model"])
    return {**config, "mosaic": {**config["mosaic"], "downsample": scale.downsample}}


def factor_of_card(card: Card, pixel_size_um: float | None) -> int | None:
    """Return the factor that gives raw pixels of this size the pixel size of a model; None where neither is known.

    Raises
    ------
    UserError
        When no whole number does.
    """
    if card.pixel_size_um is None or pixel_size_um is None:
        recorded = card.settings.get("mosaic", {}).get("downsample")
        return recorded if isinstance(recorded, int) else None
    factor = min(MAX_FACTOR, max(1, round(card.pixel_size_um / pixel_size_um)))
    check_fits(card, card.channels, factor * pixel_size_um, f"this screen at the nearest factor, {factor}")
    return factor


def smallest_field(model: Mapping[str, Any]) -> tuple[WSCNN, int]:
    """Return the network that the config's section ``model`` names, and the smallest side of a field that it takes.

    Raises
    ------
    UserError
        When the model cannot be loaded.
    """
    if model["checkpoint"] is None:
        network = WSCNN(model["architecture"], "max", 1, 2)
        return network, max(network.receptive_field, network.margin + network.stride + 1)
    network = load_folds(Path(model["checkpoint"]))[0][0]
    return network, network.margin + network.stride + 1


def given_factor_warning(
    factor: int,
    plates: pd.DataFrame,
    layout: pd.DataFrame,
    acquisition: Mapping[str, Any],
    model: Mapping[str, Any],
) -> list[str]:
    """Return whether a factor that the user gave makes cells too small or too large for the network."""
    seen = sample(plates, layout, acquisition)
    if seen.diameter is None:
        return []
    try:
        network, needed = smallest_field(model)
    except UserError:
        return []  # a problem of its own
    auto, _ = factor_for(seen, needed)
    wide = seen.diameter / factor
    if _MIN_WIDE <= wide <= network.receptive_field:
        return []
    what = "too small" if wide < _MIN_WIDE else f"more than the {network.receptive_field} that a position sees"
    return [
        f"mosaic.downsample: {factor} makes the typical cell, {seen.diameter:g} raw pixels wide, {wide:.3g} mosaic "
        f"pixels wide, {what}, for the network '{network.architecture}'; auto would take {auto}"
    ]
