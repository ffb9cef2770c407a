"""One image: the tile that the model looks at, and the answer about it."""

from collections.abc import Iterable

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="needs the extra [app]: make app-test")

from pipeline.app.examples import example_files
from pipeline.app.image import classify_image, cut_tile
from pipeline.app.image_file import LoadedImage
from pipeline.app.requests import ImageRequest
from pipeline.errors import SceneError
from pipeline.notes import Note
from pipeline.values import PixelTransform
from tests.support.cards import RGB_CARD
from tests.support.pictures import picture


def texts(notes: Iterable[Note]) -> str:
    return " ".join(note.text for note in notes)


def loaded(pixels: np.ndarray, valid: np.ndarray | None = None) -> LoadedImage:
    every = np.ones(pixels.shape[1:], bool)
    return LoadedImage(pixels, every if valid is None else valid, PixelTransform.identity(3))


def ramp(height: int, width: int) -> np.ndarray:
    """Return (3, height, width) uint8 whose values tell the column."""
    return np.broadcast_to(np.arange(width, dtype=np.uint8), (3, height, width)).copy()


def test_a_tile_of_the_models_size_is_used_as_it_is():
    pixels = np.random.default_rng(0).integers(60, 130, (3, 64, 64)).astype(np.uint8)
    tile, frame, notes = cut_tile(loaded(pixels), RGB_CARD, ImageRequest())
    np.testing.assert_array_equal(tile, pixels)
    assert frame == {"x": 0, "y": 0, "width": 1, "height": 1}
    assert notes == []


@pytest.mark.parametrize(
    ("center", "first_col"), [((0.5, 0.5), 64), ((0, 0.5), 0), ((1, 0.5), 128), ((0.25, 0.5), 16)]
)
def test_the_part_of_a_larger_image_around_the_center_is_used(center, first_col):
    tile, frame, notes = cut_tile(loaded(ramp(100, 192)), RGB_CARD, ImageRequest(center=center))
    np.testing.assert_array_equal(tile[0, 0], np.arange(first_col, first_col + 64))
    assert frame["x"] == pytest.approx(first_col / 192)
    assert frame["y"] == pytest.approx(18 / 100)
    assert "192 x 100 pixels" in texts(notes)


def test_the_whole_of_a_larger_image_is_its_central_square_averaged():
    tile, frame, notes = cut_tile(loaded(ramp(128, 192)), RGB_CARD, ImageRequest(fit="whole"))
    np.testing.assert_allclose(tile[0, 0], 32.5 + 2 * np.arange(64))
    assert frame == {"x": pytest.approx(1 / 6), "y": 0, "width": pytest.approx(2 / 3), "height": 1}
    assert "640 m of ground" in texts(notes)


def test_a_smaller_image_is_continued_by_its_reflection():
    tile, _, notes = cut_tile(loaded(ramp(40, 40)), RGB_CARD, ImageRequest())
    assert tile.shape == (3, 64, 64)
    np.testing.assert_array_equal(tile[0, 0, 38:43], [38, 39, 38, 37, 36])
    assert [note.level for note in notes] == ["warning"]


def test_pixels_without_data_get_the_mean_of_the_others():
    valid = np.ones((64, 64), bool)
    valid[:, :32] = False
    pixels = np.full((3, 64, 64), 200, np.uint8)
    pixels[:, :, 32:] = 100
    tile, _, notes = cut_tile(loaded(pixels, valid), RGB_CARD, ImageRequest())
    np.testing.assert_array_equal(tile, 100)
    assert "50 % of the pixels hold no data" in texts(notes)
    with pytest.raises(SceneError, match="no valid pixel"):
        cut_tile(loaded(pixels, np.zeros_like(valid)), RGB_CARD, ImageRequest())


def test_an_unfamiliar_image_gets_a_class_and_a_warning(light_predictor, tmp_path):
    path = tmp_path / "red.png"
    Image.new("RGB", (64, 64), (255, 0, 0)).save(path)
    answer = classify_image(path, light_predictor, ImageRequest())
    assert answer["certainty"] == "unfamiliar"
    assert "redder" in answer["sentence"]
    assert len(answer["probabilities"]) == 10


def test_the_class_is_the_predictors(light_predictor):
    for path in example_files():
        tile = np.moveaxis(np.array(Image.open(path)), -1, 0)[None]
        (expected,) = light_predictor.predict_tiles(tile, PixelTransform.identity(3))
        answer = classify_image(path, light_predictor, ImageRequest())
        given = [entry["probability"] for entry in answer["probabilities"]]
        np.testing.assert_allclose(given, expected, atol=0.01)
        assert answer["class"] == path.stem


def test_an_image_with_too_many_pixels_is_refused_before_it_is_decoded(browser, monkeypatch):
    image = picture(101, 100)
    monkeypatch.setattr("pipeline.app.image_file.MAX_IMAGE_PIXELS", 10_000)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("was decoded"))
    assert "more than the 10,000" in browser.classify_image(image, status=422)["error"]
