"""The app's web server: it answers at once, while torch, GDAL and the model load in the background.

Only the page and its state are served from here. Everything else is forwarded to `api`, which is imported in
the background; requests that come earlier wait for it.
"""

import asyncio
import logging
import shutil
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from pipeline.app.security import SecurityMiddleware
from pipeline.app.sessions import Sessions
from pipeline.errors import UsageError
from pipeline.options import AppOptions

if TYPE_CHECKING:
    from pipeline.app.api import Api

log = logging.getLogger(__name__)

STATIC = Path(__file__).with_name("static")

EXPIRY_INTERVAL = 60.0
"""Seconds between two looks for expired sessions."""

SHUTDOWN_SECONDS = 3
"""How long requests may take to finish once the server is told to stop."""


def serve(options: AppOptions, on_address: Callable[[str], None]) -> None:
    """Serve the app until the process is told to stop; `on_address` is called once it can be opened.

    Raises:
        UsageError: the server cannot listen at the address.
        ModelError: the model cannot be loaded.
    """
    server = AppServer(options)
    on_address(server.address)
    with suppress(KeyboardInterrupt):  # Ctrl-C is the normal way to stop it
        server.run()


class AppServer:
    """The app at its address. Raises UsageError if it cannot listen there."""

    def __init__(self, options: AppOptions) -> None:
        self._listener = _listen(options)
        port = self._listener.getsockname()[1]
        name = f"[{options.host}]" if ":" in options.host else options.host
        self.address = f"http://{name}:{port}"
        self._state = AppState(options, port, on_failure=self.stop)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._state.app,
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            )
        )

    def run(self) -> None:
        """Serve until `stop` is called or a signal comes; raises the error if the app could not be loaded."""
        with self._listener:
            self._server.run(sockets=[self._listener])
        if self._state.failure:
            raise self._state.failure

    def stop(self) -> None:
        """Make `run` return; may be called from any thread."""
        self._server.should_exit = True


def _listen(options: AppOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        return socket.create_server((options.host, options.port), family=family)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"The app cannot listen at port {options.port} of {options.host} ({error}): choose another with "
            "`port`."
        ) from error


class AppState:
    """The web application while it runs: its sessions, their files, and the API that is loading."""

    def __init__(self, options: AppOptions, port: int, on_failure: Callable[[], None]) -> None:
        self.failure: Exception | None = None
        self._options = options
        # Browsers send a cookie to every port of a host: two apps on one machine must not share theirs.
        self._cookie = f"landcover_{port}"
        self._on_failure = on_failure
        self._api: Api | None = None
        self._loaded = asyncio.Event()
        self.app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/api/state", self._describe),
                Mount("/static", _StaticFiles(directory=STATIC)),
                Mount("/", self._forward),
            ],
            middleware=[Middleware(SecurityMiddleware, host=options.host)],
            exception_handlers={HTTPException: _answer_error},
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        # Resolved, because GDAL resolves links, and messages are cleaned of this path.
        folder = Path(tempfile.mkdtemp(prefix="landcover-app-")).resolve()
        self._sessions = Sessions(folder)
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._load, args=(loop, folder), name="load", daemon=True).start()
        expiry = asyncio.create_task(self._remove_expired())
        try:
            yield
        finally:
            expiry.cancel()
            if self._api:
                await asyncio.to_thread(self._api.close)
            self._sessions.close()
            shutil.rmtree(folder, ignore_errors=True)

    def _load(self, loop: asyncio.AbstractEventLoop, folder: Path) -> None:
        """Load the API, in a thread of its own."""
        try:
            # Imported here because torch and GDAL take seconds to import, and the page is to open at once.
            from pipeline.app.api import Api

            self._api = Api(self._options, folder, self._cookie, self._sessions)
        except Exception as error:
            self.failure = error
            self._on_failure()
        with suppress(RuntimeError):  # the server has stopped in the meantime
            loop.call_soon_threadsafe(self._loaded.set)

    async def _remove_expired(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_INTERVAL)
            self._sessions.remove_expired()

    async def _page(self, request: Request) -> Response:
        response = FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-store"})
        if self._sessions.find(request.cookies.get(self._cookie)) is None:
            token = self._sessions.create().token
            response.set_cookie(self._cookie, token, httponly=True, samesite="lax")
        return response

    async def _describe(self, _: Request) -> Response:
        """Say at once whether the API is loaded and, if so, what the page can offer."""
        state = {"ready": True, **self._api.state()} if self._api else {"ready": False}
        return JSONResponse(state, headers={"Cache-Control": "no-store"})

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request to the API once it is loaded."""
        await self._loaded.wait()
        if self._api is None:
            raise HTTPException(503, "The model could not be loaded.")
        await self._api.app(scope, receive, send)


class _StaticFiles(StaticFiles):
    """The page's own files; browsers ask whether they have changed."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = "no-cache"
        return response


async def _answer_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
