"""`landcover info`: what would be done with a scene, and why."""

import json

from tests.support.command import LIGHT, fails, landcover


def test_info_shows_what_is_assumed_and_why(scene):
    text = landcover("info", scene, *LIGHT).output
    assert "192x128 pixels of 10 m" in text
    assert "EPSG:32633" in text
    assert "B04 B03 B02" in text
    assert "6 (2 rows x 3 columns)" in text
    assert "Level-1C" in text
    facts = json.loads(landcover("info", scene, *LIGHT, "--json").output)
    assert facts["notes"]


def test_offset_is_a_number_or_auto(scene, tmp_path):
    assert "offset" in fails(2, "info", scene, *LIGHT, "--offset", "many")
    assert landcover("info", scene, *LIGHT, "--offset", "-1000").exit_code == 0
