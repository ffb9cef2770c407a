"""Requests of the page: JSON, checked and turned into options. Nothing in it is trusted."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from pipeline.errors import UsageError
from pipeline.options import SAFE_RESOLUTIONS, ClassifyOptions, SceneOptions

JsonObject = dict[str, Any]

MAX_BODY = 10_000
"""Bytes of JSON in one request."""


@dataclass(frozen=True)
class ImageRequest:
    """How to classify an image."""

    fit: str = "part"
    """`part` (the model's tile as it is, around `center`) or `whole` (the whole image, resized)."""

    center: tuple[float, float] = (0.5, 0.5)
    """x and y as fractions of width and height."""

    scene: SceneOptions = field(default_factory=SceneOptions)
    """What the pixels are."""

    model: str | None = None
    """The model's name; None for the default."""

    def __post_init__(self) -> None:
        if self.fit not in ("part", "whole"):
            raise UsageError(f"An image is classified in part or whole, not '{self.fit}'.")

    @classmethod
    def from_json(cls, content: JsonObject) -> "ImageRequest":
        """Return the request; raises UsageError for invalid values."""
        return cls(
            fit=str(content.get("fit", "part")),
            center=(_fraction(content.get("x"), "x"), _fraction(content.get("y"), "y")),
            scene=scene_options(content),
            model=_model(content),
        )


@dataclass(frozen=True)
class RunRequest:
    """How to classify a scene, or what to assume when describing it."""

    options: ClassifyOptions
    """What the page's settings say."""

    model: str | None = None
    """The model's name; None for the default."""

    @classmethod
    def from_json(cls, content: JsonObject) -> "RunRequest":
        """Return the request; raises UsageError for invalid values."""
        options = ClassifyOptions(
            scene=scene_options(content),
            stride=whole_number(content.get("stride"), "`stride`"),
            probabilities=bool(content.get("probabilities")),
            preview=True,
            journal_after=float("inf"),  # a run of the app is never resumed
        )
        return cls(options, _model(content))


def parse_json(text: bytes | str) -> JsonObject:
    """Return the JSON object in a text, empty for an empty text; HTTPException 400 if there is none."""
    try:
        content = json.loads(text or "{}")
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise HTTPException(400, "The request is not a JSON object.")
    return content


async def read_json(request: Request) -> JsonObject:
    """Return the JSON object in a request's body; HTTPException 413 if it is longer than `MAX_BODY`."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise HTTPException(413, "Request body too large.")
    return parse_json(body)


def scene_options(content: JsonObject) -> SceneOptions:
    """Return what is stated about the pixels; raises UsageError for invalid values."""
    bands = content.get("bands") or {}
    if not isinstance(bands, dict):
        raise UsageError("`bands` must be an object of band names and numbers.")
    crs = str(content.get("assume_crs") or "")
    # GDAL accepts a lot as a coordinate system, including names of files and addresses.
    if crs and not re.fullmatch(r"EPSG:\d{4,6}", crs, re.IGNORECASE):
        raise UsageError(f"`assume_crs` must be written as EPSG:CODE, not '{crs}'.")
    resolution = whole_number(content.get("safe_resolution"), "`safe_resolution`") or SAFE_RESOLUTIONS[0]
    if resolution not in SAFE_RESOLUTIONS:
        offered = ", ".join(map(str, SAFE_RESOLUTIONS))
        raise UsageError(f"`safe_resolution` must be one of {offered} m, not {resolution} m.")
    return SceneOptions(
        bands=tuple(
            (str(name), whole_number(index, f"The number of {name}") or 0) for name, index in bands.items()
        ),
        level=str(content.get("level") or "auto"),
        offset=number(content.get("offset"), "`offset`"),
        assume_crs=crs or None,
        assume_gsd=number(content.get("assume_gsd"), "`assume_gsd`"),
        safe_resolution=resolution,
    )


def whole_number(value: object, label: str) -> int | None:
    """Return a whole number, None if not stated; raises UsageError, with the label, for anything else."""
    return _converted(value, int, f"{label} must be a whole number")


def number(value: object, label: str) -> float | None:
    """Return a number, None if not stated; raises UsageError, with the label, for anything else."""
    return _converted(value, float, f"{label} must be a number")


def _converted(value: object, kind: Callable[[Any], Any], rule: str) -> Any:
    if value is None or value == "":
        return None
    try:
        converted = kind(value)
        if isfinite(converted):
            return converted
    except (TypeError, ValueError, OverflowError):
        pass
    raise UsageError(f"{rule}, not '{value}'.")


def _fraction(value: object, label: str) -> float:
    """Return a number clipped to 0-1, 0.5 if it is not stated."""
    fraction = number(value, label)
    return 0.5 if fraction is None else min(1.0, max(0.0, fraction))


def _model(content: JsonObject) -> str | None:
    return str(content["model"]) if content.get("model") else None
