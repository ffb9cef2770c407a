"""One image: what the model is shown, and what is said about it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="needs the extra [app]: make app-test")

from pipeline.app.examples import example_files
from pipeline.app.image import ImageWishes, LoadedImage, classify_image, cut_tile, load_image
from pipeline.app.trust import how_sure, unlike_training
from pipeline.errors import SceneError
from pipeline.model.classes import EUROSAT_COLORS, number_classes
from pipeline.options import SceneOptions
from pipeline.training.geotiffs import EUROSAT_BANDS
from pipeline.values import PixelTransform
from tests.support.cards import RGB_CARD

CLASSES = number_classes(list(EUROSAT_COLORS))


def texts(notes) -> str:
    return " ".join(note.text for note in notes)


def loaded(pixels: np.ndarray, valid: np.ndarray | None = None) -> LoadedImage:
    every = np.ones(pixels.shape[1:], bool)
    return LoadedImage(pixels, every if valid is None else valid, PixelTransform.identity(3))


def ramp(height: int, width: int) -> np.ndarray:
    """Return (3, height, width) uint8 whose values tell the column."""
    return np.broadcast_to(np.arange(width, dtype=np.uint8), (3, height, width)).copy()


@pytest.fixture
def save(tmp_path):
    def save(pixels: np.ndarray, mode: str, name: str = "a.png") -> Path:
        path = tmp_path / name
        Image.fromarray(pixels).convert(mode).save(path)
        return path

    return save


@pytest.fixture
def colours() -> np.ndarray:
    return np.random.default_rng(0).integers(60, 130, (64, 64, 3)).astype(np.uint8)


# What the model is shown


def test_a_tile_of_the_right_size_is_shown_as_it_is(save, colours):
    image = load_image(save(colours, "RGB"), RGB_CARD, SceneOptions())
    tile, frame, notes = cut_tile(image, RGB_CARD, ImageWishes())
    np.testing.assert_array_equal(tile, np.moveaxis(colours, -1, 0))
    assert frame == {"x": 0, "y": 0, "width": 1, "height": 1}
    assert notes == []


@pytest.mark.parametrize(
    ("centre", "first_column"), [((0.5, 0.5), 64), ((0, 0.5), 0), ((1, 0.5), 128), ((0.25, 0.5), 16)]
)
def test_of_a_larger_image_the_part_around_the_centre_is_shown(centre, first_column):
    tile, frame, notes = cut_tile(loaded(ramp(100, 192)), RGB_CARD, ImageWishes(centre=centre))
    np.testing.assert_array_equal(tile[0, 0], np.arange(first_column, first_column + 64))
    assert frame["x"] == pytest.approx(first_column / 192)
    assert frame["y"] == pytest.approx(18 / 100)
    assert "192 x 100 pixels" in texts(notes)


def test_all_of_a_larger_image_is_its_square_middle_averaged():
    tile, frame, notes = cut_tile(loaded(ramp(128, 192)), RGB_CARD, ImageWishes(fit="whole"))
    np.testing.assert_allclose(tile[0, 0], 32.5 + 2 * np.arange(64))
    assert frame == {"x": pytest.approx(1 / 6), "y": 0, "width": pytest.approx(2 / 3), "height": 1}
    assert "640 m of ground" in texts(notes)


def test_a_smaller_image_is_continued_by_its_reflection():
    tile, _, notes = cut_tile(loaded(ramp(40, 40)), RGB_CARD, ImageWishes())
    assert tile.shape == (3, 64, 64)
    np.testing.assert_array_equal(tile[0, 0, 38:43], [38, 39, 38, 37, 36])
    assert [note.level for note in notes] == ["warning"]


def test_pixels_without_data_get_the_mean_of_the_others():
    valid = np.ones((64, 64), bool)
    valid[:, :32] = False
    pixels = np.full((3, 64, 64), 200, np.uint8)
    pixels[:, :, 32:] = 100
    tile, _, notes = cut_tile(loaded(pixels, valid), RGB_CARD, ImageWishes())
    np.testing.assert_array_equal(tile, 100)
    assert "50 % of the pixels hold no data" in texts(notes)
    with pytest.raises(SceneError, match="no valid pixel"):
        cut_tile(loaded(pixels, np.zeros_like(valid)), RGB_CARD, ImageWishes())


# Files of all kinds


def test_transparency_is_left_out_and_said(save, colours):
    alpha = np.full((64, 64, 1), 255, np.uint8)
    alpha[:16] = 0
    image = load_image(save(np.dstack([colours, alpha]), "RGBA"), RGB_CARD, SceneOptions())
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
        (b"just text", "no image"),
        (b"", "no image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no image"),
        (b"\x89PNG\r\n\x1a\n and no more", "no image|damaged"),
        (b"II*\0 and no more", "cannot be opened"),
    ],
)
def test_what_is_no_image_is_refused_in_a_sentence(tmp_path, content, word):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(SceneError, match=word):
        load_image(path, RGB_CARD, SceneOptions())


def test_a_picture_that_breaks_off_is_refused_in_a_sentence(save, colours):
    path = save(colours, "RGB")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(SceneError, match=r"a\.png is damaged or incomplete"):
        load_image(path, RGB_CARD, SceneOptions())


def test_a_tile_of_reflectance_is_brought_to_the_models_values(write_raster):
    pixels = np.random.default_rng(0).integers(300, 2000, (3, 64, 64)).astype(np.uint16)
    path = write_raster(pixels, descriptions=("B02", "B03", "B04"), tags={"PRODUCT_LEVEL": "Level-1C"})
    image = load_image(path, RGB_CARD, SceneOptions())
    tile, _, _ = cut_tile(image, RGB_CARD, ImageWishes())
    np.testing.assert_allclose(tile, 1 + pixels[::-1] * (254 / 2750), rtol=1e-5)


def test_thirteen_unnamed_bands_are_eurosats(write_raster):
    """The darkest pixels lie where an offset of 1,000 would leave them: EuroSAT has none."""
    pixels = np.zeros((13, 64, 64), np.uint16) + np.arange(1000, 1013, dtype=np.uint16)[:, None, None]
    path = write_raster(pixels, crs=None, transform=None)
    image = load_image(path, RGB_CARD, SceneOptions())
    tile, _, _ = cut_tile(image, RGB_CARD, ImageWishes())
    expected = [1 + 254 * (1000 + EUROSAT_BANDS.index(band)) / 2750 for band in RGB_CARD.bands]
    np.testing.assert_allclose(tile[:, 0, 0], expected, rtol=1e-5)
    assert "taken for a tile of EuroSAT" in texts(image.notes)
    assert "taken for 10 m" in texts(image.notes)
    assert "as stated by" not in texts(image.notes)  # nobody stated anything


# How far to trust it


@pytest.mark.parametrize(
    ("probabilities", "word", "sentence"),
    [
        ([0.999, 0.001], "sure", "over 99 %"),
        ([0.92, 0.08], "sure", "92 %"),
        ([0.75, 0.25], "fair", "next comes Forest with 25 %"),
        ([0.58, 0.42], "unsure", "AnnualCrop 58 %, but Forest 42 %"),
        ([0.65, 0.35, 0, 0], "fair", "65 %"),
        ([0.2] * 5, "lost", "no more than 20 %"),
    ],
)
def test_how_sure_the_model_is_is_said_in_words(probabilities, word, sentence):
    padded = np.zeros(10)
    padded[: len(probabilities)] = probabilities
    said = how_sure(padded, CLASSES)
    assert said[0] == word
    assert sentence in said[1]


def test_a_photograph_and_pictures_of_nothing_are_told_from_satellite_images():
    from sklearn.datasets import load_sample_image

    for photograph in (load_sample_image("flower.jpg"), load_sample_image("china.jpg")):
        small = np.asarray(Image.fromarray(photograph).resize((64, 64), Image.Resampling.BOX))
        sentence, _ = unlike_training(small)
        assert sentence
        assert "don't rely on it" in sentence
    for value in (0, 128, 255):
        assert unlike_training(np.full((64, 64, 3), value, np.uint8))[0]


def test_eurosats_own_tiles_are_hardly_ever_called_strange(landcover_data):
    import zipfile

    with zipfile.ZipFile(landcover_data / "eurosat" / "EuroSAT_RGB-val.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")][::18]
        tiles = [np.asarray(Image.open(archive.open(name))) for name in names]
    said = [unlike_training(tile) for tile in tiles]
    assert len(said) == 300
    assert np.mean([sentence is not None for sentence, _ in said]) < 0.03
    assert np.mean([note is not None for _, note in said]) < 0.05


def test_a_strange_image_gets_a_class_but_not_our_word_for_it(light_predictor, tmp_path):
    path = tmp_path / "red.png"
    Image.new("RGB", (64, 64), (255, 0, 0)).save(path)
    answer = classify_image(path, light_predictor, ImageWishes())
    assert answer["certainty"] == "strange"
    assert "redder" in answer["sentence"]
    assert len(answer["probabilities"]) == 10


def test_the_class_is_the_one_that_a_predictor_gives(light_predictor):
    for path in example_files():
        tile = np.moveaxis(np.array(Image.open(path)), -1, 0)[None]
        (expected,) = light_predictor.predict_tiles(tile, PixelTransform.identity(3))
        answer = classify_image(path, light_predictor, ImageWishes())
        given = [entry["probability"] for entry in answer["probabilities"]]
        np.testing.assert_allclose(given, expected, atol=0.01)
        assert answer["class"] == path.stem
