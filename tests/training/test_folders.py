"""Finding labelled tiles in folders as they come."""

from collections import Counter

import pytest
from PIL import Image

from pipeline.errors import TrainingError
from pipeline.training.dataset import load_tiles
from pipeline.training.folders import class_of, find_tiles, tile_folder
from tests.support.tiles import COLORS, make_multispectral, make_tiles


@pytest.fixture
def folder(tmp_path):
    return make_tiles(tmp_path / "tiles")


def class_counts(names) -> Counter:
    return Counter(name.split("/")[0] for name in names)


def test_tiles_are_found_by_class_in_order(folder):
    (folder / ".cache").mkdir()
    (folder / "__MACOSX").mkdir()
    (folder / "Field" / "notes.txt").write_text("no image")
    (folder / "Field" / "._Field_0.png").write_bytes(b"what macOS leaves")
    names = find_tiles(folder)
    assert names == sorted(names)
    assert class_counts(names) == dict.fromkeys(COLORS, 10)


def test_a_folder_that_cannot_be_read_beside_the_class_folders_is_left_out(open_folder, caplog):
    make_tiles(open_folder / "tiles", 2)
    (open_folder / "tiles" / "lost+found").mkdir(mode=0)
    assert class_counts(find_tiles(open_folder)) == dict.fromkeys(COLORS, 2)
    assert "lost+found is left out, since it cannot be read: Permission denied" in caplog.text


def test_folders_around_the_class_folders_are_ignored(tmp_path):
    inner = make_tiles(tmp_path / "data/ds/images/remote_sensing/otherDatasets/sentinel_2/tif", 1)
    (tmp_path / "data" / "archive.zip").write_bytes(b"")
    (tmp_path / "data" / "notes").mkdir()
    assert tile_folder(tmp_path / "data") == inner
    assert tile_folder(inner) == inner
    assert find_tiles(tmp_path / "data") == find_tiles(inner)
    assert load_tiles(tmp_path / "data").names == load_tiles(inner).names


def test_of_several_folders_of_class_folders_one_must_be_named(tmp_path):
    make_tiles(tmp_path / "EuroSAT_RGB", 1)
    make_multispectral(tmp_path / "EuroSAT_MS", 1, size=8)
    with pytest.raises(TrainingError, match=r"2 folders of class folders \(EuroSAT_MS, EuroSAT_RGB\)"):
        find_tiles(tmp_path)


def test_an_empty_class_folder_is_named(folder):
    (folder / "Marsh").mkdir()
    with pytest.raises(TrainingError, match=r"Marsh holds no image\.$"):
        find_tiles(folder)


def test_pictures_beside_the_folder_of_class_folders_are_explained(folder):
    (folder.parent / "plots").mkdir()
    Image.new("RGB", (9, 9)).save(folder.parent / "plots" / "loss.png")
    with pytest.raises(
        TrainingError, match=r"tiles holds no image: if the class folders are inside it, name it"
    ):
        find_tiles(folder.parent)


def test_a_folder_without_class_folders_is_reported(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="empty holds no class folders"):
        find_tiles(tmp_path / "empty")
    with pytest.raises(TrainingError, match="is not a folder"):
        find_tiles(tmp_path / "absent")
    with pytest.raises(TrainingError, match="images but no class folders: name the folder around it"):
        find_tiles(folder / "Field")


def test_tiles_one_folder_deeper_are_left_out_with_a_warning(folder, caplog):
    (folder / "Field" / "more").mkdir()
    for i in range(3):
        (folder / "Field" / f"Field_{i}.png").rename(folder / "Field" / "more" / f"Field_{i}.png")
    assert len(find_tiles(folder)) == 27
    find_tiles(folder)
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "3 tiles in folders inside the class folder" in warning
    assert "Field/more/Field_" in warning
    for path in (folder / "Field" / "more").iterdir():
        path.rename(folder / "Field" / path.name)
    assert len(find_tiles(folder)) == 30


def test_a_class_is_the_same_composed_and_decomposed():
    assert class_of("Prairie inonde\u0301e/1.jpg") == class_of("Prairie inond\u00e9e/1.jpg")
