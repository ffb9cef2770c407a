"""Splits: as files say, at random, or as a known model's; whole, disjoint, repeatable."""

import numpy as np
import pytest
from hypothesis import strategies as st

from pipeline.errors import TrainingError
from pipeline.training.dataset import load_tiles
from pipeline.training.folders import find_tiles
from pipeline.training.split_files import Split
from pipeline.training.splits import split_tiles
from tests.support.tiles import COLORS, class_counts, make_tiles, write_split

PIXELS = np.ones((1, 8, 8), np.uint16)
place = st.tuples(st.floats(-180, 180), st.floats(-70, 70))


def test_split_files_are_followed(folder):
    train, validation = ["Field/Field_0.png", "Water/Water_0.png"], ["Water/Water_1.png", "Field/Field_1.png"]
    write_split(folder, train, validation)
    for method in ("auto", "files"):
        split = split_tiles(folder, validation_share=0.2, seed=0, method=method)
        assert split.train == tuple(train)
        assert split.validation == tuple(validation)
        assert split.method == "files"


def test_split_files_may_lie_beside_the_folder_of_class_folders(folder):
    write_split(folder.parent, ["Field/Field_0.png"], ["Field/Field_1.png"])
    assert split_tiles(folder.parent, validation_share=0.2, seed=0).method == "files"


def test_another_method_beats_split_files(folder):
    write_split(folder, ["Field/Field_0.png"], ["Field/Field_1.png"])
    assert len(split_tiles(folder, validation_share=0.2, seed=0, method="random").train) == 24


def test_split_files_that_are_asked_for_must_be_there(folder):
    with pytest.raises(TrainingError, match=r"has no split-train\.txt and split-val\.txt: choose another"):
        split_tiles(folder, validation_share=0.2, seed=0, method="files")


@pytest.mark.parametrize(("only", "part"), [("train", "training"), ("validation", "validation")])
def test_a_class_missing_from_a_part_is_named(folder, only, part):
    names = {"train": ["Field/Field_0.png"], "validation": ["Field/Field_1.png"]}
    names[only].append("Water/Water_0.png")
    write_split(folder, names["train"], names["validation"])
    with pytest.raises(TrainingError, match=f"'Water' is in only one of training and validation, in {part}"):
        split_tiles(folder, validation_share=0.2, seed=0)


def test_a_class_that_is_only_reported_on_is_named(folder):
    write_split(folder, ["Field/Field_0.png"], ["Field/Field_1.png"], ["Water/Water_2.png"])
    with pytest.raises(TrainingError, match="'Water' is to be reported on but not trained on: correct the"):
        split_tiles(folder, validation_share=0.2, seed=0)


def test_the_report_tiles_of_a_known_split_stay_apart(folder):
    names = find_tiles(folder)
    parts = [tuple(name for name in names if int(name[-5]) in some) for some in (range(6), (6, 7), (8, 9))]
    known = Split(*parts[:2], "as that of a model", report=parts[2])
    assert split_tiles(folder, validation_share=0.2, seed=0, known=known) == known


def test_without_split_files_each_class_is_split_by_the_share(folder):
    split = split_tiles(folder, validation_share=0.2, seed=3)
    assert class_counts(split.train) == dict.fromkeys(COLORS, 8)
    assert class_counts(split.validation) == dict.fromkeys(COLORS, 2)
    assert sorted(split.train + split.validation) == find_tiles(folder)
    assert split.method == "stratified, seed 3"


@pytest.mark.parametrize("method", ["random", "location"])
def test_the_seed_alone_decides_the_split(scattered, method):
    split = split_tiles(scattered, validation_share=0.2, seed=3, method=method)
    assert split_tiles(scattered, validation_share=0.2, seed=3, method=method) == split
    assert split_tiles(scattered, validation_share=0.2, seed=4, method=method).validation != split.validation


@pytest.mark.parametrize("share", [0.01, 0.2, 0.99])
def test_a_rare_class_is_trained_on_and_validated_on(folder, share):
    for extra in ("Quarry/a.png", "Quarry/b.png"):
        (folder / extra).parent.mkdir(exist_ok=True)
        (folder / extra).write_bytes((folder / "Field" / "Field_0.png").read_bytes())
    split = split_tiles(folder, validation_share=share, seed=0)
    for part in (split.train, split.validation):
        assert class_counts(part)["Quarry"] == 1
        assert class_counts(part).keys() == {*COLORS, "Quarry"}


def test_a_class_of_one_tile_is_named(folder):
    (folder / "Quarry").mkdir()
    (folder / "Field" / "Field_0.png").rename(folder / "Quarry" / "only.png")
    with pytest.raises(TrainingError, match=r"'Quarry' has a single tile .*two or more"):
        split_tiles(folder, validation_share=0.2, seed=0)


def test_a_known_split_of_these_tiles_is_taken_and_its_test_tiles_are_left_out(folder):
    names = find_tiles(folder)
    train = [name for name in names if int(name[-5]) < 6]
    validation = [name for name in names if int(name[-5]) in (6, 7)]
    other_endings = [[name.replace(".png", ".tif") for name in part] for part in (train, validation)]
    known = Split(*map(tuple, other_endings), "as that of a model")
    split = split_tiles(folder, validation_share=0.2, seed=0, known=known)
    assert split == Split(tuple(train), tuple(validation), "as that of a model")
    assert split_tiles(folder, validation_share=0.2, seed=0, method="random", known=known) != split
    write_split(folder, ["Field/Field_0.png"], ["Field/Field_1.png"])
    assert split_tiles(folder, validation_share=0.2, seed=0, known=known).method == "files"


def test_a_known_split_of_other_tiles_is_none(folder):
    at_random = split_tiles(folder, validation_share=0.2, seed=0)
    few = Split(("Field/Field_0.png", "Water/Water_0.png"), ("Field/Field_1.png",), "as that of a model")
    for known in (few, Split(("A/1.png",), ("A/2.png",), "as that of a model")):
        assert split_tiles(folder, validation_share=0.2, seed=0, known=known) == at_random


@pytest.mark.parametrize("share", [0.0, 1.0, 3.0])
def test_a_share_out_of_range_is_refused(folder, share):
    with pytest.raises(TrainingError, match="validation_share must lie between 0 and 1"):
        split_tiles(folder, validation_share=share, seed=0)


def make_parts(folder, *parts):
    for part in parts:
        make_tiles(folder / part, 4)
    return folder


@pytest.mark.parametrize("wrapper", ["", "data/set"])
@pytest.mark.parametrize("names", [("train", "val", "test"), ("Training", "valid", "Test")])
def test_folders_for_training_validation_and_test_are_the_split(tmp_path, wrapper, names):
    make_parts(tmp_path / wrapper, *names)
    split = split_tiles(tmp_path, validation_share=0.5, seed=0)
    for part, tiles in zip(names, (split.train, split.validation, split.report), strict=True):
        assert len(tiles) == 12
        assert {tile.split("/")[0] for tile in tiles} == {part}
    read = load_tiles(tmp_path, split.validation)
    assert read.classes == ("Field", "Forest", "Water")
    assert len(load_tiles(tmp_path)) == 36
    write_split(tmp_path, list(split.train), list(split.validation))
    assert split_tiles(tmp_path, validation_share=0.5, seed=0).train == split.train


def test_without_a_folder_for_validation_it_is_drawn_from_training(tmp_path):
    make_parts(tmp_path, "train", "test")
    split = split_tiles(tmp_path, validation_share=0.25, seed=0)
    assert (len(split.train), len(split.validation), len(split.report)) == (9, 3, 12)
    assert {tile.split("/")[0] for tile in split.train + split.validation} == {"train"}


def test_folders_of_other_names_are_no_split(tmp_path):
    make_parts(tmp_path, "train", "other")
    with pytest.raises(TrainingError, match="holds 2 folders of class folders"):
        split_tiles(tmp_path, validation_share=0.25, seed=0)
