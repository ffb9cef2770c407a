"""Labelled tiles: what is read, how it is split, and what is refused."""

from collections import Counter

import numpy as np
import pytest
from made_tiles import COLORS, make_tiles, write_split
from PIL import Image

from pipeline.errors import TrainingError
from pipeline.training.dataset import find_tiles, load_tiles, split_tiles


@pytest.fixture
def folder(tmp_path):
    return make_tiles(tmp_path / "tiles")


def class_counts(names) -> Counter:
    return Counter(name.split("/")[0] for name in names)


def test_tiles_are_found_by_class_in_order(folder):
    (folder / ".cache").mkdir()
    (folder / "Field" / "notes.txt").write_text("no image")
    names = find_tiles(folder)
    assert names == sorted(names)
    assert class_counts(names) == dict.fromkeys(COLORS, 10)


def test_tiles_are_read_pixel_by_pixel_with_their_labels(folder):
    tiles = load_tiles(folder)
    assert tiles.classes == ("Field", "Forest", "Water")
    assert tiles.images.shape == (30, 3, 32, 32)
    assert len(tiles) == 30
    for i in (0, 13, 29):
        with Image.open(folder / tiles.names[i]) as image:
            assert np.array_equal(tiles.images[i].permute(1, 2, 0), np.asarray(image))
        assert tiles.names[i].startswith(tiles.classes[tiles.labels[i]] + "/")


def test_named_tiles_come_in_the_order_asked_for(folder):
    names = ["Water/Water_3.png", "Field/Field_0.png"]
    tiles = load_tiles(folder, names)
    assert tiles.names == tuple(names)
    assert tiles.labels.tolist() == [1, 0]


def test_class_and_file_names_may_have_spaces(tmp_path):
    folder = make_tiles(
        tmp_path / "my tiles", 2, colors={"Bare soil": (150, 120, 90), "Sea lake": (30, 50, 90)}
    )
    write_split(folder, ["Bare soil/Bare soil_0.png"], ["Sea lake/Sea lake_1.png"])
    assert split_tiles(folder, validation_share=0.5, seed=0).train == ("Bare soil/Bare soil_0.png",)


def test_an_empty_class_folder_is_named(folder):
    (folder / "Marsh").mkdir()
    with pytest.raises(TrainingError, match=r"Marsh holds no image"):
        find_tiles(folder)


def test_a_folder_without_class_folders_is_told(tmp_path):
    with pytest.raises(TrainingError, match="holds no class folders"):
        find_tiles(tmp_path)
    with pytest.raises(TrainingError, match="is not a folder"):
        find_tiles(tmp_path / "absent")


def test_an_unreadable_image_is_named(folder):
    (folder / "Field" / "Field_4.png").write_bytes(b"not a picture")
    with pytest.raises(TrainingError, match=r"Field_4\.png cannot be read"):
        load_tiles(folder)


def test_a_truncated_image_is_named(folder):
    path = folder / "Water" / "Water_2.png"
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(TrainingError, match=r"Water_2\.png cannot be read"):
        load_tiles(folder)


def test_mixed_sizes_are_told_with_both(folder):
    Image.new("RGB", (40, 32)).save(folder / "Forest" / "Forest_5.png")
    with pytest.raises(TrainingError, match=r"Forest_5\.png is 40x32 pixels; the first tile, .* is 32x32"):
        load_tiles(folder)


def test_tiles_must_be_square(folder):
    Image.new("RGB", (40, 32)).save(folder / "Field" / "Field_0.png")
    with pytest.raises(TrainingError, match=r"Field_0\.png is 40x32 pixels; tiles must be square"):
        load_tiles(folder)


def test_split_files_are_followed(folder):
    write_split(folder, ["Field/Field_0.png", "Water/Water_0.png"], ["Field/Field_1.png"])
    split = split_tiles(folder, validation_share=0.2, seed=0)
    assert split.train == ("Field/Field_0.png", "Water/Water_0.png")
    assert split.validation == ("Field/Field_1.png",)
    assert split.method == "files"


def test_split_files_must_be_disjoint(folder):
    write_split(folder, ["Field/Field_0.png", "Field/Field_1.png"], ["Field/Field_1.png"])
    with pytest.raises(TrainingError, match=r"both split files, Field/Field_1\.png among them"):
        split_tiles(folder, validation_share=0.2, seed=0)


def test_one_split_file_alone_is_refused(folder):
    (folder / "split-train.txt").write_text("Field/Field_0.png\n")
    with pytest.raises(TrainingError, match=r"split-val\.txt is not"):
        split_tiles(folder, validation_share=0.2, seed=0)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "names no tile"),
        (["Field_0.png"], "'Field_0.png', which is not a Class/file name"),
        (["Field/Field_0.png", "Field/Field_0.png"], "names a tile twice"),
    ],
)
def test_odd_split_files_are_told(folder, lines, message):
    write_split(folder, lines, ["Field/Field_1.png"])
    with pytest.raises(TrainingError, match=message):
        split_tiles(folder, validation_share=0.2, seed=0)


def test_a_tile_of_a_split_file_that_is_not_there_is_named(folder):
    with pytest.raises(TrainingError, match=r"Field_99\.png does not exist"):
        load_tiles(folder, ["Field/Field_0.png", "Field/Field_99.png"])


def test_without_split_files_each_class_is_split_by_the_share(folder):
    split = split_tiles(folder, validation_share=0.2, seed=3)
    assert class_counts(split.train) == dict.fromkeys(COLORS, 8)
    assert class_counts(split.validation) == dict.fromkeys(COLORS, 2)
    assert sorted(split.train + split.validation) == find_tiles(folder)


def test_the_seed_alone_decides_the_split(folder):
    split = split_tiles(folder, validation_share=0.2, seed=3)
    assert split_tiles(folder, validation_share=0.2, seed=3) == split
    assert split_tiles(folder, validation_share=0.2, seed=4).validation != split.validation


def test_too_few_tiles_to_split_are_told(tmp_path):
    folder = make_tiles(tmp_path / "tiles", 1)
    with pytest.raises(TrainingError, match=r"3 tiles .* cannot be split by validation_share 0.2"):
        split_tiles(folder, validation_share=0.2, seed=0)
