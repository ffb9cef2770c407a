"""Files that visitors send: received within a limit, and looked at before GDAL may.

GDAL opens some two hundred formats, whatever a file is called, and some of them (VRT, WMS) name other files
or addresses to read. So a file has to begin as one of the few formats that are taken.
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
# Three whole Sentinel-2 tiles at 10 m; whoever has more has the command line.
MAX_SCENE_PIXELS = 400_000_000
MAX_BANDS = 100
# A whole SAFE product has some 200 files, and its images are packed already.
MAX_MEMBERS = 5_000
MAX_UNPACKED = 4  # times the archive's own size, or this many times 100 MiB

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
JPEG_2000 = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
ZIP = (b"PK\3\4",)


async def receive(request: Request, path: Path, limit: int) -> None:
    """Write a request's body to a file as it comes; HTTPException 413 if it is longer than `limit` bytes.

    No part of a file stays if it doesn't come whole.
    """
    too_large = HTTPException(
        413,
        f"{path.name} is larger than the {limit / MIB:,.0f} MiB that may be sent: start with `max_upload`.",
    )
    announced = int(request.headers.get("content-length", 0))
    if announced > limit:
        raise too_large
    if announced > shutil.disk_usage(path.parent).free:
        raise HTTPException(507, "The server's disk has no room for the file.")
    received = 0
    try:
        with path.open("xb") as file:
            async for part in request.stream():
                received += len(part)
                if received > limit:
                    raise too_large
                file.write(part)
    except FileExistsError:
        raise HTTPException(409, f"{path.name} was sent already.") from None
    except ClientDisconnect:
        path.unlink(missing_ok=True)
        raise HTTPException(400, "The file did not come whole.") from None
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def safe_name(name: str) -> str:
    """Return a file name that is nothing but a name; what it says of the product stays readable."""
    name = re.split(r"[/\\]", name)[-1]
    name = re.sub(r"[\x00-\x1f\x7f<>:\"|?*{}]", "_", name).strip(". ")
    if len(name) > 150:
        name = Path(name).stem[:120] + Path(name).suffix[:10]
    return name or "unnamed"


def begins_as(path: Path, *formats: tuple[bytes, ...]) -> bool:
    """Tell whether a file begins as one of the formats does."""
    with path.open("rb") as file:
        start = file.read(12)
    return any(start.startswith(format_) for format_ in formats)


def check_scene_file(path: Path) -> None:
    """Raise SceneError if a file is none that may become part of a scene; reads no more than its header."""
    if begins_as(path, ZIP):
        _check_archive(path)
    elif begins_as(path, TIFF, JPEG_2000):
        check_raster(path, MAX_SCENE_PIXELS)
    else:
        raise SceneError(
            f"{path.name} is neither a GeoTIFF nor JPEG 2000 nor a zipped SAFE product: a scene is one of "
            "these; pictures without a place on the ground belong under Image."
        )


def check_raster(path: Path, most: int) -> None:
    """Raise SceneError if a raster cannot be opened or its header declares more than `most` pixels."""
    try:
        with open_raster(str(path)) as dataset:
            width, height, bands = dataset.width, dataset.height, dataset.count
    except (RasterioError, ValueError) as error:
        raise SceneError(f"{path.name} cannot be opened as a raster image ({error}).") from error
    check_pixels(path.name, width, height, most)
    if bands > MAX_BANDS:
        raise SceneError(f"{path.name} declares {bands:,} bands: a scene has {MAX_BANDS} at most.")


def check_pixels(name: str, width: int, height: int, most: int) -> None:
    """Raise SceneError if there are more than `most` pixels."""
    if width * height > most:
        raise SceneError(
            f"{name} has {width:,} x {height:,} pixels, more than the {most:,} that the app takes: cut it "
            "into parts, or use landcover classify."
        )


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            if len(members) > MAX_MEMBERS or unpacked > MAX_UNPACKED * max(path.stat().st_size, 100 * MIB):
                raise SceneError(
                    f"{path.name} would unpack to far more than a SAFE product: it was not read."
                )
            for member in members:
                if "/IMG_DATA/" in member.filename and not member.is_dir():
                    with archive.open(member) as file:
                        start = file.read(12)
                    if not any(map(start.startswith, (JPEG_2000, TIFF))):
                        raise SceneError(f"{path.name} holds {member.filename}, which is no JPEG 2000 image.")
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise SceneError(f"{path.name} is a damaged zip archive ({error}): download it again.") from error
