"""The app's web server: up in a moment, while what is heavy (torch, GDAL, the model) loads behind it.

Only what a page needs to show itself is here. All else is asked of `api`, which is imported in the
background; requests that come before it is there wait for it.
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

from pipeline.app.guard import Guard
from pipeline.app.visitors import Visitors
from pipeline.errors import UsageError
from pipeline.options import AppOptions

if TYPE_CHECKING:
    from pipeline.app.api import Api

log = logging.getLogger(__name__)

STATIC = Path(__file__).with_name("static")
SWEEP_EVERY = 60.0  # seconds
LAST_WORDS = 3  # seconds that requests have to come to an end when the server is told to


def serve(options: AppOptions, on_address: Callable[[str], None]) -> None:
    """Serve the app until the process is told to end; `on_address` is called once it can be visited.

    Raises UsageError if the address cannot be had, ModelError if the model cannot be loaded.
    """
    server = AppServer(options)
    on_address(server.address)
    with suppress(KeyboardInterrupt):  # how a server is ended that runs in a terminal
        server.run()


class AppServer:
    """The app at its address. Raises UsageError if that cannot be had."""

    def __init__(self, options: AppOptions):
        self._listener = _listen(options)
        port = self._listener.getsockname()[1]
        name = f"[{options.host}]" if ":" in options.host else options.host
        self.address = f"http://{name}:{port}"
        self._house = House(options, port, on_failure=self.stop)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._house.app,
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=LAST_WORDS,
            )
        )

    def run(self) -> None:
        """Serve until `stop` or a signal; raises what kept the app from being loaded."""
        with self._listener:
            self._server.run(sockets=[self._listener])
        if self._house.failure:
            raise self._house.failure

    def stop(self) -> None:
        """Let `run` come to its end; may be called from any thread."""
        self._server.should_exit = True


def _listen(options: AppOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        return socket.create_server((options.host, options.port), family=family)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"Port {options.port} of {options.host} cannot be had ({error}): choose another with `port`."
        ) from error


class House:
    """The app and what belongs to it while it runs: the visitors, their files, the part that is loading."""

    def __init__(self, options: AppOptions, port: int, on_failure: Callable[[], None] = lambda: None):
        self.options = options
        # Cookies are the host's, whatever the port: two apps on one machine must not share theirs.
        self.cookie = f"landcover_{port}"
        self.failure: Exception | None = None
        self._on_failure = on_failure
        self._api: Api | None = None
        self._ready = asyncio.Event()
        self.app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/api/state", self._state),
                Mount("/static", _Static(directory=STATIC)),
                Mount("/", self._later),
            ],
            middleware=[Middleware(Guard, host=options.host)],
            exception_handlers={HTTPException: _say},
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        # Under its real name: messages are cleaned of it, and GDAL sees through links.
        folder = Path(tempfile.mkdtemp(prefix="landcover-app-")).resolve()
        self.visitors = Visitors(folder)
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._load, args=(loop, folder), name="load", daemon=True).start()
        sweeping = asyncio.create_task(self._sweep())
        try:
            yield
        finally:
            sweeping.cancel()
            if self._api:
                await asyncio.to_thread(self._api.close)
            self.visitors.close()
            shutil.rmtree(folder, ignore_errors=True)

    def _load(self, loop: asyncio.AbstractEventLoop, folder: Path) -> None:
        """Make the rest of the app, in a thread of its own."""
        try:
            from pipeline.app.api import Api

            self._api = Api(self.options, folder, self.cookie, self.visitors)
        except Exception as error:
            self.failure = error
            self._on_failure()
        with suppress(RuntimeError):  # the server has ended meanwhile
            loop.call_soon_threadsafe(self._ready.set)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY)
            self.visitors.sweep()

    async def _page(self, request: Request) -> Response:
        response = FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-store"})
        if self.visitors.find(request.cookies.get(self.cookie)) is None:
            token = self.visitors.welcome().token
            response.set_cookie(self.cookie, token, httponly=True, samesite="lax")
        return response

    async def _state(self, _: Request) -> Response:
        """Say at once whether the rest is there, and what can be chosen."""
        found = {"ready": True, **self._api.state()} if self._api else {"ready": False}
        return JSONResponse(found, headers={"Cache-Control": "no-store"})

    async def _later(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._ready.wait()
        if self._api is None:
            raise HTTPException(503, "The model could not be loaded.")
        await self._api.app(scope, receive, send)


class _Static(StaticFiles):
    """The page's own files, asked for anew after an update."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = "no-cache"
        return response


async def _say(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)
