"""The app, running in a thread of the test's own process, and browsers without a screen."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httpx", reason="needs the extra [app]: make app-test")
pytest.importorskip("starlette", reason="needs the extra [app]: make app-test")
pytest.importorskip("uvicorn", reason="needs the extra [app]: make app-test")

import httpx

from pipeline.app.server import AppServer
from pipeline.options import AppOptions

LIGHT = "eurosat-rgb-mobilenetv2"
TIMEOUT = 60.0  # seconds: the machines that run this are small and busy
MAX_UPLOAD = 8 * 2**20


@contextmanager
def running_app(root: Path | None = None, max_upload: int = MAX_UPLOAD) -> Iterator[str]:
    """Yield the address of an app that is ready; it is stopped in the end."""
    server = AppServer(AppOptions(LIGHT, port=0, root=root, max_upload=max_upload))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: httpx.get(f"{server.address}/api/state").json()["ready"])
        yield server.address
    finally:
        server.stop()
        thread.join()


def wait_until(condition: Callable[[], Any]) -> Any:
    """Return what a function returns once that is true."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.05)
    raise AssertionError("the condition did not become true in time")


class Browser:
    """A browser without a screen: it has a session's cookie, and sends and receives JSON."""

    def __init__(self, address: str) -> None:
        self.http = httpx.Client(base_url=address, timeout=TIMEOUT)
        assert self.http.get("/").status_code == 200

    def request(self, method: str, path: str, status: int = 200, **arguments: Any) -> Any:
        """Return the answer's JSON; the status must be the given one."""
        response = self.http.request(method, path, **arguments)
        assert response.status_code == status, response.text
        return response.json()

    def classify_image(self, content: bytes, name: str = "a.png", status: int = 200, **settings: Any) -> Any:
        """Classify an image."""
        params = {"name": name, "request": json.dumps(settings)}
        return self.request("POST", "/api/image", status, params=params, content=content)

    def add_scene(self, **content: Any) -> str:
        """Add a scene, by default one without files; returns its key."""
        return self.request("POST", "/api/scenes", json=content)["key"]

    def upload(self, *files: Path) -> str:
        """Upload files as one scene; returns its key."""
        key = self.add_scene()
        for file in files:
            self.request("PUT", f"/api/scenes/{key}/files/{file.name}", content=file.read_bytes())
        return key

    def describe(self, key: str, status: int = 200, **settings: Any) -> Any:
        """Have a scene described."""
        return self.request("POST", f"/api/scenes/{key}/describe", status, json=settings)

    def start(self, key: str, status: int = 200, **settings: Any) -> Any:
        """Start classifying a scene; returns the run's status."""
        return self.request("POST", f"/api/scenes/{key}/run", status, json=settings)

    def status(self, key: str) -> Any:
        """Return the status of a scene's run."""
        return self.request("GET", f"/api/scenes/{key}/run")

    def cancel(self, key: str) -> Any:
        """Cancel a scene's run; returns its status."""
        return self.request("DELETE", f"/api/scenes/{key}/run")

    def classify(self, key: str, **settings: Any) -> Any:
        """Classify a scene to the end; returns the run's last status."""
        self.start(key, **settings)
        return self.wait_for_end(key)

    def wait_for_end(self, key: str) -> Any:
        """Wait until a run is finished; returns its last status."""

        def finished() -> Any:
            run = self.status(key)
            return run if run["state"] in ("done", "failed", "cancelled") else None

        return wait_until(finished)
