"""One image, classified: the tile that the model looks at, its class, and how certain that is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.app.certainty import compare_with_training, how_certain, is_eurosat_rgb
from pipeline.app.image_file import LoadedImage, load_image
from pipeline.app.picture import data_url, natural_color
from pipeline.app.requests import ImageRequest
from pipeline.errors import SceneError
from pipeline.model.card import ModelCard
from pipeline.model.predictor import Predictor
from pipeline.notes import Note, info, warning
from pipeline.values import PixelTransform

PREVIEW_SIDE = 640


def classify_image(path: Path, predictor: Predictor, request: ImageRequest) -> dict[str, Any]:
    """Return the class of an image and everything that the page shows with it, as plain values.

    Raises:
        SceneError: the file is not an image, or not one that the model can classify.
        UsageError: an option of the request is invalid.
    """
    card = predictor.card
    image = load_image(path, card, request.scene)
    tile, frame, notes = cut_tile(image, card, request)
    probabilities = _predict(tile, predictor)
    certainty, sentence = how_certain(probabilities, card.classes)
    seen = natural_color(tile, card)
    unfamiliar, unusual = compare_with_training(seen) if is_eurosat_rgb(card) else (None, None)
    notes += [unusual] if unusual else []
    height, width = image.valid.shape
    return {
        "name": path.name,
        "width": width,
        "height": height,
        "class": card.classes[int(probabilities.argmax())].name,
        "certainty": "unfamiliar" if unfamiliar else certainty,
        "sentence": unfamiliar or sentence,
        "probabilities": [
            {"id": c.id, "name": c.name, "color": c.color, "probability": round(float(p), 4)}
            for c, p in zip(card.classes, probabilities, strict=True)
        ],
        "notes": [
            {"level": note.level, "code": note.code, "text": note.text} for note in (*notes, *image.notes)
        ],
        "frame": frame,
        "seen": data_url(seen),
        "picture": data_url(image.preview(card, 2 * PREVIEW_SIDE), PREVIEW_SIDE),
    }


def cut_tile(
    image: LoadedImage, card: ModelCard, request: ImageRequest
) -> tuple[npt.NDArray[np.float32], dict[str, float], list[Note]]:
    """Return the tile (B, T, T) that the model looks at, its frame in the image, and notes about it.

    The frame is x, y, width and height as fractions of the image's size.

    Raises:
        SceneError: no pixel of the tile is valid.
    """
    height, width = image.valid.shape
    left, top, side = _window(width, height, card.tile_size, request)
    window = np.s_[..., top : top + side, left : left + side]
    valid = image.valid[window]
    tile, nodata_notes = _fill_invalid(image.transform.apply(image.pixels[window]), valid)
    frame = {
        "x": left / width,
        "y": top / height,
        "width": valid.shape[1] / width,
        "height": valid.shape[0] / height,
    }
    notes = [*_size_notes(width, height, card, request), *nodata_notes]
    if request.fit == "whole" and side != card.tile_size:
        tile = _resize(tile, card)
    else:
        tile = _pad(tile, card.tile_size)
    return np.ascontiguousarray(tile, dtype=np.float32), frame, notes


def _predict(tile: npt.NDArray[np.float32], predictor: Predictor) -> npt.NDArray[np.float32]:
    """Return the probabilities (classes,) of a tile of training values (B, T, T)."""
    card = predictor.card
    low, high = card.scaling.values
    unchanged = replace(PixelTransform.identity(len(card.bands)), low=min(low, 0.0), high=high)
    (probabilities,) = predictor.predict_tiles(tile[None], unchanged)
    return probabilities


def _window(width: int, height: int, size: int, request: ImageRequest) -> tuple[int, int, int]:
    """Return left, top and side, in pixels, of the square of the image that is used."""
    if request.fit == "whole" and (height, width) != (size, size):
        side = min(height, width)
        return (width - side) // 2, (height - side) // 2, side
    x, y = request.center
    return _start(x, width, size), _start(y, height, size), size


def _start(center: float, length: int, size: int) -> int:
    """Return where `size` pixels around `center`, a fraction of `length`, start so that they fit in."""
    return max(0, min(round(center * length - size / 2), length - size))


def _fill_invalid(
    tile: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float32], list[Note]]:
    """Set the invalid pixels of (B, H, W) to the mean of the valid ones; returns a note if there are any."""
    if not valid.any():
        raise SceneError("The image has no valid pixel where the model looks: it is all no data.")
    if valid.all():
        return tile, []
    filled = np.where(valid, tile, tile[:, valid].mean(axis=1)[:, None, None])
    invalid = 100 * (1 - valid.mean())
    text = f"{invalid:.0f} % of the pixels hold no data: they were set to the mean of the others."
    return filled, [info("image-nodata", None, text)]


def _resize(tile: npt.NDArray[np.float32], card: ModelCard) -> npt.NDArray[np.float32]:
    """Return (B, S, S) resized to the model's tile."""
    size = card.tile_size
    method = Image.Resampling.BOX if tile.shape[-1] > size else Image.Resampling.BICUBIC
    bands = [np.asarray(Image.fromarray(band).resize((size, size), method)) for band in tile]
    return np.stack(bands).clip(*card.scaling.values)


def _pad(tile: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    """Return (B, H, W) continued by its reflection to (B, size, size)."""
    _, height, width = tile.shape
    return np.pad(tile, ((0, 0), (0, size - height), (0, size - width)), mode="reflect")


def _size_notes(width: int, height: int, card: ModelCard, request: ImageRequest) -> list[Note]:
    size, metres = card.tile_size, card.tile_size * card.gsd
    if (width, height) == (size, size):
        return []
    found = (
        f"The image has {width:,} x {height:,} pixels, the model looks at {size} x {size} pixels of "
        f"{card.gsd:g} m"
    )
    if request.fit == "whole":
        what = "It was" if width == height else "Its central square was"
        text = f"{found}. {what} resized to that, which is right only if it shows {metres:g} m of ground."
        return [warning("image-resized", None, text)]
    if width < size or height < size:
        text = f"{found}. What is missing was filled with a reflection of the image."
        return [warning("image-small", None, text)]
    text = f"{found}. It saw the part in the frame: click on the image to choose another."
    return [info("image-part", None, text)]
