"""What the page asks of the server: images, scenes and their maps, and the folder that is served."""

import json
import re
import secrets
import shutil
import tempfile
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from pipeline.app.examples import DemoScene, example_files
from pipeline.app.folder import SERVED, Root, check_borders
from pipeline.app.guard import FOREIGN_POLICY
from pipeline.app.image import MAX_IMAGE_MIB, ImageWishes, classify_image
from pipeline.app.maps import archive, describe_map, map_cells, map_files
from pipeline.app.models import Models
from pipeline.app.picture import scene_picture
from pipeline.app.runs import DONE, Run, RunQueue
from pipeline.app.scenes import VisitorScene
from pipeline.app.uploads import (
    MAX_SCENE_PIXELS,
    MIB,
    check_pixels,
    check_scene_file,
    receive,
    safe_name,
)
from pipeline.app.visitors import Visitor, Visitors
from pipeline.app.wishes import Wishes, number, parse, scene_options, whole
from pipeline.batch.report import HTML_NAME
from pipeline.errors import LandcoverError, UsageError
from pipeline.maps.record import RUN_ENDING
from pipeline.options import AppOptions, ClassifyOptions, SceneOptions
from pipeline.scenes.scene import open_scene

MAX_WISHES = 10_000  # bytes
NO_STORE = {"Cache-Control": "no-store"}


class Api:
    """The heavy part of the app: models, the queue, and an endpoint for each thing a page can ask.

    `folder` is for temporary files; `cookie` names the visitors' cookie. Raises ModelError if the model
    cannot be loaded.
    """

    def __init__(self, options: AppOptions, folder: Path, cookie: str, visitors: Visitors):
        self._options = options
        self._folder = folder
        self._cookie = cookie
        self._visitors = visitors
        self._root = Root(options.root) if options.root else None
        self._models = Models(options.model)
        self._models.predictor(self._models.default, "images")  # so that the first visitor need not wait
        self._image_lock = threading.Lock()
        self._queue = RunQueue(self._models)
        self._demo = DemoScene(folder / "examples")
        scene = "/api/scenes/{key}"
        self.app = Starlette(
            routes=[
                Route("/api/image", self._classify_image, methods=["POST"]),
                Route("/api/scenes", self._add_scene, methods=["POST"]),
                Route(f"{scene}/files/{{name}}", self._receive_file, methods=["PUT"]),
                Route(f"{scene}/look", self._look, methods=["POST"]),
                Route(f"{scene}/picture", self._picture),
                Route(f"{scene}/run", self._start, methods=["POST"]),
                Route(f"{scene}/run", self._status, methods=["GET"]),
                Route(f"{scene}/run", self._cancel, methods=["DELETE"]),
                Route("/api/map", self._map),
                Route("/api/cells", self._cells),
                Route("/api/outputs.zip", self._outputs),
                Route("/api/map-picture", self._map_picture),
                Route("/api/folder", self._list),
                Route("/files/{path:path}", self._file),
            ],
            exception_handlers={
                HTTPException: self._say,
                LandcoverError: self._say,
            },
        )

    def state(self) -> dict[str, Any]:
        """Return what a page can choose from."""
        return {
            "models": self._models.describe(),
            "root": self._root is not None,
            "limits": {
                "scene": self._options.max_upload,
                "image": min(self._options.max_upload, MAX_IMAGE_MIB * MIB),
            },
            "examples": [
                {"name": file.stem, "url": f"/static/examples/{file.name}"} for file in example_files()
            ],
        }

    def close(self) -> None:
        """End the runs."""
        self._queue.close()

    # An image

    async def _classify_image(self, request: Request) -> Response:
        visitor = self._visitor(request)
        wishes = parse(request.query_params.get("wishes", "{}"))
        predictor = await run_in_threadpool(self._models.predictor, self._model(wishes), "images")
        stated = ImageWishes(
            fit=str(wishes.get("fit", "part")),
            centre=(_fraction(wishes, "x"), _fraction(wishes, "y")),
            scene=scene_options(wishes),
        )
        folder = Path(tempfile.mkdtemp(dir=visitor.folder))
        try:
            path = folder / safe_name(request.query_params.get("name", ""))
            await receive(request, path, self.state()["limits"]["image"])

            def classify() -> dict[str, Any]:
                with self._image_lock:
                    return classify_image(path, predictor, stated)

            return self._answer(await run_in_threadpool(classify))
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # A scene

    async def _add_scene(self, request: Request) -> Response:
        """Take a scene below the root, the example, or a name for files that are to be sent."""
        visitor = self._visitor(request)
        wishes = parse(await self._body(request))
        key = secrets.token_hex(8)
        if wishes.get("example"):
            path = await run_in_threadpool(self._demo.file)
            label, borders = "demo.tif", self._demo.folder
        elif "path" in wishes:
            root = self._below_root()
            path = root.find(str(wishes["path"]))
            label, borders = root.name(path), root.folder
        else:
            path, label, borders = None, "", visitor.folder / key / "files"
        folder = visitor.folder / key
        (folder / "files").mkdir(parents=True)
        scene = VisitorScene(label, folder, borders, self._queue, path)
        visitor.keep(key, scene)
        return self._answer({"key": key, "label": label})

    async def _receive_file(self, request: Request) -> Response:
        scene = self._scene(request)
        if scene.path is not None and not scene.path.is_relative_to(scene.folder):
            raise HTTPException(409, "This scene lies on the server already.")
        path = scene.borders / safe_name(request.path_params["name"])
        there = sum(file.stat().st_size for file in scene.borders.iterdir())
        await receive(request, path, self._options.max_upload - there)
        try:
            await run_in_threadpool(check_scene_file, path)
        except LandcoverError:
            path.unlink()
            raise
        files = sorted(scene.borders.iterdir())
        scene.path = files[0] if len(files) == 1 else scene.borders  # several files: a folder of bands
        scene.label = files[0].name if len(files) == 1 else f"{len(files)} files"
        return self._answer({"label": scene.label})

    async def _look(self, request: Request) -> Response:
        scene = self._scene(request)
        wishes = parse(await self._body(request))
        card = self._models.card(self._model(wishes))
        options = ClassifyOptions(scene=scene_options(wishes))
        return self._answer(await run_in_threadpool(scene.look, card, options))

    async def _picture(self, request: Request) -> Response:
        path = await run_in_threadpool(self._scene(request).picture)
        return FileResponse(path, media_type="image/webp", headers=NO_STORE)

    async def _start(self, request: Request) -> Response:
        """Start classifying; an earlier map of the scene is forgotten."""
        scene = self._scene(request)
        if scene.scene is None or scene.path is None:
            raise UsageError("The scene was not looked at yet.")
        if scene.busy:
            raise HTTPException(409, "This scene is being classified already.")
        wishes = parse(await self._body(request))
        model = self._model(wishes)
        options = ClassifyOptions(
            scene=scene_options(wishes),
            stride=whole(wishes, "stride"),
            probabilities=bool(wishes.get("probabilities")),
            preview=True,
            journal_after=float("inf"),  # what is sent to us is not kept for another time
        )
        options.check(self._models.card(model).tile_size)
        if scene.run:
            shutil.rmtree(scene.run.output, ignore_errors=True)
        output = scene.folder / f"map-{secrets.token_hex(4)}"
        scene.run = Run(str(scene.path), scene.label, model, options, output)
        self._queue.add(scene.run)
        return self._answer(self._queue.status(scene.run))

    async def _status(self, request: Request) -> Response:
        return self._answer(self._queue.status(self._run(self._scene(request))))

    async def _cancel(self, request: Request) -> Response:
        run = self._run(self._scene(request))
        self._queue.cancel(run)
        return self._answer(self._queue.status(run))

    # A map: of a visitor's scene, or below the root

    async def _map(self, request: Request) -> Response:
        record = self._record(request)
        return self._answer(await run_in_threadpool(describe_map, record))

    async def _cells(self, request: Request) -> Response:
        cells = await run_in_threadpool(map_cells, self._record(request))
        return Response(cells, media_type="application/octet-stream", headers=NO_STORE)

    async def _outputs(self, request: Request) -> Response:
        record = self._record(request)
        files = await run_in_threadpool(map_files, record)
        name = record.name.removesuffix(RUN_ENDING)
        # Names of scenes may have any letters, headers may not.
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name)
        headers = {"Content-Disposition": f'attachment; filename="{plain}_landcover.zip"', **NO_STORE}
        return StreamingResponse(archive(files), media_type="application/zip", headers=headers)

    async def _map_picture(self, request: Request) -> Response:
        """Draw the scene of a map below the root, if it is there too."""
        record = self._record(request)
        picture = await run_in_threadpool(self._draw_scene_of, record)
        return Response(picture, media_type="image/webp", headers=NO_STORE)

    def _draw_scene_of(self, record: Path) -> bytes:
        root = self._below_root()
        try:
            content = json.loads(record.read_text(encoding="utf-8"))
            stated, path = content["options"]["scene"], Path(content["scene"])
            bands = tuple((str(band), int(index)) for band, index in stated["bands"])
            options = SceneOptions(**{**stated, "bands": bands})
            model = str(content["model"]["name"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HTTPException(404, "The record of this map does not say what it was made from.") from error
        # A path may be relative to where classify or batch was started: to the root, if we are lucky.
        path = next((found for found in (path, root.folder / path) if found.exists()), path)
        if not path.exists() or not root.holds(path):
            raise HTTPException(404, "The scene of this map does not lie below the folder that is served.")
        card = self._models.card(model)
        scene = open_scene(path, card, options)
        check_borders(scene, root.name(path.resolve()), root.folder)
        check_pixels(scene.name, scene.width, scene.height, MAX_SCENE_PIXELS)
        return scene_picture(scene, card)

    # The folder that is served

    async def _list(self, request: Request) -> Response:
        root = self._below_root()
        listing = await run_in_threadpool(root.listing, request.query_params.get("path", ""))
        return self._answer(asdict(listing))

    async def _file(self, request: Request) -> Response:
        """Give a file of a map, or a batch's report, which is shut into a frame of its own."""
        path = self._below_root().find(request.path_params["path"])
        headers = {"Content-Security-Policy": FOREIGN_POLICY, **NO_STORE}
        if path.name == HTML_NAME:
            return FileResponse(path, media_type="text/html", headers=headers)
        if path.suffix == ".log":
            return FileResponse(path, media_type="text/plain", headers=headers)
        if path.suffix in SERVED and path.is_file():
            return FileResponse(
                path, media_type="application/octet-stream", filename=path.name, headers=headers
            )
        raise HTTPException(404, "There is no such file to be had.")

    # What the endpoints share

    def _visitor(self, request: Request) -> Visitor:
        visitor = self._visitors.find(request.cookies.get(self._cookie))
        if visitor is None:
            raise HTTPException(401, "Your visit has ended and its files are gone: load the page again.")
        return visitor

    def _scene(self, request: Request) -> VisitorScene:
        key = request.path_params.get("key") or request.query_params.get("scene", "")
        scene = self._visitor(request).scenes.get(key)
        if not isinstance(scene, VisitorScene):
            raise HTTPException(404, "This scene is gone: load it again.")
        return scene

    @staticmethod
    def _run(scene: VisitorScene) -> Run:
        if scene.run is None:
            raise HTTPException(404, "This scene is not being classified.")
        return scene.run

    def _record(self, request: Request) -> Path:
        """Return the `run.json` of the map that a request means."""
        if "path" in request.query_params:
            record = self._below_root().find(request.query_params["path"])
            if not record.name.endswith(RUN_ENDING):
                raise HTTPException(404, "There is no such map.")
            return record
        run = self._run(self._scene(request))
        if run.state != DONE or run.record is None:
            raise HTTPException(404, "There is no map yet.")
        return run.record

    def _below_root(self) -> Root:
        if self._root is None:
            raise HTTPException(404, "No folder is served: start the app with `root` DIR.")
        return self._root

    def _model(self, wishes: Wishes) -> str:
        return str(wishes.get("model") or self._models.default)

    @staticmethod
    async def _body(request: Request) -> bytes:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MAX_WISHES:
                raise HTTPException(413, "That is more than anybody could wish for.")
        return body

    def _answer(self, content: dict[str, Any], status: int = 200) -> Response:
        return JSONResponse(self._cleaned(content), status, NO_STORE)

    def _cleaned(self, value: Any) -> Any:
        """Return the same without the names of the server's folders."""
        if isinstance(value, dict):
            return {key: self._cleaned(part) for key, part in value.items()}
        if isinstance(value, list):
            return [self._cleaned(part) for part in value]
        if isinstance(value, str) and "/" in value:
            value = re.sub(re.escape(str(self._folder)) + r"(/[^/\s]+)*/", "", value)
            if self._root:
                value = value.replace(f"{self._root.folder}/", "")
        return value

    async def _say(self, _: Request, error: Exception) -> Response:
        """Answer an error with its one sentence."""
        if isinstance(error, HTTPException):
            return self._answer({"error": error.detail}, error.status_code)
        return self._answer({"error": str(error)}, 422)


def _fraction(wishes: Wishes, name: str) -> float:
    value = number(wishes, name)
    return 0.5 if value is None else min(1.0, max(0.0, value))
