"""Splits: as files say, at random, or by location; whole, disjoint, repeatable."""

from collections import Counter
from math import acos, cos, radians, sin

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer

from pipeline.errors import TrainingError
from pipeline.training.folders import find_tiles
from pipeline.training.split_by_location import BLOCK_KM, block_of
from pipeline.training.split_files import Split
from pipeline.training.splits import split_tiles
from tests.support.tiles import COLORS, make_multispectral, make_tiles, write_split, write_tile

TO_DEGREES = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
PIXELS = np.ones((1, 8, 8), np.uint16)


@pytest.fixture
def folder(tmp_path):
    return make_tiles(tmp_path / "tiles", size=8)


@pytest.fixture(scope="module")
def scattered(tmp_path_factory):
    """Return tiles of three classes in clusters: 40 places, with one to four tiles within 2 km each."""
    folder = tmp_path_factory.mktemp("scattered")
    rng = np.random.default_rng(0)
    for place in range(40):
        corner = (300_000 + 55_000 * (place % 8), 5_000_000 + 55_000 * (place // 8))
        for i in range(rng.integers(1, 5)):
            name = ("Field", "Forest", "Water")[rng.choice(3, p=(0.5, 0.3, 0.2))]
            near = (corner[0] + rng.uniform(0, 2000), corner[1] + rng.uniform(0, 2000))
            write_tile(folder / name / f"{place}_{i}.tif", PIXELS, place=near)
    return folder


def class_counts(names) -> Counter:
    return Counter(name.split("/")[0] for name in names)


def blocks(folder, names) -> set[tuple[int, int]]:
    found = set()
    for name in names:
        with rasterio.open(folder / name) as tile:
            found.add(block_of(*TO_DEGREES.transform(*tile.xy(3.5, 3.5))))
    return found


# Files


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


def test_a_split_file_from_windows_is_read(folder):
    (folder / "split-train.txt").write_bytes("\ufeffField/Field_0.png\r\nField/Field 2.png\r\n".encode())
    (folder / "split-val.txt").write_bytes(b"Field/Field_1.png\r\n\r\n")
    split = split_tiles(folder, validation_share=0.2, seed=0)
    assert split.train == ("Field/Field_0.png", "Field/Field 2.png")
    assert split.validation == ("Field/Field_1.png",)


def test_split_files_must_be_disjoint(folder):
    write_split(folder, ["Field/Field_0.png", "Field/Field_1.png"], ["Field/Field_1.png"])
    with pytest.raises(
        TrainingError,
        match=r"in both split-train\.txt and split-val\.txt of .* Field/Field_1\.png",
    ):
        split_tiles(folder, validation_share=0.2, seed=0)


def test_one_split_file_alone_is_refused(folder):
    (folder / "split-train.txt").write_text("Field/Field_0.png\n")
    with pytest.raises(TrainingError, match=r"has split-train\.txt but no split-val\.txt"):
        split_tiles(folder, validation_share=0.2, seed=0)


def test_split_files_that_are_asked_for_must_be_there(folder):
    with pytest.raises(TrainingError, match=r"has no split-train\.txt and split-val\.txt: choose another"):
        split_tiles(folder, validation_share=0.2, seed=0, method="files")


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


@pytest.mark.parametrize(("only", "part"), [("train", "training"), ("validation", "validation")])
def test_a_class_missing_from_a_part_is_named(folder, only, part):
    names = {"train": ["Field/Field_0.png"], "validation": ["Field/Field_1.png"]}
    names[only].append("Water/Water_0.png")
    write_split(folder, names["train"], names["validation"])
    with pytest.raises(TrainingError, match=f"'Water' is in only one of training and validation, in {part}"):
        split_tiles(folder, validation_share=0.2, seed=0)


def test_a_third_file_names_the_tiles_to_report_on(folder):
    write_split(folder, ["Field/Field_0.png"], ["Field/Field_1.png"], ["Field/Field_2.png"])
    split = split_tiles(folder, validation_share=0.2, seed=0)
    assert split.report == ("Field/Field_2.png",)


@pytest.mark.parametrize(
    ("shared", "file"), [("Field/Field_0.png", "split-train"), ("Field/Field_1.png", "split-val")]
)
def test_a_tile_to_report_on_is_in_no_other_file(folder, shared, file):
    write_split(folder, ["Field/Field_0.png"], ["Field/Field_1.png"], ["Field/Field_2.png", shared])
    with pytest.raises(TrainingError, match=rf"in both {file}\.txt and split-report\.txt of .* {shared}"):
        split_tiles(folder, validation_share=0.2, seed=0)


def test_tiles_to_report_on_do_not_stand_alone(folder):
    (folder / "split-report.txt").write_text("Field/Field_0.png\n")
    with pytest.raises(TrainingError, match=r"has split-report\.txt but no split-train\.txt"):
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


# Random


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
def test_a_share_that_is_none_is_refused(folder, share):
    with pytest.raises(TrainingError, match="validation_share must lie between 0 and 1"):
        split_tiles(folder, validation_share=share, seed=0)


# Location


@pytest.mark.parametrize("share", [0.2, 0.3])
def test_no_block_is_on_both_sides(scattered, share):
    split = split_tiles(scattered, validation_share=share, seed=0, method="location")
    assert not blocks(scattered, split.train) & blocks(scattered, split.validation)
    assert sorted(split.train + split.validation) == find_tiles(scattered)
    all_tiles, validated = class_counts(find_tiles(scattered)), class_counts(split.validation)
    for name, count in all_tiles.items():
        assert abs(validated[name] / count - share) < 0.12, name
    assert split.method == "by location in blocks of 20 km, seed 0"


def test_a_random_split_puts_blocks_on_both_sides(scattered):
    split = split_tiles(scattered, validation_share=0.2, seed=0)
    assert blocks(scattered, split.train) & blocks(scattered, split.validation)


def test_tiles_are_placed_by_their_own_crs(tmp_path):
    """The same ground in two UTM zones is one block."""
    for i in range(6):
        write_tile(tmp_path / "Field" / f"{i}.tif", PIXELS, place=(739_000, 5_320_000), crs="EPSG:32632")
        write_tile(tmp_path / "Water" / f"{i}.tif", PIXELS, place=(292_000, 5_322_000), crs="EPSG:32633")
    with pytest.raises(TrainingError, match="12 tiles lie in 1 blocks of 20 km, too few to validate on 20%"):
        split_tiles(tmp_path, validation_share=0.2, seed=0, method="location")


def test_a_class_that_lies_in_one_place_is_named(tmp_path):
    folder = make_multispectral(tmp_path, 10, size=8, bands=1)
    for i in range(3):
        write_tile(folder / "Quarry" / f"{i}.tif", PIXELS, place=(400_000 + 700 * i, 5e6))
    with pytest.raises(
        TrainingError, match=r"'Quarry' is in only one of .* from elsewhere or `split` random"
    ):
        split_tiles(folder, validation_share=0.2, seed=0, method="location")


def test_pictures_have_no_location(folder):
    with pytest.raises(TrainingError, match=r"Field_0\.png is a picture and has no georeference"):
        split_tiles(folder, validation_share=0.2, seed=0, method="location")


def test_geotiffs_without_a_crs_have_no_location(tmp_path):
    write_tile(tmp_path / "Field" / "a.tif", PIXELS, place=None)
    with pytest.raises(TrainingError, match=r"a\.tif has no georeference \(no CRS\)"):
        split_tiles(tmp_path, validation_share=0.2, seed=0, method="location")


def test_an_unreadable_tile_is_left_to_whoever_loads_it(tmp_path):
    folder = make_multispectral(tmp_path, 10, size=8, bands=1)
    (folder / "Field" / "Field_3.tif").write_bytes(b"broken")
    split = split_tiles(folder, validation_share=0.2, seed=0, method="location")
    assert "Field/Field_3.tif" in split.train + split.validation


def kilometres(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Return the great-circle distance between two (longitude, latitude) places in degrees."""
    (x0, y0), (x1, y1) = (tuple(map(radians, place)) for place in (a, b))
    cosine = sin(y0) * sin(y1) + cos(y0) * cos(y1) * cos(x1 - x0)
    return 6371 * acos(max(-1.0, min(1.0, cosine)))


place = st.tuples(st.floats(-180, 180), st.floats(-70, 70))


@given(place, st.tuples(st.floats(-0.5, 0.5), st.floats(-0.3, 0.3)))
def test_a_block_is_never_wider_than_its_diagonal(here, step):
    there = (here[0] + step[0], here[1] + step[1])
    if block_of(*here) == block_of(*there):
        assert kilometres(here, there) < BLOCK_KM * 2**0.5 * 1.02
