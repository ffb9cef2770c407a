"""How certain the class of an image is, in words."""

import zipfile

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from pipeline.app.certainty import compare_with_training, how_certain
from pipeline.model.classes import EUROSAT_COLORS, number_classes

CLASSES = number_classes(list(EUROSAT_COLORS))


@pytest.mark.parametrize(
    ("probabilities", "word", "sentence"),
    [
        ([0.999, 0.001], "sure", "over 99 %"),
        ([0.92, 0.08], "sure", "92 %"),
        ([0.75, 0.25], "fair", "next is Forest with 25 %"),
        ([0.58, 0.42], "unsure", "AnnualCrop 58 %, but Forest 42 %"),
        ([0.65, 0.35, 0, 0], "fair", "65 %"),
        ([0.2] * 5, "guess", "no more than 20 %"),
    ],
)
def test_certainty_is_put_into_words(probabilities, word, sentence):
    padded = np.zeros(10)
    padded[: len(probabilities)] = probabilities
    said = how_certain(padded, CLASSES)
    assert said[0] == word
    assert sentence in said[1]


def test_photographs_and_blank_pictures_are_recognised():
    for photograph in (load_sample_image("flower.jpg"), load_sample_image("china.jpg")):
        small = np.asarray(Image.fromarray(photograph).resize((64, 64), Image.Resampling.BOX))
        sentence, _ = compare_with_training(small)
        assert sentence
        assert "don't rely on it" in sentence
    for value in (0, 128, 255):
        assert compare_with_training(np.full((64, 64, 3), value, np.uint8))[0]


def test_eurosats_own_tiles_are_hardly_ever_called_unfamiliar(landcover_data):
    with zipfile.ZipFile(landcover_data / "eurosat" / "EuroSAT_RGB-val.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")][::18]
        tiles = [np.asarray(Image.open(archive.open(name))) for name in names]
    said = [compare_with_training(tile) for tile in tiles]
    assert len(said) == 300
    assert np.mean([sentence is not None for sentence, _ in said]) < 0.03
    assert np.mean([note is not None for _, note in said]) < 0.05
