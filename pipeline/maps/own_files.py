"""Which files are outputs of this program: by name, by a mosaic's record beside them, or by their tags."""

from pathlib import Path

from pipeline.maps.outputs import MOSAIC_ENDING, is_output

_TAG = b'="model_digest"'
"""What every raster of a map has among its metadata, near its beginning."""

_HEAD = 2**15
"""Bytes that are looked through for it: all of a COG or a VRT that comes before cells or sources."""


def is_own_file(path: Path) -> bool:
    """Tell whether a file belongs to a map or a mosaic, under whatever name; an unreadable file does not."""
    if is_output(path.name):
        return True
    try:
        if path.with_name(path.stem + MOSAIC_ENDING).is_file():
            return True
        if path.suffix.lower() not in (".tif", ".tiff", ".vrt"):
            return False
        with path.open("rb") as file:
            return _TAG in file.read(_HEAD)
    except OSError:
        return False
