"""Pictures are read pixel by pixel, and what is not one is refused."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from pipeline.errors import TrainingError
from pipeline.training.dataset import load_tiles
from tests.support.tiles import COLORS, make_multispectral, make_tiles


@pytest.fixture
def folder(tmp_path):
    return make_tiles(tmp_path / "tiles")


@pytest.fixture
def multispectral(tmp_path):
    return make_multispectral(tmp_path / "multispectral", 2, size=8)


def numbers(bands: int, size: int = 8, dtype: type = np.uint16) -> np.ndarray:
    """Return a tile whose band b, from 1, holds 100 b."""
    return np.broadcast_to(100 * (1 + np.arange(bands))[:, None, None], (bands, size, size)).astype(dtype)


@pytest.fixture(scope="module")
def eurosat(landcover_data, tmp_path_factory):
    """Return EuroSAT's multispectral sample, unpacked with some of the pictures beside it."""
    folder = tmp_path_factory.mktemp("eurosat")
    with zipfile.ZipFile(landcover_data / "eurosat" / "EuroSAT_MS-sample.zip") as archive:
        archive.extractall(folder)
    with zipfile.ZipFile(landcover_data / "eurosat" / "EuroSAT_RGB-val.zip") as archive:
        pairs = [
            n for n in archive.namelist() if (folder / n.replace("RGB", "MS")).with_suffix(".tif").is_file()
        ]
        archive.extractall(folder, pairs)
    return folder


def test_pictures_are_read_pixel_by_pixel_with_their_labels(folder):
    tiles = load_tiles(folder)
    assert tiles.classes == ("Field", "Forest", "Water")
    assert tiles.images.shape == (30, 3, 32, 32)
    assert tiles.images.numpy().dtype == np.uint8
    assert tiles.bands is None
    assert len(tiles) == 30
    for i in (0, 13, 29):
        with Image.open(folder / tiles.names[i]) as image:
            assert np.array_equal(tiles.images[i].permute(1, 2, 0), np.asarray(image))
        assert tiles.names[i].startswith(tiles.classes[tiles.labels[i]] + "/")


def test_the_channels_of_pictures_go_by_name_too(folder):
    as_they_are = load_tiles(folder)
    blue_first = load_tiles(folder, bands=("B02", "B03", "B04"))
    assert np.array_equal(blue_first.images, as_they_are.images.flip(1))


def test_pictures_have_no_other_bands_than_their_colors(folder):
    with pytest.raises(TrainingError, match=r"Field_0\.png is a picture .* but B08, B04 are wanted"):
        load_tiles(folder, bands=("B08", "B04"))


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_other_formats_of_pictures_are_read_alike(tmp_path, suffix):
    for name, color in COLORS.items():
        (tmp_path / name).mkdir()
        Image.new("RGB", (16, 16), color).save(tmp_path / name / f"{name}.{suffix}")
    tiles = load_tiles(tmp_path, bands=("B04", "B03", "B02"))
    assert tiles.images.numpy().dtype == np.uint8
    assert np.abs(tiles.images[:, :, 5, 5].numpy().astype(int) - list(COLORS.values())).max() <= 2


def test_a_picture_of_more_than_8_bits_is_refused(folder):
    Image.fromarray(np.full((32, 32), 4000, np.uint16)).save(folder / "Field" / "Field_3.png")
    with pytest.raises(TrainingError, match=r"Field_3\.png holds more than 8 bits a pixel"):
        load_tiles(folder)


def test_a_picture_of_16_bits_a_color_is_refused(tmp_path):
    """Pillow would give the upper 8 of them: of digital numbers next to nothing."""
    folder = make_tiles(tmp_path / "tiles", 4)
    numbers = np.full((3, 32, 32), 1500, np.uint16)
    with rasterio.open(folder / "Field" / "Field_3.png", "w", "PNG", 32, 32, 3, dtype="uint16") as picture:
        picture.write(numbers)
    with pytest.raises(TrainingError, match=r"Field_3\.png holds more than 8 bits a pixel"):
        load_tiles(folder)


@pytest.mark.parametrize("damage", [lambda data: b"not a picture", lambda data: data[:600]])
def test_an_unreadable_picture_is_named(folder, damage):
    path = folder / "Water" / "Water_2.png"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(TrainingError, match=r"Water_2\.png cannot be read"):
        load_tiles(folder)


def test_eurosats_pictures_are_its_multispectral_tiles_stretched(eurosat):
    """The mean absolute error is what JPEG costs; another band order or stretch would be far off."""
    pictures = load_tiles(eurosat / "EuroSAT_RGB")
    names = [str(Path(name).with_suffix(".tif")) for name in pictures.names]
    tiles = load_tiles(eurosat / "EuroSAT_MS", names, bands=("B04", "B03", "B02"))
    stretched = 1 + 254 * tiles.images.float().clamp(0, 2750) / 2750
    assert len(names) > 50
    assert (stretched - pictures.images.float()).abs().mean(dim=(0, 2, 3)).max() < 2
