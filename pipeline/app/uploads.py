"""Uploaded files: received up to a limit, and checked before GDAL opens them.

GDAL recognises some two hundred formats whatever a file is called, and some of them (VRT, WMS) name other
files or addresses to read. So a file must start with the signature of one of the few accepted formats.
"""

import re
import shutil
import zipfile
from pathlib import Path

from rasterio.errors import RasterioError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from pipeline.errors import SceneError
from pipeline.scenes.gdal import open_raster

MIB = 2**20

MAX_SCENE_PIXELS = 400_000_000
"""Three whole Sentinel-2 tiles at 10 m; the command has no such limit."""

MAX_BANDS = 100

MAX_MEMBERS = 5_000
"""Files in a zip archive; a whole SAFE product has some 200."""

MAX_UNPACKED = 4
"""Times the archive's own size, or times 100 MiB if that is more: a SAFE's images are compressed already."""

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
JPEG_2000 = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
ZIP = (b"PK\3\4",)
SIGNATURE_BYTES = 12


async def receive_file(request: Request, path: Path, limit: int) -> None:
    """Write a request's body to a new file as it arrives; the file is removed if it is not received whole.

    Raises:
        HTTPException: 400 if the upload breaks off, 409 if the file is there already, 413 if it is longer
            than `limit` bytes, 507 if the disk is too full.
    """
    too_large = HTTPException(
        413,
        f"{path.name} is larger than the {limit / MIB:,.0f} MiB that may be uploaded: start the app with a "
        "larger `max_upload`.",
    )
    announced = int(request.headers.get("content-length", 0))
    if announced > limit:
        raise too_large
    if announced > shutil.disk_usage(path.parent).free:
        raise HTTPException(507, "The server's disk has no room for the file.")
    received = 0
    try:
        with path.open("xb") as file:
            async for chunk in request.stream():
                received += len(chunk)
                if received > limit:
                    raise too_large  # noqa: TRY301 - the handlers below remove the file
                file.write(chunk)
    except FileExistsError:
        raise HTTPException(409, f"{path.name} was uploaded already.") from None
    except ClientDisconnect:
        path.unlink(missing_ok=True)
        raise HTTPException(400, "The upload was interrupted.") from None
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def safe_name(name: str) -> str:
    """Return a file name without folders or special characters; what it says of the product is kept."""
    name = re.split(r"[/\\]", name)[-1]
    name = re.sub(r"[\x00-\x1f\x7f<>:\"|?*{}]", "_", name).strip(". ")
    if len(name) > 150:
        name = Path(name).stem[:120] + Path(name).suffix[:10]
    return name or "unnamed"


def has_signature(path: Path, *formats: tuple[bytes, ...]) -> bool:
    """Return whether a file starts with the signature of one of the formats."""
    with path.open("rb") as file:
        start = file.read(SIGNATURE_BYTES)
    return any(start.startswith(signatures) for signatures in formats)


def check_scene_file(path: Path) -> None:
    """Raise SceneError if a file cannot be part of a scene; reads no more than its header."""
    if has_signature(path, ZIP):
        _check_archive(path)
    elif has_signature(path, TIFF, JPEG_2000):
        check_raster(path, MAX_SCENE_PIXELS)
    else:
        raise SceneError(
            f"{path.name} is neither a GeoTIFF nor JPEG 2000 nor a zipped SAFE product: a scene is one of "
            "these; pictures without a place on the ground belong under Image."
        )


def check_raster(path: Path, limit: int) -> None:
    """Raise SceneError if a raster cannot be opened or its header declares more than `limit` pixels."""
    try:
        with open_raster(str(path)) as dataset:
            width, height, bands = dataset.width, dataset.height, dataset.count
    except (RasterioError, ValueError) as error:
        raise SceneError(f"{path.name} cannot be opened as a raster image ({error}).") from error
    check_pixels(path.name, width, height, limit)
    if bands > MAX_BANDS:
        raise SceneError(f"{path.name} declares {bands:,} bands: a scene has {MAX_BANDS} at most.")


def check_pixels(name: str, width: int, height: int, limit: int) -> None:
    """Raise SceneError if there are more than `limit` pixels."""
    if width * height > limit:
        raise SceneError(
            f"{name} has {width:,} x {height:,} pixels, more than the {limit:,} that the app accepts: cut it "
            "into parts, or use landcover classify."
        )


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive)
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise SceneError(f"{path.name} is a damaged zip archive ({error}): download it again.") from error


def _check_members(path: Path, archive: zipfile.ZipFile) -> None:
    members = archive.infolist()
    unpacked = sum(member.file_size for member in members)
    if len(members) > MAX_MEMBERS or unpacked > MAX_UNPACKED * max(path.stat().st_size, 100 * MIB):
        raise SceneError(f"{path.name} would unpack to far more than a SAFE product: it was not read.")
    for member in members:
        if "/IMG_DATA/" not in member.filename or member.is_dir():
            continue
        with archive.open(member) as file:
            start = file.read(SIGNATURE_BYTES)
        if not start.startswith((*JPEG_2000, *TIFF)):
            raise SceneError(f"{path.name} holds {member.filename}, which is not a JPEG 2000 image.")
