"""Scenes made of few pixels, and what a test asks of one."""

from dataclasses import replace

import numpy as np
from rasterio.transform import from_origin

from pipeline.options import SceneOptions
from pipeline.scenes.scene import Scene, open_scene
from tests.support.cards import RGB_CARD

MULTI_CARD = replace(RGB_CARD, name="ms", bands=("B02", "B05", "B09"))
NAMES = RGB_CARD.bands
RGB_BY_POSITION = (("red", 1), ("green", 2), ("blue", 3))

TEN = from_origin(399_960, 5_300_040, 10, 10)
TWELVE = from_origin(399_960, 5_300_040, 12, 12)  # has to be resampled


def read_all(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    with scene.open() as reader:
        return reader.read(0, 0, scene.height, scene.width)


def note_texts(scene: Scene, level: str) -> str:
    return "\n".join(note.text for note in scene.notes if note.level == level)


def reflectances(height: int = 70, width: int = 80, dark: int = 200, bands: int = 3) -> np.ndarray:
    """Make uint16 pixels as of a clear scene whose darkest hold `dark`."""
    return np.random.default_rng(1).integers(dark, dark + 2000, (bands, height, width), dtype=np.uint16)


def numbered_bands(count: int) -> np.ndarray:
    """Make pixels that are 300 in the first band, 600 in the second and so on."""
    return (
        np.full((count, 64, 64), 1, np.uint16)
        * (300 * np.arange(1, count + 1, dtype=np.uint16))[:, None, None]
    )


def bands_read(scene: Scene) -> list[list[int]]:
    """Return the values of each band, away from the borders."""
    pixels, valid = read_all(scene)
    assert valid[:60, :60].all()
    return [np.unique(band[:60, :60]).tolist() for band in pixels]


def open_named(write_raster, pixels: np.ndarray, name: str = "scene.tif", tags: dict[str, str] | None = None,
               **options) -> Scene:  # fmt: skip
    path = write_raster(pixels, name, descriptions=NAMES, tags=tags)
    return open_scene(path, RGB_CARD, SceneOptions(**options))
