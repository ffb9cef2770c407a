"""One image: what the model makes of it, what it was shown, and how far to trust that."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from pipeline.app.picture import as_address, in_colours
from pipeline.app.trust import how_sure, is_eurosat_rgb, unlike_training
from pipeline.app.uploads import JPEG_2000, TIFF, begins_as, check_pixels, check_raster
from pipeline.errors import SceneError, UsageError
from pipeline.model.card import ModelCard
from pipeline.model.predictor import Predictor
from pipeline.notes import Note, info, warning
from pipeline.options import SceneOptions
from pipeline.scenes.bands import open_raster
from pipeline.scenes.radiometry import pixel_transform, rgb8_encoding, tci_encoding
from pipeline.scenes.scene import open_scene
from pipeline.training.geotiffs import EUROSAT_BANDS
from pipeline.values import NATURAL_COLOR, PixelTransform

MAX_IMAGE_PIXELS = 50_000_000  # what a telephone's camera takes
MAX_IMAGE_MIB = 100
PREVIEW_SIDE = 640


@dataclass(frozen=True)
class ImageWishes:
    """What a visitor states about an image.

    `fit` is `part` (64 x 64 pixels as they are, around `centre`, given as fractions of width and height) or
    `whole` (all of it, resized). `scene` says what the pixels are, see `SceneOptions`.
    """

    fit: str = "part"
    centre: tuple[float, float] = (0.5, 0.5)
    scene: SceneOptions = field(default_factory=SceneOptions)

    def __post_init__(self) -> None:
        if self.fit not in ("part", "whole"):
            raise UsageError(f"An image is classified in part or whole, not '{self.fit}'.")


@dataclass(frozen=True)
class LoadedImage:
    """An image as it was stored: pixels (B, H, W) in the model's bands; `valid` (H, W) bool.

    `transform` makes the model's training values of them; only of what is shown, since images may be large.
    """

    pixels: npt.NDArray
    valid: npt.NDArray[np.bool_]
    transform: PixelTransform
    notes: tuple[Note, ...] = ()

    def preview(self, card: ModelCard) -> npt.NDArray[np.uint8]:
        """Return the image in colours, thinned out if it is large."""
        step = max(1, max(self.valid.shape) // (2 * PREVIEW_SIDE))
        return in_colours(self.transform.apply(self.pixels[:, ::step, ::step]), card)


def classify_image(path: Path, predictor: Predictor, wishes: ImageWishes = ImageWishes()) -> dict[str, Any]:
    """Return the class of an image and all that the page shows beside it, as plain values.

    Raises SceneError for a file that is no image, or none that the model can be shown, UsageError for
    wishes that cannot be meant.
    """
    card = predictor.card
    image = load_image(path, card, wishes.scene)
    tile, frame, notes = cut_tile(image, card, wishes)
    low, high = card.scaling.values
    unchanged = replace(PixelTransform.identity(len(card.bands)), low=min(low, 0.0), high=high)
    (probabilities,) = predictor.predict_tiles(tile[None], unchanged)
    certainty, sentence = how_sure(probabilities, card.classes)
    shown = in_colours(tile, card)
    strange, unusual = unlike_training(shown) if is_eurosat_rgb(card) else (None, None)
    if strange:
        certainty = "strange"
    notes += [unusual] if unusual else []
    height, width = image.valid.shape
    return {
        "name": path.name,
        "width": width,
        "height": height,
        "class": card.classes[int(probabilities.argmax())].name,
        "certainty": certainty,
        "sentence": strange or sentence,
        "probabilities": [
            {"id": c.id, "name": c.name, "color": c.color, "probability": round(float(p), 4)}
            for c, p in zip(card.classes, probabilities, strict=True)
        ],
        "notes": [{"level": note.level, "text": note.text} for note in (*notes, *image.notes)],
        "frame": frame,
        "seen": as_address(shown),
        "picture": as_address(image.preview(card), PREVIEW_SIDE),
    }


def load_image(path: Path, card: ModelCard, options: SceneOptions) -> LoadedImage:
    """Read a PNG, a JPEG or a GeoTIFF.

    Raises SceneError if it is none of these, damaged, too large, or lacks what the model needs.
    """
    if begins_as(path, TIFF, JPEG_2000):
        return _load_raster(path, card, options)
    return _load_picture(path, card, options.level)


def _load_picture(path: Path, card: ModelCard, level: str) -> LoadedImage:
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as picture:
            check_pixels(path.name, *picture.size, MAX_IMAGE_PIXELS)
            notes = _mode_notes(picture)
            colours, alpha = _colours(picture)
    except UnidentifiedImageError as error:
        raise SceneError(
            f"{path.name} is no image that can be read here: give a PNG, a JPEG or a GeoTIFF."
        ) from error
    except Image.DecompressionBombError as error:
        raise SceneError(
            f"{path.name} declares far more than the {MAX_IMAGE_PIXELS:,} pixels that an image may have."
        ) from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's words for a broken file
        raise SceneError(f"{path.name} is damaged or incomplete ({error}): fetch it again.") from error
    if level in ("l1c", "l2a"):
        raise SceneError(
            f"{path.name} is a picture of 8-bit colours, which cannot be the reflectance that `level` "
            f"{level} states: use `level` tci for ESA's true-colour image or `level` rgb8 for other pictures."
        )
    encoding = tci_encoding("l1c", len(card.bands)) if level == "tci" else rgb8_encoding(len(card.bands))
    transform = pixel_transform(card, encoding)  # refuses models that need more than colours
    channels = [NATURAL_COLOR.index(band) for band in card.bands]
    return LoadedImage(np.moveaxis(colours, -1, 0)[channels], alpha > 0, transform, notes)


def _mode_notes(picture: Image.Image) -> tuple[Note, ...]:
    if picture.mode in ("1", "L", "LA", "I", "I;16", "F"):
        return (
            warning(
                "image-grey",
                None,
                "The image is grey: the same values were taken for red, green and blue, which the model was "
                "never shown. Don't rely on its class.",
            ),
        )
    if picture.mode == "RGBA" or "transparency" in picture.info:
        return (
            info("image-transparency", None, "The image has a fourth band, transparency: it was left out."),
        )
    if picture.mode == "CMYK":
        return (
            warning("image-cmyk", None, "The image is made for printing (CMYK): its colours were converted."),
        )
    return ()


def _colours(picture: Image.Image) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return (H, W, 3) and alpha (H, W), uint8."""
    if picture.mode.startswith("I"):  # 16 bits
        grey = (np.asarray(picture, np.float64) / 257).clip(0, 255).astype(np.uint8)
        return np.dstack([grey] * 3), np.full(grey.shape, 255, np.uint8)
    rgba = np.asarray(picture.convert("RGBA"))
    return rgba[..., :3], rgba[..., 3]


def _load_raster(path: Path, card: ModelCard, options: SceneOptions) -> LoadedImage:
    """Read a GeoTIFF as a scene is read: bands by name, values by level and offset, on the 10 m grid."""
    check_raster(path, MAX_IMAGE_PIXELS)
    options, stated, notes = _assumed(path, card, options)
    scene = open_scene(path, card, options)
    check_pixels(path.name, scene.width, scene.height, MAX_IMAGE_PIXELS)
    with scene.open() as reader:
        pixels, valid = reader.read(0, 0, scene.height, scene.width)
    notes += [note for note in scene.notes if note.option not in stated]
    return LoadedImage(pixels, valid, scene.pixel_transform, tuple(notes))


def _assumed(
    path: Path, card: ModelCard, options: SceneOptions
) -> tuple[SceneOptions, list[str], list[Note]]:
    """Return the options with what can be assumed of a tile but not of a scene.

    With them come the names of those options, whose notes would say that the visitor stated them, and the
    notes to give instead.
    """
    stated: list[str] = []
    notes: list[Note] = []
    with open_raster(str(path)) as dataset:
        count, named = dataset.count, any(dataset.descriptions)
        placed = bool(dataset.crs or dataset.gcps[0])
    if count == len(EUROSAT_BANDS) and not named and not options.bands and options.level == "auto":
        bands = tuple((band, EUROSAT_BANDS.index(band) + 1) for band in card.bands)
        options = replace(options, bands=bands, level="l1c", offset=options.offset or 0)
        stated += ["bands", "level", "offset"]
        notes.append(
            info(
                "tile-of-eurosat",
                "bands",
                "13 unnamed bands: taken for a tile of EuroSAT, Level-1C, B01 to B12 and B8A last.",
            )
        )
    if not placed and not options.assume_crs and not options.assume_gsd:
        options = replace(options, assume_gsd=card.gsd)
        stated.append("assume_gsd")
        text = f"The file does not say where it lies: its pixels were taken for {card.gsd:g} m."
        notes.append(info("gsd-assumed", "assume_gsd", text))
    return options, stated, notes


def cut_tile(
    image: LoadedImage, card: ModelCard, wishes: ImageWishes
) -> tuple[npt.NDArray[np.float32], dict[str, float], list[Note]]:
    """Return the tile (B, T, T) that the model is shown, its frame in the image, and what to say of it.

    The frame is x, y, width and height as fractions of the image's. Raises SceneError if no pixel of the
    tile is valid.
    """
    size, (height, width) = card.tile_size, image.valid.shape
    if wishes.fit == "whole" and (height, width) != (size, size):
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
    else:
        side = size
        top = _start(wishes.centre[1], height, size)
        left = _start(wishes.centre[0], width, size)
    window = np.s_[..., top : top + side, left : left + side]
    tile, valid = image.transform.apply(image.pixels[window]), image.valid[window]
    if not valid.any():
        raise SceneError("The image has no valid pixel where the model looks: it is all no data.")
    if not valid.all():
        tile = np.where(valid, tile, tile[:, valid].mean(axis=1)[:, None, None])
    seen_height, seen_width = valid.shape
    frame = {
        "x": left / width,
        "y": top / height,
        "width": seen_width / width,
        "height": seen_height / height,
    }
    notes = _size_notes(width, height, card, wishes)
    if not valid.all():
        lost = 100 * (1 - valid.mean())
        notes.append(
            info(
                "image-nodata",
                None,
                f"{lost:.0f} % of the pixels hold no data: they were given the others' mean.",
            )
        )
    if wishes.fit == "whole" and side != size:
        how = Image.Resampling.BOX if side > size else Image.Resampling.BICUBIC
        bands = [np.asarray(Image.fromarray(band).resize((size, size), how)) for band in tile]
        tile = np.stack(bands).clip(*card.scaling.values)
    else:
        beyond = ((0, 0), (0, size - seen_height), (0, size - seen_width))
        tile = np.pad(tile, beyond, mode="reflect")
    return np.ascontiguousarray(tile, dtype=np.float32), frame, notes


def _start(centre: float, length: int, size: int) -> int:
    """Return where a window of `size` around `centre`, a fraction of `length`, begins so that it fits."""
    return max(0, min(round(centre * length - size / 2), length - size))


def _size_notes(width: int, height: int, card: ModelCard, wishes: ImageWishes) -> list[Note]:
    size, metres = card.tile_size, card.tile_size * card.gsd
    kind = f"{size} x {size} pixels of {card.gsd:g} m"
    if (width, height) == (size, size):
        return []
    found = f"The image has {width:,} x {height:,} pixels, the model looks at {kind}"
    if wishes.fit == "whole":
        what = "It was" if width == height else "Its middle, as a square, was"
        return [
            warning(
                "image-resized",
                None,
                f"{found}. {what} resized to that, which is right only if it shows {metres:g} m of ground.",
            )
        ]
    if width < size or height < size:
        return [
            warning("image-small", None, f"{found}. What is missing was filled with the image's reflection.")
        ]
    return [
        info("image-part", None, f"{found}. It was shown the part in the frame: choose another by a click.")
    ]
