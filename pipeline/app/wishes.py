"""What a page wishes for, as JSON, turned into options: everything in it may be wrong."""

import json
import re
from collections.abc import Callable
from math import isfinite
from typing import Any

from starlette.exceptions import HTTPException

from pipeline.errors import UsageError
from pipeline.options import SceneOptions

Wishes = dict[str, Any]


def parse(text: bytes | str) -> Wishes:
    """Return the wishes in a JSON text; HTTPException 400 if there are none."""
    try:
        wishes = json.loads(text or "{}")
    except ValueError:
        wishes = None
    if not isinstance(wishes, dict):
        raise HTTPException(400, "The request cannot be understood.")
    return wishes


def scene_options(wishes: Wishes) -> SceneOptions:
    """Return what a visitor states about the pixels; UsageError if it cannot be meant."""
    bands = wishes.get("bands") or {}
    if not isinstance(bands, dict):
        raise UsageError("Bands are given as names with numbers.")
    crs, resolution = str(wishes.get("crs") or ""), whole(wishes, "resolution") or 10
    # GDAL takes much for a coordinate system, names of files and addresses too.
    if crs and not re.fullmatch(r"EPSG:\d{4,6}", crs, re.IGNORECASE):
        raise UsageError(f"The coordinate system (`assume_crs`) is written EPSG:CODE, not '{crs}'.")
    if resolution not in (10, 20, 60):
        raise UsageError(f"A SAFE product has files of 10, 20 and 60 m, not of {resolution} m.")
    return SceneOptions(
        bands=tuple((str(name), whole(bands, name) or 0) for name in bands),
        level=str(wishes.get("level") or "auto"),
        offset=whole(wishes, "offset"),
        assume_crs=crs or None,
        assume_gsd=number(wishes, "gsd"),
        safe_resolution=resolution,
    )


def whole(wishes: Wishes, name: str) -> int | None:
    """Return a whole number, None if it is not stated; UsageError for anything else."""
    return _converted(wishes, name, int, "a whole number")


def number(wishes: Wishes, name: str) -> float | None:
    """Return a number, None if it is not stated; UsageError for anything else."""
    return _converted(wishes, name, float, "a number")


def _converted(wishes: Wishes, name: str, kind: Callable[[Any], Any], meant: str) -> Any:
    value = wishes.get(name)
    if value is None or value == "":
        return None
    try:
        converted = kind(value)
        if isfinite(converted):
            return converted
    except (TypeError, ValueError, OverflowError):
        pass
    raise UsageError(f"The {name} must be {meant}, not '{value}'.")
