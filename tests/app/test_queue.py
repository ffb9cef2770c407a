"""The queue of scenes to classify."""

from tests.support.app_server import Browser, wait_until
from tests.support.pictures import picture


def test_scenes_wait_for_each_other_and_know_how_many_are_ahead(address, scene):
    first, second, third = browsers = [Browser(address) for _ in range(3)]
    keys = [browser.upload(scene) for browser in browsers]
    for browser, key in zip(browsers, keys, strict=True):
        browser.describe(key)
        browser.start(key, stride=8)
    ahead = [browser.status(key)["ahead"] for browser, key in zip(browsers, keys, strict=True)]
    assert ahead == [0, 1, 2]
    third.classify_image(picture())
    assert first.status(keys[0])["state"] in ("running", "writing")  # images do not wait for scenes
    assert second.cancel(keys[1])["state"] == "cancelled"
    assert third.status(keys[2])["ahead"] == 1
    first.cancel(keys[0])
    assert first.wait_for_end(keys[0])["state"] == "cancelled"
    first.request("GET", f"/api/map?scene={keys[0]}", 404)
    wait_until(lambda: third.status(keys[2])["ahead"] == 0)
    third.cancel(keys[2])
    assert third.wait_for_end(keys[2])["state"] == "cancelled"
