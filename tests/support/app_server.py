"""The app, running in a thread of the test's own process, and visitors who come to it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

LIGHT = "eurosat-rgb-mobilenetv2"
SOON = 60.0  # seconds; the machines that run this are small and busy

httpx = pytest.importorskip("httpx", reason="needs the extra [app]: make app-test")
pytest.importorskip("starlette", reason="needs the extra [app]: make app-test")
pytest.importorskip("uvicorn", reason="needs the extra [app]: make app-test")


@contextmanager
def running_app(root: Path | None = None, max_upload: int = 50 * 2**20) -> Iterator[str]:
    """Give the address of an app that is ready; it is ended in the end."""
    from pipeline.app.server import AppServer
    from pipeline.options import AppOptions

    server = AppServer(AppOptions(LIGHT, port=0, root=root, max_upload=max_upload))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: httpx.get(f"{server.address}/api/state").json()["ready"])
        yield server.address
    finally:
        server.stop()
        thread.join()


def wait_until(true: Any) -> Any:
    """Return what a function gives once that is true."""
    deadline = time.monotonic() + SOON
    while time.monotonic() < deadline:
        if found := true():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come true")


class Visitor:
    """A browser without a screen: it has a cookie, and asks for JSON."""

    def __init__(self, address: str):
        self.http = httpx.Client(base_url=address, timeout=SOON)
        assert self.http.get("/").status_code == 200

    def ask(self, method: str, path: str, status: int = 200, **request: Any) -> Any:
        """Return the answer's JSON; the status must be the one given."""
        response = self.http.request(method, path, **request)
        assert response.status_code == status, response.text
        return response.json()

    def send(self, *files: Path) -> str:
        """Send files as a scene; returns its key."""
        key = self.ask("POST", "/api/scenes", json={})["key"]
        for file in files:
            self.ask("PUT", f"/api/scenes/{key}/files/{file.name}", content=file.read_bytes())
        return key

    def look(self, key: str, status: int = 200, **wishes: Any) -> Any:
        """Have a scene described."""
        return self.ask("POST", f"/api/scenes/{key}/look", status, json=wishes)

    def classify(self, key: str, **wishes: Any) -> Any:
        """Classify a scene to the end; returns the run's last status."""
        self.ask("POST", f"/api/scenes/{key}/run", json=wishes)
        return self.end_of(key)

    def end_of(self, key: str) -> Any:
        """Wait for the end of a run."""

        def status() -> Any:
            run = self.ask("GET", f"/api/scenes/{key}/run")
            return run if run["state"] in ("done", "failed", "cancelled") else None

        return wait_until(status)
