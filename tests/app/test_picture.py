"""The picture of a scene: small, complete, and transparent where there is no data."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import Resampling

from pipeline.app.picture import natural_color, scene_picture
from pipeline.options import SceneOptions
from pipeline.scenes.scene import open_scene
from tests.support.cards import RGB_CARD


def drawn(path: Path, longest: int, **options) -> np.ndarray:
    """Return the picture (H, W, 4) as integers; compression changes them by a few grey levels."""
    data = scene_picture(open_scene(path, RGB_CARD, SceneOptions(**options)), RGB_CARD, longest)
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")).astype(int)


def smooth(height: int, width: int) -> np.ndarray:
    """Return (3, H, W) uint8 that gets brighter from left to right."""
    ramp = np.linspace(40, 220, width).astype(np.uint8)
    return np.broadcast_to(ramp, (3, height, width)).copy()


@pytest.mark.parametrize("overviews", [False, True])
@pytest.mark.parametrize(("height", "width"), [(200, 300), (301, 203), (90, 640)])
def test_the_picture_covers_the_scene(write_raster, overviews, height, width):
    pixels = smooth(height, width)
    pixels[:, : height // 2] //= 2
    path = write_raster(pixels)
    if overviews:
        with rasterio.open(path, "r+") as dataset:
            dataset.build_overviews([2, 4], Resampling.average)
    picture = drawn(path, longest=64)
    shrink = 64 / max(height, width)
    assert picture.shape == (round(height * shrink), round(width * shrink), 4)
    rows, columns = (
        ((np.arange(small) + 0.5) * full / small).astype(int)
        for small, full in zip(picture.shape, (height, width), strict=False)
    )
    expected = pixels[0][rows][:, columns].astype(int)
    away_from_the_edge = np.abs(rows - height // 2) > 2 * height / picture.shape[0]
    assert np.abs(picture[..., 1] - expected)[away_from_the_edge].max() <= 8
    assert (picture[..., 3] == 255).all()


@pytest.mark.parametrize("longest", [400, 50])
def test_invalid_pixels_are_transparent(write_raster, longest):
    pixels = smooth(200, 200).astype(np.uint16) * 10
    pixels[:, :, :100] = 0
    path = write_raster(pixels, nodata=0, descriptions=("B04", "B03", "B02"), tags={"LEVEL": "Level-1C"})
    alpha = drawn(path, longest)[..., 3]
    half = alpha.shape[1] // 2
    assert (alpha[:, :half] == 0).all()
    assert (alpha[:, half:] == 255).all()


def test_masked_pixels_are_shown(write_raster):
    path = write_raster(smooth(128, 128))
    mask = write_raster(np.ones((1, 128, 128), np.uint8), "mask.tif")
    assert (drawn(path, 64, mask=mask)[..., 3] == 255).all()


def test_bands_other_than_natural_colors_are_grey():
    card = replace(RGB_CARD, bands=("B08", "B11", "B12"))
    colors = natural_color(np.array([[[10.0]], [[20.0]], [[30.0]]]), card)
    np.testing.assert_array_equal(colors, [[[10, 10, 10]]])
