"""The endpoints for a finished map: of a session's scene, or in the served folder."""

import json
import re
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from pipeline.app.context import NO_STORE, Context
from pipeline.app.map_view import describe_map, map_files, map_name, read_cells, stream_zip
from pipeline.app.picture import scene_picture
from pipeline.app.queue import RunState
from pipeline.app.served_folder import ServedFolder, check_inside
from pipeline.app.uploads import MAX_SCENE_PIXELS, check_pixels
from pipeline.maps.record import RUN_ENDING
from pipeline.options import SceneOptions
from pipeline.scenes.scene import open_scene


class MapApi:
    """Maps, named by a scene's key (`scene`) or by the path of their `run.json` (`path`)."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """Return the endpoints and their addresses."""
        return [
            Route("/api/map", self._describe),
            Route("/api/cells", self._cells),
            Route("/api/outputs.zip", self._outputs),
            Route("/api/map-picture", self._picture),
        ]

    async def _describe(self, request: Request) -> Response:
        return self._context.answer(await run_in_threadpool(describe_map, self._record(request)))

    async def _cells(self, request: Request) -> Response:
        cells = await run_in_threadpool(read_cells, self._record(request))
        return Response(cells, media_type="application/octet-stream", headers=NO_STORE)

    async def _outputs(self, request: Request) -> Response:
        """Send all files of a map as one zip archive."""
        record = self._record(request)
        files = await run_in_threadpool(map_files, record)
        # Names of scenes may contain any letter, headers may not.
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", map_name(record))
        headers = {"Content-Disposition": f'attachment; filename="{name}_landcover.zip"', **NO_STORE}
        return StreamingResponse(stream_zip(files), media_type="application/zip", headers=headers)

    async def _picture(self, request: Request) -> Response:
        """Send a picture of the scene of a map in the served folder, if the scene is there too."""
        picture = await run_in_threadpool(self._draw_scene, self._record(request))
        return Response(picture, media_type="image/webp", headers=NO_STORE)

    def _draw_scene(self, record: Path) -> bytes:
        served = self._context.served_folder()
        path, options, model = _scene_of(record)
        path = _find_scene(path, served)
        card = self._context.models.card(model)
        scene = open_scene(path, card, options)
        check_inside(scene, served.relative(path.resolve()), served.folder)
        check_pixels(scene.name, scene.width, scene.height, MAX_SCENE_PIXELS)
        return scene_picture(scene, card)

    def _record(self, request: Request) -> Path:
        """Return the `run.json` of the map that a request names; HTTPException 404 if there is none."""
        if "path" in request.query_params:
            record = self._context.served_folder().find(request.query_params["path"])
            if not record.name.endswith(RUN_ENDING):
                raise HTTPException(404, "There is no such map.")
            return record
        run = self._context.run(request)
        if run.state != RunState.DONE or run.record is None:
            raise HTTPException(404, "There is no map yet.")
        return run.record


def _scene_of(record: Path) -> tuple[Path, SceneOptions, str]:
    """Return the scene that a map was made from, the options it was read with, and the model's name."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        stated = content["options"]["scene"]
        bands = tuple((str(band), int(index)) for band, index in stated["bands"])
        options = SceneOptions(**{**stated, "bands": bands})
        return Path(content["scene"]), options, str(content["model"]["name"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HTTPException(404, "The record of this map does not say what it was made from.") from error


def _find_scene(path: Path, served: ServedFolder) -> Path:
    """Return an existing path inside the served folder.

    A relative path depends on where `classify` or `batch` was started: the served folder is tried as well.
    """
    path = next((candidate for candidate in (path, served.folder / path) if candidate.exists()), path)
    if not path.exists() or not served.contains(path):
        raise HTTPException(404, "The scene of this map is not in the served folder.")
    return path
