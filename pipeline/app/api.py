"""The API that the page uses: all endpoints, and what the page can offer."""

from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from pipeline.app.context import Context
from pipeline.app.examples import example_files
from pipeline.app.folder_api import FolderApi
from pipeline.app.image_api import ImageApi
from pipeline.app.map_api import MapApi
from pipeline.app.scene_api import SceneApi
from pipeline.app.sessions import Sessions
from pipeline.app.settings import describe_settings
from pipeline.errors import LandcoverError
from pipeline.options import AppOptions


class Api:
    """The part of the app that needs torch and GDAL.

    `folder` is for temporary files; `cookie` is the name of the session cookie. Raises ModelError if the
    model cannot be loaded.
    """

    def __init__(self, options: AppOptions, folder: Path, cookie: str, sessions: Sessions) -> None:
        self._context = context = Context(options, folder, cookie, sessions)
        context.models.predictor(context.models.default, "images")  # so that the first image need not wait
        self._image = ImageApi(context)
        endpoints = (self._image, SceneApi(context), MapApi(context), FolderApi(context))
        self.app = Starlette(
            routes=[route for endpoint in endpoints for route in endpoint.routes()],
            exception_handlers={
                HTTPException: context.answer_error,
                LandcoverError: context.answer_error,
            },
        )

    def state(self) -> dict[str, Any]:
        """Return what the page can offer: models, settings, limits and examples."""
        return {
            "models": self._context.models.describe(),
            "settings": describe_settings(),
            "root": self._context.serves_folder,
            "limits": {"scene": self._context.options.max_upload, "image": self._image.limit},
            "examples": [
                {"name": file.stem, "url": f"/static/examples/{file.name}"} for file in example_files()
            ],
        }

    def close(self) -> None:
        """Cancel all runs."""
        self._context.close()
