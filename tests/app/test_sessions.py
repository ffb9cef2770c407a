"""Sessions: whose scenes are whose, and when they are removed."""

import pytest

pytest.importorskip("starlette", reason="needs the extra [app]: make app-test")

from pipeline.app.sessions import EXPIRE_AFTER, MAX_SCENES, Sessions
from tests.support.app_server import Browser, httpx


class FakeScene:
    def __init__(self, busy: bool = False) -> None:
        self.busy, self.closed = busy, False

    def close(self) -> None:
        self.closed = True


def test_a_request_without_a_session_is_refused(address):
    answer = httpx.post(address + "/api/scenes", json={})
    assert answer.status_code == 401
    assert "reload the page" in answer.json()["error"]


def test_sessions_do_not_see_each_others_scenes(address, scene):
    one, other = Browser(address), Browser(address)
    key = one.upload(scene)
    one.describe(key)
    assert one.classify(key)["state"] == "done"
    for method, path in (
        ("POST", f"/api/scenes/{key}/describe"),
        ("GET", f"/api/scenes/{key}/run"),
        ("GET", f"/api/scenes/{key}/picture"),
        ("DELETE", f"/api/scenes/{key}/run"),
        ("GET", f"/api/map?scene={key}"),
        ("GET", f"/api/cells?scene={key}"),
        ("GET", f"/api/outputs.zip?scene={key}"),
    ):
        assert "This scene was removed" in other.request(method, path, 404)["error"]


def test_the_oldest_scene_that_is_not_busy_makes_room_for_a_new_one(tmp_path):
    session = Sessions(tmp_path).create()
    scenes = [FakeScene(busy=True), *(FakeScene() for _ in range(MAX_SCENES))]
    for i, scene in enumerate(scenes):
        session.add_scene(str(i), scene)
    assert [scene.closed for scene in scenes] == [False, True, *[False] * (MAX_SCENES - 1)]


def test_an_expired_session_is_removed_with_its_files_unless_it_is_busy(tmp_path):
    sessions = Sessions(tmp_path)
    expired, busy, recent = (sessions.create() for _ in range(3))
    (expired.folder / "upload.tif").write_bytes(b"much")
    expired.add_scene("a", scene := FakeScene())
    busy.add_scene("b", FakeScene(busy=True))
    expired.last_seen -= EXPIRE_AFTER + 1
    busy.last_seen -= EXPIRE_AFTER + 1
    sessions.remove_expired()
    assert sessions.find(expired.token) is None
    assert scene.closed
    assert {path.name for path in tmp_path.iterdir()} == {busy.folder.name, recent.folder.name}
