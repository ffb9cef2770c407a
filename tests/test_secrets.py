"""A password in an address and a signature: in no file, folder name, log or line of a real run."""

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio

from tests.support.batch_runner import Runner
from tests.support.batches import make_scene, outcomes
from tests.support.failing_server import Handler, Server

ROOT = Path(__file__).parents[1]
USER, PASSWORD, SIGNATURE = "alice", "s3cr3tPassw0rd", "S1gnatur3"


@pytest.fixture(scope="module")
def runner(tmp_path_factory) -> Iterator[Runner]:
    runner = Runner(tmp_path_factory.mktemp("consoles"))
    yield runner
    runner.close()


class LockedHandler(Handler):
    """Answers only those who know the password."""

    def respond(self, body: bool) -> None:
        known = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != f"Basic {known}":
            return self.fail(401)
        self.path = self.path.partition("?")[0]
        return super().respond(body)


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    server = Server(tmp_path / "served")
    server.RequestHandlerClass = LockedHandler
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def address(server: Server, file: str) -> str:
    host = server.address.removeprefix("http://")
    return f"http://{USER}:{PASSWORD}@{host}/{file}?sig={SIGNATURE}"


def cut_off(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def write_mask(path: Path) -> None:
    with rasterio.open(path.with_name("a.tif")) as scene:
        profile = scene.profile | {"count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", **profile) as mask:
        mask.write(np.zeros((1, profile["height"], profile["width"]), np.uint8))


def assert_nothing_told(output: Path, *printed: str) -> None:
    for secret in (USER, PASSWORD, SIGNATURE):
        assert not any(secret in text for text in printed), printed
        for path in output.rglob("*"):
            assert secret not in str(path.relative_to(output))
            assert path.is_dir() or secret.encode() not in path.read_bytes(), path


def test_classify_tells_no_secret(server, tmp_path):
    make_scene(tmp_path / "served" / "a.tif")
    cut_off(make_scene(tmp_path / "served" / "cut.tif"))
    write_mask(tmp_path / "served" / "mask.tif")
    mask = address(server, "fine/mask.tif")
    good, cut = (address(server, f"fine/{name}.tif") for name in ("a", "cut"))
    missing = address(server, "down/none.tif")
    output = tmp_path / "maps"
    arguments = [good, cut, missing, good.replace("//", "/", 1), "-o", output, "--debug", "--mask", mask]
    done = subprocess.run(
        [sys.executable, "cli.py", "classify", "--model", "eurosat-rgb-mobilenetv2", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert " 0 tiles" not in done.stdout
    assert json.loads((output / "a_run.json").read_text())["scene"] == f"{server.address}/fine/a.tif"
    assert "of 4 scenes failed" in done.stderr
    assert_nothing_told(output, done.stdout, done.stderr)


def test_batch_tells_no_secret(runner, server, tmp_path):
    make_scene(tmp_path / "served" / "a.tif")
    cut_off(make_scene(tmp_path / "served" / "cut.tif"))
    files = ("fine/a.tif", "fine/cut.tif", "fine/none.tif")
    (tmp_path / "list.txt").write_text("\n".join(address(server, file) for file in files))
    output = tmp_path / "maps"
    status, printed = runner.run(tmp_path / "list.txt", "-o", output)
    assert status == 1
    assert {name: scene["status"] for name, scene in outcomes(output).items()} == {
        "a.tif": "done",
        "cut.tif": "failed",
        "none.tif": "failed",
    }
    host = server.address.removeprefix("http://").replace(":", "_")
    assert (output / host / "fine" / "a_landcover.tif").is_file()
    assert_nothing_told(output, printed)
    _, printed = runner.run(tmp_path / "list.txt", "-o", output, "--dry-run")
    assert_nothing_told(output, printed)
