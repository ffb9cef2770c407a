"""Labels of settings, and messages in the page's words."""

import pytest

from pipeline.app.settings import describe_settings, in_page_words, offered_strides
from pipeline.options import LEVELS, MIN_STRIDE, SAFE_RESOLUTIONS


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Level l2a, as stated by `level`.", "Level l2a, as stated by “Level”."),
        ("name it with `assume_crs` EPSG:CODE", "name it with “Coordinate system” EPSG:CODE"),
        ("start the app with `root` DIR", "start the app with --root DIR"),
        ("`min_confidence` 50 leaves them out", "landcover classify --min-confidence 50 leaves them out"),
        ("choose another folder with `output`", "choose another folder with landcover classify -o"),
        ("the file `odd_name` is missing", "the file `odd_name` is missing"),
    ],
)
def test_options_in_messages_are_named_as_on_the_page(text, shown):
    assert in_page_words(text) == shown


def test_the_page_offers_every_level_and_resolution_that_there_is():
    settings = describe_settings()
    assert [level["name"] for level in settings["levels"]] == list(LEVELS)
    assert settings["safe_resolutions"] == list(SAFE_RESOLUTIONS)


@pytest.mark.parametrize(("tile", "strides"), [(64, [64, 32, 16, 8]), (100, [100, 50, 25]), (8, [8])])
def test_strides_are_the_tile_halved(tile, strides):
    assert offered_strides(tile) == strides
    assert min(strides) >= MIN_STRIDE
