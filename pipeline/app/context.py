"""What all endpoints share: the models, the queue, who is asking, and how answers are written."""

import re
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pipeline.app.models import Models
from pipeline.app.queue import Run, RunQueue
from pipeline.app.served_folder import ServedFolder
from pipeline.app.session_scene import SessionScene
from pipeline.app.sessions import Session, Sessions
from pipeline.app.settings import in_page_words
from pipeline.options import AppOptions

NO_STORE = {"Cache-Control": "no-store"}

PROSE = frozenset({"error", "message", "text"})
"""Keys of answers whose values are sentences for the user."""


class Context:
    """The state of the running app, and the look-ups that endpoints share.

    `folder` is for temporary files; `cookie` is the name of the session cookie. Raises ModelError if the
    model cannot be loaded.
    """

    def __init__(self, options: AppOptions, folder: Path, cookie: str, sessions: Sessions) -> None:
        self.options = options
        self.folder = folder
        self.models = Models(options.model)
        self.queue = RunQueue(self.models)
        self._cookie = cookie
        self._sessions = sessions
        self._served_folder = ServedFolder(options.root) if options.root else None

    def close(self) -> None:
        """Cancel all runs."""
        self.queue.close()

    @property
    def serves_folder(self) -> bool:
        """Return whether the app was started with a folder to serve."""
        return self._served_folder is not None

    def served_folder(self) -> ServedFolder:
        """Return the served folder; HTTPException 404 if there is none."""
        if self._served_folder is None:
            raise HTTPException(404, "No folder is served: start the app with `root` DIR.")
        return self._served_folder

    def session(self, request: Request) -> Session:
        """Return the session that a request belongs to; HTTPException 401 if there is none."""
        session = self._sessions.find(request.cookies.get(self._cookie))
        if session is None:
            raise HTTPException(401, "Your session has expired and its files were removed: reload the page.")
        return session

    def scene(self, request: Request) -> SessionScene:
        """Return the scene that a request's path or query names; HTTPException 404 if there is none."""
        key = request.path_params.get("key") or request.query_params.get("scene", "")
        scene = self.session(request).scenes.get(key)
        if not isinstance(scene, SessionScene):
            raise HTTPException(404, "This scene was removed: load it again.")
        return scene

    def run(self, request: Request) -> Run:
        """Return the run of the scene that a request names; HTTPException 404 if there is none."""
        run = self.scene(request).run
        if run is None:
            raise HTTPException(404, "This scene is not being classified.")
        return run

    def answer(self, content: dict[str, Any], status: int = 200) -> Response:
        """Return a JSON answer in the page's own words and without the server's paths."""
        return JSONResponse(self._clean(content), status, NO_STORE)

    async def answer_error(self, _: Request, error: Exception) -> Response:
        """Return the answer to a request that failed: the error's sentence."""
        if isinstance(error, HTTPException):
            return self.answer({"error": error.detail}, error.status_code)
        return self.answer({"error": str(error)}, 422)

    def _clean(self, value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: self._clean(part, name) for name, part in value.items()}
        if isinstance(value, list):
            return [self._clean(part, key) for part in value]
        if isinstance(value, str):
            text = self._without_server_paths(value)
            return in_page_words(text) if key in PROSE else text
        return value

    def _without_server_paths(self, text: str) -> str:
        if "/" not in text:
            return text
        text = re.sub(re.escape(str(self.folder)) + r"(/[^/\s]+)*/", "", text)
        return text.replace(f"{self._served_folder.folder}/", "") if self._served_folder else text
