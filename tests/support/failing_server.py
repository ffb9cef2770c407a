"""An HTTP server whose answers fail in the way that the address names."""

import http.server
import re
import time
from pathlib import Path


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder on loopback; the first part of a URL's path says how the answer fails."""

    daemon_threads = True

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.requests: list[str] = []

    def handle_error(self, request, client_address):
        """Print nothing: clients that disconnect are what is tested here."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.respond(body=False)

    def do_GET(self) -> None:
        self.respond(body=True)

    def respond(self, body: bool) -> None:
        behavior, _, name = self.path.lstrip("/").partition("/")
        self.server.requests.append(self.path)
        path = self.server.folder / name
        if not path.is_file():
            return self.fail(404)
        content = path.read_bytes()
        first, last = 0, len(content) - 1
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(asked[1]), min(last, int(asked[2] or last))
        beyond_header = first > 0
        if behavior == "down" or (behavior == "flaky" and self.server.requests.count(self.path) % 3):
            return self.fail(503)
        if behavior == "shaky":  # the first three answers break off
            behavior = "breaking" if self.server.requests.count(self.path) <= 3 else "fine"
        if behavior == "silent" and beyond_header:
            time.sleep(60)
        if behavior == "slow":
            time.sleep(0.05)
        part = content[first : last + 1]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()
        if body:
            breaks = behavior == "breaking" and beyond_header
            self.wfile.write(part[: len(part) // 2] if breaks else part)
            self.close_connection = breaks
        return None

    def fail(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()
