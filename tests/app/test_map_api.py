"""Maps in the served folder; those of a session's scene are in test_scene_api."""

import io

from PIL import Image


def test_a_map_is_described_and_its_scene_drawn(browser):
    described = browser.request("GET", "/api/map?path=maps/made_run.json")
    assert (described["rows"], described["cols"], described["stride"]) == (14, 14, 32)
    assert (described["width"], described["height"]) == (448, 448)
    picture = browser.http.get("/api/map-picture?path=maps/made_run.json")
    assert Image.open(io.BytesIO(picture.content)).size == (448, 448)


def test_a_damaged_map_is_reported_in_a_sentence(browser, root):
    (root / "maps" / "broken_run.json").write_text('{"files": {}}')
    answer = browser.request("GET", "/api/map?path=maps/broken_run.json", 422)
    (root / "maps" / "broken_run.json").unlink()
    assert answer["error"].startswith("The map of broken cannot be read")
    assert "`" not in answer["error"]
