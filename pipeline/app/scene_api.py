"""The endpoints that load a scene, describe it, and classify it."""

import secrets

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from pipeline.app.context import NO_STORE, Context
from pipeline.app.examples import DemoScene
from pipeline.app.requests import RunRequest, read_json
from pipeline.app.session_scene import SessionScene
from pipeline.app.uploads import receive_file, safe_name


class SceneApi:
    """Scenes of a session, each under a key of its own."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._demo = DemoScene(context.folder / "examples")

    def routes(self) -> list[Route]:
        """Return the endpoints and their addresses."""
        scene = "/api/scenes/{key}"
        return [
            Route("/api/scenes", self._add, methods=["POST"]),
            Route(f"{scene}/files/{{name}}", self._receive_file, methods=["PUT"]),
            Route(f"{scene}/describe", self._describe, methods=["POST"]),
            Route(f"{scene}/picture", self._picture),
            Route(f"{scene}/run", self._start, methods=["POST"]),
            Route(f"{scene}/run", self._status, methods=["GET"]),
            Route(f"{scene}/run", self._cancel, methods=["DELETE"]),
        ]

    async def _add(self, request: Request) -> Response:
        """Add a scene: one of the served folder, the demo scene, or an empty one for uploads."""
        session = self._context.session(request)
        content = await read_json(request)
        key = secrets.token_hex(8)
        folder = session.folder / key
        if content.get("example"):
            path = await run_in_threadpool(self._demo.file)
            label, source_folder = path.name, self._demo.folder
        elif "path" in content:
            served = self._context.served_folder()
            path = served.find(str(content["path"]))
            label, source_folder = served.relative(path), served.folder
        else:
            path, label, source_folder = None, "", folder / "files"
        (folder / "files").mkdir(parents=True)
        session.add_scene(key, SessionScene(label, folder, source_folder, self._context.queue, path))
        return self._context.answer({"key": key, "label": label})

    async def _receive_file(self, request: Request) -> Response:
        """Receive a file of a scene."""
        scene = self._context.scene(request)
        if not scene.accepts_files:
            raise HTTPException(409, "This scene is on the server already.")
        path = scene.source_folder / safe_name(request.path_params["name"])
        await receive_file(request, path, self._context.options.max_upload - scene.uploaded_bytes())
        await run_in_threadpool(scene.add_file, path)
        return self._context.answer({"label": scene.label})

    async def _describe(self, request: Request) -> Response:
        """Say what would be done with a scene, under the assumptions in the body."""
        scene = self._context.scene(request)
        wanted = RunRequest.from_json(await read_json(request))
        card = self._context.models.card(wanted.model or self._context.models.default)
        return self._context.answer(await run_in_threadpool(scene.describe, card, wanted.options))

    async def _picture(self, request: Request) -> Response:
        path = await run_in_threadpool(self._context.scene(request).picture)
        return FileResponse(path, media_type="image/webp", headers=NO_STORE)

    async def _start(self, request: Request) -> Response:
        """Queue a scene for classification; its previous map is removed."""
        scene = self._context.scene(request)
        wanted = RunRequest.from_json(await read_json(request))
        models = self._context.models
        model = wanted.model or models.default
        wanted.options.check(models.card(model).tile_size)
        run = scene.start(model, wanted.options)
        return self._context.answer(self._context.queue.status(run))

    async def _status(self, request: Request) -> Response:
        return self._context.answer(self._context.queue.status(self._context.run(request)))

    async def _cancel(self, request: Request) -> Response:
        run = self._context.run(request)
        self._context.queue.cancel(run)
        return self._context.answer(self._context.queue.status(run))
