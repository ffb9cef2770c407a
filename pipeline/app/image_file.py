"""Image files: PNG, JPEG or GeoTIFF, read as pixels in the model's bands."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from pipeline.app.picture import natural_color
from pipeline.app.uploads import JPEG_2000, TIFF, check_pixels, check_raster, has_signature
from pipeline.errors import SceneError
from pipeline.model.card import ModelCard
from pipeline.notes import Note, info, warning
from pipeline.options import PRODUCT_LEVELS, SceneOptions
from pipeline.scenes.gdal import open_raster
from pipeline.scenes.radiometry import pixel_transform, rgb8_encoding, tci_encoding
from pipeline.scenes.scene import open_scene
from pipeline.training.geotiffs import EUROSAT_BANDS
from pipeline.values import NATURAL_COLOR, PixelTransform

MAX_IMAGE_PIXELS = 50_000_000
"""What the camera of a phone produces."""


@dataclass(frozen=True)
class LoadedImage:
    """An image as it is stored."""

    pixels: npt.NDArray
    """(B, H, W), in the model's bands."""

    valid: npt.NDArray[np.bool_]
    """(H, W)."""

    transform: PixelTransform
    """Turns pixels into the model's training values; applied only to what is used, as images may be large."""

    notes: tuple[Note, ...] = ()
    """What was found or assumed."""

    def preview(self, card: ModelCard, longest: int) -> npt.NDArray[np.uint8]:
        """Return the image in colour (H, W, 3), subsampled but not to less than `longest` pixels."""
        step = max(1, max(self.valid.shape) // longest)
        return natural_color(self.transform.apply(self.pixels[:, ::step, ::step]), card)


def load_image(path: Path, card: ModelCard, options: SceneOptions) -> LoadedImage:
    """Read an image file.

    Raises:
        SceneError: the file has another format, is damaged or too large, or lacks what the model needs.
    """
    if has_signature(path, TIFF, JPEG_2000):
        return _load_raster(path, card, options)
    return _load_picture(path, card, options.level)


def _load_picture(path: Path, card: ModelCard, level: str) -> LoadedImage:
    colors, alpha, notes = _read_picture(path)
    if level in PRODUCT_LEVELS:
        raise SceneError(
            f"{path.name} is a picture of 8-bit colours, which cannot be the reflectance that `level` "
            f"{level} states: use `level` tci for ESA's true-colour image or `level` rgb8 for other pictures."
        )
    encoding = tci_encoding("l1c", len(card.bands)) if level == "tci" else rgb8_encoding(len(card.bands))
    transform = pixel_transform(card, encoding)  # raises for models that need more than natural colours
    channels = [NATURAL_COLOR.index(band) for band in card.bands]
    return LoadedImage(np.moveaxis(colors, -1, 0)[channels], alpha > 0, transform, notes)


def _read_picture(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], tuple[Note, ...]]:
    """Return the colours (H, W, 3) and alpha (H, W) of a PNG or a JPEG, and notes about it."""
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as picture:
            check_pixels(path.name, *picture.size, MAX_IMAGE_PIXELS)
            return (*_colors(picture), _mode_notes(picture))
    except UnidentifiedImageError as error:
        raise SceneError(f"{path.name} is not a PNG, a JPEG or a GeoTIFF: choose one of these.") from error
    except Image.DecompressionBombError as error:
        raise SceneError(
            f"{path.name} declares far more than the {MAX_IMAGE_PIXELS:,} pixels that an image may have."
        ) from error
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for a damaged file
        raise SceneError(f"{path.name} is damaged or incomplete ({error}): download it again.") from error


def _mode_notes(picture: Image.Image) -> tuple[Note, ...]:
    if picture.mode in ("1", "L", "LA", "I", "I;16", "F"):
        text = (
            "The image is grey: the same values were used for red, green and blue, which the model has never "
            "seen. Don't rely on its class."
        )
        return (warning("image-grey", None, text),)
    if picture.mode == "RGBA" or "transparency" in picture.info:
        text = "The image has a fourth band, transparency, which was left out."
        return (info("image-transparency", None, text),)
    if picture.mode == "CMYK":
        text = "The image is made for printing (CMYK): its colours were converted."
        return (warning("image-cmyk", None, text),)
    return ()


def _colors(picture: Image.Image) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return the colours (H, W, 3) and alpha (H, W), uint8."""
    if picture.mode.startswith("I"):  # 16 bits
        grey = (np.asarray(picture, np.float64) / 257).clip(0, 255).astype(np.uint8)
        return np.dstack([grey] * 3), np.full(grey.shape, 255, np.uint8)
    rgba = np.asarray(picture.convert("RGBA"))
    return rgba[..., :3], rgba[..., 3]


def _load_raster(path: Path, card: ModelCard, options: SceneOptions) -> LoadedImage:
    """Read a GeoTIFF as a scene is read: bands by name, values by level and offset, on the ground grid."""
    check_raster(path, MAX_IMAGE_PIXELS)
    options, assumed, notes = _assume(path, card, options)
    scene = open_scene(path, card, options)
    check_pixels(path.name, scene.width, scene.height, MAX_IMAGE_PIXELS)
    with scene.open() as reader:
        pixels, valid = reader.read(0, 0, scene.height, scene.width)
    # The scene's notes would say that the user stated these options.
    notes += [note for note in scene.notes if note.option not in assumed]
    return LoadedImage(pixels, valid, scene.pixel_transform, tuple(notes))


def _assume(
    path: Path, card: ModelCard, options: SceneOptions
) -> tuple[SceneOptions, frozenset[str], list[Note]]:
    """Add what can be assumed about a tile but not about a scene.

    Returns the options, the names of those that were assumed, and notes that say so.
    """
    assumed: set[str] = set()
    notes: list[Note] = []
    with open_raster(str(path)) as dataset:
        count, named = dataset.count, any(dataset.descriptions)
        placed = bool(dataset.crs or dataset.gcps[0])
    if count == len(EUROSAT_BANDS) and not named and not options.bands and options.level == "auto":
        bands = tuple((band, EUROSAT_BANDS.index(band) + 1) for band in card.bands)
        options = replace(options, bands=bands, level="l1c", offset=options.offset or 0)
        assumed |= {"bands", "level", "offset"}
        text = (
            "13 unnamed bands: assumed to be a tile of EuroSAT, Level-1C, with bands B01 to B12 and B8A last."
        )
        notes.append(info("tile-of-eurosat", "bands", text))
    if not placed and not options.assume_crs and not options.assume_gsd:
        options = replace(options, assume_gsd=card.gsd)
        assumed.add("assume_gsd")
        text = f"The file has no coordinate system: a pixel size of {card.gsd:g} m was assumed."
        notes.append(info("gsd-assumed", "assume_gsd", text))
    return options, frozenset(assumed), notes
