"""How GDAL opens a raster: its settings, what it raises, and which part of an address is not a name."""

import os
import re

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from pipeline.errors import SceneError

# A few strips of a large scene. GDAL's default, 5 % of the memory, would grow with the machine and
# keep blocks that are never read again.
GDAL_OPTIONS: dict[str, int | str] = {} if "GDAL_CACHEMAX" in os.environ else {"GDAL_CACHEMAX": 128}

# Files beside a remote image (.msk, .aux.xml) are not looked for. For each that is not there GDAL asks the
# server, one after the other, and rasterio lets no other thread go on meanwhile.
REMOTE = re.compile(
    r"(?:/vsi\w+[/{]*?)*?/vsi(?:curl|s3|gs|az|adls|oss|swift)/|(?!(?:file|zip|tar|gzip):)[\w+.-]{2,}://"
)
REMOTE_OPTIONS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}

# What rasterio raises while reading: its own errors, and GDAL's bare ones from inside the warper.
READ_ERRORS = (RasterioError, CPLE_BaseError, MemoryError)


def gdal_settings(path: str) -> rasterio.Env:
    """Return the settings for reading a scene; within them GDAL's messages go to the log, not to stderr."""
    return rasterio.Env(**GDAL_OPTIONS, **(REMOTE_OPTIONS if REMOTE.match(path) else {}))


def open_raster(path: str) -> DatasetReader:
    """Open a raster file; raises SceneError, with GDAL's own reason, if it is not one."""
    try:
        return rasterio.open(path)
    except RasterioError as error:
        reason = str(error).replace(path, "").strip(" :'.") or "no reason given"
        raise SceneError(f"{path} cannot be opened as a raster image ({reason}).") from error


def without_query(path: str) -> str:
    """Return a path or address without what follows `?` in an address: a signature, not a name."""
    return re.sub(r"(://[^?]*)\?.*", r"\1", path, flags=re.DOTALL)
