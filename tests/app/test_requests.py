"""Requests of the page: invalid values are refused with a sentence in the page's words."""

import pytest

pytest.importorskip("starlette", reason="needs the extra [app]: make app-test")

from starlette.exceptions import HTTPException

from pipeline.app.requests import MAX_BODY, ImageRequest, RunRequest, parse_json
from pipeline.errors import UsageError
from pipeline.options import SceneOptions


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "/etc"}, "choose one of"),
        ({"assume_crs": "/etc/passwd"}, "“Coordinate system” must be written as EPSG:CODE"),
        ({"offset": "many"}, "“Offset” must be a number"),
        ({"assume_gsd": "nan"}, "“Pixel size” must be a number"),
        ({"level": "l9"}, "“Level” is one of"),
        ({"safe_resolution": 30}, "“SAFE resolution” must be one of 10, 20, 60 m"),
        ({"bands": [1, 2, 3]}, "“Bands”"),
        ({"stride": "wide"}, "“Stride” must be a whole number"),
    ],
)
def test_an_invalid_setting_is_refused_by_its_label(browser, scene, settings, message):
    assert message in browser.describe(browser.upload(scene), 422, **settings)["error"]


def test_a_stride_out_of_range_is_refused_by_its_label(browser, scene):
    key = browser.upload(scene)
    browser.describe(key)
    assert "“Stride” 7" in browser.start(key, 422, stride=7)["error"]


def test_a_body_that_is_too_large_is_refused(browser):
    answer = browser.request("POST", "/api/scenes", 413, content=bytes(MAX_BODY + 1))
    assert answer["error"] == "Request body too large."


@pytest.mark.parametrize("text", ["no JSON", "[1]", "null"])
def test_anything_but_a_json_object_is_refused(text):
    with pytest.raises(HTTPException) as raised:
        parse_json(text)
    assert raised.value.status_code == 400


def test_what_is_not_stated_is_left_to_the_defaults():
    assert RunRequest.from_json({}).options.scene == SceneOptions()
    assert ImageRequest.from_json({}) == ImageRequest()


def test_a_fit_that_does_not_exist_is_refused():
    with pytest.raises(UsageError, match="part or whole"):
        ImageRequest.from_json({"fit": "stretched"})
