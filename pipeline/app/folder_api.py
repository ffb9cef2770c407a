"""The endpoints for the served folder: listings, and files of maps."""

from dataclasses import asdict

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from pipeline.app.context import NO_STORE, Context
from pipeline.app.security import UNTRUSTED_POLICY
from pipeline.app.served_folder import DOWNLOAD_SUFFIXES
from pipeline.batch.report import HTML_NAME


class FolderApi:
    """The served folder."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def routes(self) -> list[Route]:
        """Return the endpoints and their addresses."""
        return [Route("/api/folder", self._list), Route("/files/{path:path}", self._file)]

    async def _list(self, request: Request) -> Response:
        served = self._context.served_folder()
        listing = await run_in_threadpool(served.listing, request.query_params.get("path", ""))
        return self._context.answer(asdict(listing))

    async def _file(self, request: Request) -> Response:
        """Send a file of a map, or a batch's report, under a policy that lets it run nothing."""
        path = self._context.served_folder().find(request.path_params["path"])
        headers = {"Content-Security-Policy": UNTRUSTED_POLICY, **NO_STORE}
        if not path.is_file():
            raise HTTPException(404, "There is no such file.")
        if path.name == HTML_NAME:
            return FileResponse(path, media_type="text/html", headers=headers)
        if path.suffix == ".log":
            return FileResponse(path, media_type="text/plain", headers=headers)
        if path.suffix in DOWNLOAD_SUFFIXES:
            return FileResponse(
                path, media_type="application/octet-stream", filename=path.name, headers=headers
            )
        raise HTTPException(404, "Only files of maps and reports can be downloaded.")
