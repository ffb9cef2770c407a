"""Labelled tiles in memory: names, labels, and what must be the same for all of them."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import TrainingError
from pipeline.training.dataset import load_tiles
from tests.support.tiles import make_multispectral, make_tiles, write_tile


@pytest.fixture
def folder(tmp_path):
    return make_tiles(tmp_path / "tiles")


@pytest.fixture
def multispectral(tmp_path):
    return make_multispectral(tmp_path / "multispectral", 2, size=8)


def class_counts(names) -> Counter:
    return Counter(name.split("/")[0] for name in names)


def numbers(bands: int, size: int = 8, dtype: type = np.uint16) -> np.ndarray:
    """Return a tile whose band b, from 1, holds 100 b."""
    return np.broadcast_to(100 * (1 + np.arange(bands))[:, None, None], (bands, size, size)).astype(dtype)


def test_class_and_file_names_may_have_spaces(tmp_path):
    colors = {"Bare soil": (150, 120, 90), "Sea lake": (30, 50, 90)}
    tiles = load_tiles(make_tiles(tmp_path / "my tiles", 2, colors=colors))
    assert tiles.classes == ("Bare soil", "Sea lake")
    assert tiles.names[0] == "Bare soil/Bare soil_0.png"


def test_named_tiles_come_in_the_order_asked_for(folder):
    names = ["Water/Water_3.png", "Field/Field_0.png"]
    tiles = load_tiles(folder, names)
    assert tiles.names == tuple(names)
    assert tiles.labels.tolist() == [1, 0]


def test_mixed_sizes_are_reported_with_both(folder):
    Image.new("RGB", (40, 32)).save(folder / "Forest" / "Forest_5.png")
    with pytest.raises(TrainingError, match=r"Forest_5\.png is 40x32 pixels; the first tile, .* is 32x32"):
        load_tiles(folder)


def test_tiles_must_be_square(folder):
    Image.new("RGB", (40, 32)).save(folder / "Field" / "Field_0.png")
    with pytest.raises(TrainingError, match=r"Field_0\.png is 40x32 pixels; tiles must be square"):
        load_tiles(folder)


def test_a_tile_that_is_named_and_not_there_is_reported(folder, multispectral):
    with pytest.raises(TrainingError, match=r"Field_99\.png does not exist"):
        load_tiles(folder, ["Field/Field_0.png", "Field/Field_99.png"])
    with pytest.raises(TrainingError, match=r"Field_99\.tif does not exist"):
        load_tiles(multispectral, ["Field/Field_99.tif"], skip_unreadable=True)


def test_more_tiles_than_fit_into_memory_are_reported(folder, monkeypatch):
    def full(*_):
        raise MemoryError

    monkeypatch.setattr(np, "empty", full)
    with pytest.raises(
        TrainingError, match=r"30 tiles of 3 bands and 32x32 pixels take 0\.0 GB, more memory"
    ):
        load_tiles(folder)


def test_unreadable_tiles_are_left_out_when_asked_for(folder, caplog):
    whole = load_tiles(folder)
    for name in ("Field/Field_0.png", "Water/Water_2.png"):
        (folder / name).write_bytes(b"not a picture")
    tiles = load_tiles(folder, skip_unreadable=True)
    assert class_counts(tiles.names) == {"Field": 9, "Forest": 10, "Water": 9}
    for i, name in enumerate(tiles.names):
        was = whole.names.index(name)
        assert np.array_equal(tiles.images[i], whole.images[was])
        assert tiles.labels[i] == whole.labels[was]
    assert "Field/Field_0.png cannot be read" in caplog.text
    assert "2 of 30 tiles cannot be read and are left out" in caplog.text


def test_a_class_that_loses_all_its_tiles_is_reported(tmp_path):
    folder = make_tiles(tmp_path / "tiles", 2)
    for path in (folder / "Forest").iterdir():
        path.write_bytes(b"not a picture")
    with pytest.raises(TrainingError, match="No tile of the class 'Forest' can be read"):
        load_tiles(folder, skip_unreadable=True)
    with pytest.raises(TrainingError, match="None of the 2 tiles"):
        load_tiles(folder, ["Forest/Forest_0.png", "Forest/Forest_1.png"], skip_unreadable=True)


def test_a_tile_with_fewer_bands_than_the_others_is_named(tmp_path):
    write_tile(tmp_path / "Field" / "a.tif", numbers(5))
    write_tile(tmp_path / "Field" / "b.tif", numbers(4))
    with pytest.raises(TrainingError, match=r"b\.tif has 4 bands; the first tile, Field/a\.tif, has 5"):
        load_tiles(tmp_path)


def test_tiles_of_8_bits_and_of_more_are_not_mixed(tmp_path):
    write_tile(tmp_path / "Field" / "a.tif", numbers(5).astype(np.uint8))
    write_tile(tmp_path / "Field" / "b.tif", numbers(5))
    with pytest.raises(
        TrainingError, match=r"Only one of .*b\.tif and the first tile, Field/a\.tif, holds 8-bit"
    ):
        load_tiles(tmp_path)


def test_pictures_and_geotiffs_are_not_mixed(folder):
    write_tile(folder / "Field" / "Field_10.tif", numbers(13, 32))
    with pytest.raises(TrainingError, match=r"mixes TIFFs \(Field/Field_10\.tif\) and other pictures"):
        load_tiles(folder)
