"""Scenes on servers that are slow, fail, or stop answering."""

import threading
from collections.abc import Iterator

import pytest

from tests.support.batches import half_written, make_scene, report_of
from tests.support.failing_server import Server


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    server = Server(tmp_path)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_servers_that_are_slow_or_fail_or_stop_answering(runner, server, tmp_path):
    make_scene(tmp_path / "served.tif", 640, 640, compress=None)
    make_scene(tmp_path / "good_0.tif")
    kinds = ("fine", "slow", "flaky", "shaky", "down", "breaking", "silent")
    addresses = [f"{server.address}/{kind}/served.tif" for kind in kinds]
    addresses += [f"{server.address}/fine/none.tif"]
    (tmp_path / "list.txt").write_text("\n".join([*addresses, str(tmp_path / "good_0.tif")]))
    quick = {"GDAL_HTTP_RETRY_DELAY": "0.01", "GDAL_HTTP_LOW_SPEED_TIME": "2"}
    output = tmp_path / "maps"
    assert runner.run(tmp_path / "list.txt", "-o", output, environment=quick)[0] == 1
    status = {scene["scene"]: scene["status"] for scene in report_of(output)["scenes"]}
    good = {f"{server.address}/{kind}/served.tif" for kind in ("fine", "slow", "flaky", "shaky")}
    assert {scene for scene, how in status.items() if how == "done"} == good | {str(tmp_path / "good_0.tif")}
    assert not half_written(output)
    maps = [path.read_bytes() for path in output.rglob("served_landcover.tif")]
    assert len(maps) == 4
    assert len(set(maps)) == 1
    for kind in kinds:
        assert server.requests.count(f"/{kind}/served.tif") < 200
    # Each scene's log has its own errors only.
    logs = {log.parent.name: log.read_text() for log in (output / "logs").rglob("served.log")}
    assert {kind for kind, text in logs.items() if "503" in text} == {"flaky", "down"}


def test_a_scene_whose_server_never_answers_times_out(runner, server, tmp_path):
    make_scene(tmp_path / "served.tif", 640, 640, compress=None)
    (tmp_path / "list.txt").write_text(f"{server.address}/silent/served.tif")
    assert runner.run(tmp_path / "list.txt", "-o", tmp_path / "maps", "--timeout", "4")[0] == 1
    (scene,) = report_of(tmp_path / "maps")["scenes"]
    assert "`timeout`" in scene["reason"]
