"""`landcover evaluate`: what it refuses."""

from tests.support.command import LIGHT, fails
from tests.support.tiles import make_tiles


def test_a_picture_is_not_a_list_of_names(tmp_path):
    data = make_tiles(tmp_path / "tiles")
    picture = data / "Forest" / "Forest_3.png"
    message = fails(1, "evaluate", "--data", data, "--names", picture, *LIGHT)
    assert "Forest_3.png cannot be read as a list of tiles" in message
