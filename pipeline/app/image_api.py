"""The endpoint that classifies one image."""

import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.app.context import Context
from pipeline.app.image import classify_image
from pipeline.app.requests import ImageRequest, parse_json
from pipeline.app.uploads import MIB, receive_file, safe_name
from pipeline.model.predictor import Predictor

MAX_IMAGE_MIB = 100


class ImageApi:
    """Classifies images, one at a time."""

    def __init__(self, context: Context) -> None:
        self.limit = min(context.options.max_upload, MAX_IMAGE_MIB * MIB)
        self._context = context
        self._lock = threading.Lock()

    def routes(self) -> list[Route]:
        """Return the endpoint's address."""
        return [Route("/api/image", self._classify, methods=["POST"])]

    async def _classify(self, request: Request) -> Response:
        """Classify the image in the body; what to assume about it is in the query."""
        session = self._context.session(request)
        image_request = ImageRequest.from_json(parse_json(request.query_params.get("request", "{}")))
        models = self._context.models
        model = image_request.model or models.default
        predictor = await run_in_threadpool(models.predictor, model, "images")
        folder = Path(tempfile.mkdtemp(dir=session.folder))
        try:
            path = folder / safe_name(request.query_params.get("name", ""))
            await receive_file(request, path, self.limit)
            content = await run_in_threadpool(self._classify_file, path, predictor, image_request)
            return self._context.answer(content)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _classify_file(self, path: Path, predictor: Predictor, request: ImageRequest) -> dict[str, Any]:
        with self._lock:
            return classify_image(path, predictor, request)
