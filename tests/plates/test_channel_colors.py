"""Colours of channels."""

import pytest

from wscnn.plates.channel_colors import channel_colors

_BLUE, _GREEN, _RED = "0000FF", "00FF00", "FF0000"


@pytest.mark.parametrize(
    ("names", "colors"),
    [
        (["DNA"], ["FFFFFF"]),
        (["DNA", "GFP"], [_BLUE, _GREEN]),
        (["GFP", "DNA"], [_GREEN, _BLUE]),
        (["mCherry", "Hoechst 33342", "EGFP-tubulin"], [_RED, _BLUE, _GREEN]),
        # The dye says more than what it marks.
        (["H2B-GFP", "RFP"], [_GREEN, _RED]),
        # Wavelengths, of excitation or emission; Alexa 594 is red.
        (["405", "w488", "Alexa 594"], [_BLUE, _GREEN, _RED]),
        # Names that say nothing take what is left.
        (["DAPI", "ch2", "ch3"], [_BLUE, _GREEN, _RED]),
        (["1", "2", "3"], [_BLUE, _GREEN, _RED]),
    ],
)
def test_channels_have_the_colour_of_their_stain(names: list[str], colors: list[str]) -> None:
    assert channel_colors(names) == colors


def test_no_two_channels_have_one_colour_while_there_are_others() -> None:
    names = ["GFP", "FITC", "green", "DNA", "DAPI", "RFP", "Cy5"]
    assert len(set(channel_colors(names))) == len(names)
    assert len(channel_colors([f"ch{n}" for n in range(12)])) == 12
