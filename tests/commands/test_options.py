"""Parameter types: what they accept and refuse."""

import click
import pytest

from pipeline.commands.options import Bands, Offset, scene_options
from pipeline.options import SAFE_RESOLUTIONS, SceneOptions


def test_bands_are_pairs_of_names_and_positions():
    assert Bands()("red=4, green = 3,blue=2") == (("red", 4), ("green", 3), ("blue", 2))


@pytest.mark.parametrize(
    "text", ["", "red", "red=", "=1", "red=0", "red=-1", "red=²", "red=1,red=2", "1,2,3"]
)
def test_bands_that_make_no_sense_are_refused(text):
    with pytest.raises(click.BadParameter):
        Bands()(text)


@pytest.mark.parametrize(("text", "value"), [("auto", None), ("-1000", -1000), ("0", 0), ("-0.1", -0.1)])
def test_an_offset_is_a_number_or_auto(text, value):
    assert Offset()(text) == value


@pytest.mark.parametrize("text", ["many", "nan", "inf", ""])
def test_other_offsets_are_refused(text):
    with pytest.raises(click.BadParameter):
        Offset()(text)


def test_without_arguments_scene_options_have_their_defaults():
    @click.command()
    @scene_options
    def command(**values: object) -> SceneOptions:
        return SceneOptions(**values)  # type: ignore[arg-type]

    assert command.main([], standalone_mode=False) == SceneOptions()
    for metres in SAFE_RESOLUTIONS:
        arguments = ["--safe-resolution", str(metres)]
        assert command.main(arguments, standalone_mode=False).safe_resolution == metres
