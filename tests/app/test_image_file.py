"""Image files of all kinds, and the messages about those that cannot be used."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="needs the extra [app]: make app-test")

from pipeline.app.image import cut_tile
from pipeline.app.image_file import load_image
from pipeline.app.requests import ImageRequest
from pipeline.errors import SceneError
from pipeline.notes import Note
from pipeline.options import SceneOptions
from pipeline.training.geotiffs import EUROSAT_BANDS
from tests.support.cards import RGB_CARD


def texts(notes: Iterable[Note]) -> str:
    return " ".join(note.text for note in notes)


@pytest.fixture
def save(tmp_path) -> Callable[..., Path]:
    """Return a function that saves (H, W, C) uint8 as a picture."""

    def save(pixels: np.ndarray, mode: str, name: str = "a.png") -> Path:
        path = tmp_path / name
        Image.fromarray(pixels).convert(mode).save(path)
        return path

    return save


@pytest.fixture
def colors() -> np.ndarray:
    return np.random.default_rng(0).integers(60, 130, (64, 64, 3)).astype(np.uint8)


def test_a_picture_is_loaded_as_it_is(save, colors):
    image = load_image(save(colors, "RGB"), RGB_CARD, SceneOptions())
    np.testing.assert_array_equal(image.pixels, np.moveaxis(colors, -1, 0))
    assert image.valid.all()
    assert image.notes == ()


def test_transparency_is_left_out_with_a_note(save, colors):
    alpha = np.full((64, 64, 1), 255, np.uint8)
    alpha[:16] = 0
    image = load_image(save(np.dstack([colors, alpha]), "RGBA"), RGB_CARD, SceneOptions())
    assert image.pixels.shape == (3, 64, 64)
    assert not image.valid[:16].any()
    assert image.valid[16:].all()
    assert "fourth band" in texts(image.notes)


@pytest.mark.parametrize(("mode", "word"), [("L", "grey"), ("LA", "grey"), ("1", "grey"), ("I;16", "grey")])
def test_a_grey_image_is_shown_with_a_warning(tmp_path, mode, word):
    path = tmp_path / "grey.png"
    Image.new(mode, (64, 64), 100).save(path)
    image = load_image(path, RGB_CARD, SceneOptions())
    assert image.notes[0].level == "warning"
    assert word in image.notes[0].text


def test_a_picture_for_printing_is_converted_with_a_warning(tmp_path):
    path = tmp_path / "print.jpg"
    Image.new("CMYK", (64, 64), (10, 20, 30, 0)).save(path)
    assert "CMYK" in texts(load_image(path, RGB_CARD, SceneOptions()).notes)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"just text", "not a PNG"),
        (b"", "not a PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a PNG"),
        (b"\x89PNG\r\n\x1a\n and no more", "not a PNG|damaged"),
        (b"II*\0 and no more", "cannot be opened"),
    ],
)
def test_a_file_that_is_not_an_image_is_refused_in_a_sentence(tmp_path, content, word):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(SceneError, match=word):
        load_image(path, RGB_CARD, SceneOptions())


def test_a_truncated_picture_is_refused_in_a_sentence(save, colors):
    path = save(colors, "RGB")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(SceneError, match=r"a\.png is damaged or incomplete"):
        load_image(path, RGB_CARD, SceneOptions())


def test_reflectance_is_converted_to_the_models_values(write_raster):
    pixels = np.random.default_rng(0).integers(300, 2000, (3, 64, 64)).astype(np.uint16)
    path = write_raster(pixels, descriptions=("B02", "B03", "B04"), tags={"PRODUCT_LEVEL": "Level-1C"})
    image = load_image(path, RGB_CARD, SceneOptions())
    tile, _, _ = cut_tile(image, RGB_CARD, ImageRequest())
    np.testing.assert_allclose(tile, 1 + pixels[::-1] * (254 / 2750), rtol=1e-5)


def test_thirteen_unnamed_bands_are_assumed_to_be_eurosats(write_raster):
    """The darkest pixels lie where an offset of 1,000 would leave them: EuroSAT has none."""
    pixels = np.zeros((13, 64, 64), np.uint16) + np.arange(1000, 1013, dtype=np.uint16)[:, None, None]
    path = write_raster(pixels, crs=None, transform=None)
    image = load_image(path, RGB_CARD, SceneOptions())
    tile, _, _ = cut_tile(image, RGB_CARD, ImageRequest())
    expected = [1 + 254 * (1000 + EUROSAT_BANDS.index(band)) / 2750 for band in RGB_CARD.bands]
    np.testing.assert_allclose(tile[:, 0, 0], expected, rtol=1e-5)
    assert "assumed to be a tile of EuroSAT" in texts(image.notes)
    assert "a pixel size of 10 m was assumed" in texts(image.notes)
    assert "as stated by" not in texts(image.notes)  # the user stated nothing
