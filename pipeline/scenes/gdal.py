"""How GDAL opens a raster: its settings, what it raises, and what to say of that."""

import os

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from pipeline.addresses import is_remote, scrub, shown
from pipeline.errors import SceneError

# A few strips of a large scene. GDAL's default, 5 % of the memory, would grow with the machine and
# keep blocks that are never read again.
GDAL_OPTIONS: dict[str, int | str] = {} if "GDAL_CACHEMAX" in os.environ else {"GDAL_CACHEMAX": 128}

# Files beside a remote image (.msk, .aux.xml) are not looked for. For each that is not there GDAL asks the
# server, one after the other, and rasterio lets no other thread go on meanwhile.
REMOTE_OPTIONS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}

# What rasterio raises while reading: its own errors, and GDAL's bare ones from inside the warper.
READ_ERRORS = (RasterioError, CPLE_BaseError, MemoryError)


def gdal_settings(path: str) -> rasterio.Env:
    """Return the settings for reading a scene; within them GDAL's messages go to the log, not to stderr."""
    return rasterio.Env(**GDAL_OPTIONS, **(REMOTE_OPTIONS if is_remote(path) else {}))


def open_raster(path: str) -> DatasetReader:
    """Open a raster file; raises SceneError, with GDAL's own reason, if it is not one."""
    try:
        return rasterio.open(path)
    except RasterioError as error:
        reason = scrub(str(error).replace(path, ""), path).strip(" :'.") or "no reason given"
        remedy = ": check the address, or download the file first" if is_remote(path) else ""
        text = f"{shown(path)} cannot be opened as a raster image ({reason}){remedy}."
        raise SceneError(text) from error


def damaged_at(path: str, window: Window, error: BaseException) -> str:
    """Return the message for a window of a file that could not be read."""
    reason = scrub(str(error.__cause__ or error), path).strip(" .")
    return (
        f"{shown(path)} cannot be read at rows {window.row_off} to {window.row_off + window.height - 1} "
        f"({reason}): the file is damaged or incomplete, fetch it again."
    )
