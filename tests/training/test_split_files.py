"""Split files: read whole and disjoint, or refused."""

import pytest

from pipeline.errors import TrainingError
from pipeline.training.splits import split_tiles
from tests.support.tiles import make_tiles, write_split


@pytest.fixture
def folder(tmp_path):
    return make_tiles(tmp_path / "tiles", size=8)


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


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "names no tile"),
        (["Field_0.png"], "'Field_0.png', which is not a Class/file name"),
        (["Field/Field_0.png", "Field/Field_0.png"], "names a tile twice"),
    ],
)
def test_odd_split_files_are_reported(folder, lines, message):
    write_split(folder, lines, ["Field/Field_1.png"])
    with pytest.raises(TrainingError, match=message):
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
