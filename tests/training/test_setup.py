"""What cannot be trained on, or not with this recipe, is refused before the first epoch."""

import logging
from dataclasses import replace

import pytest

import pipeline.training.setup as preparing
from pipeline.errors import ModelError, OutputError, TrainingError
from pipeline.options import TrainOptions
from pipeline.training.augment import AugmentOptions
from pipeline.training.recipe import Stage
from pipeline.training.train import train
from pipeline.values import Scaling
from tests.support.tiles import make_multispectral, make_tiles, write_split
from tests.support.training import ONE_EPOCH, RECIPE

pytestmark = pytest.mark.usefixtures("tiny_training")


def test_report_tiles_that_the_initial_weights_know_are_warned_of(tiles, tmp_path, three_parts, caplog):
    train(tiles, RECIPE, tmp_path / "first")
    training, validation, report = three_parts
    write_split(tiles, [*training[1:], *report], validation, training[:1])
    train(tiles, replace(RECIPE, initial_weights=str(tmp_path / "first"), **ONE_EPOCH), tmp_path / "second")
    assert "trained on or chosen by 1 of the 1 tiles to report on" in caplog.text


def test_other_report_tiles_are_other_tiles_to_resume_with(tiles, tmp_path, three_parts):
    train(tiles, replace(RECIPE, **ONE_EPOCH), tmp_path)
    write_split(tiles, *three_parts[:2], three_parts[2][1:])
    with pytest.raises(TrainingError, match="started with other tiles"):
        train(tiles, replace(RECIPE, **ONE_EPOCH), tmp_path, TrainOptions(resume=True))
    (tiles / "split-report.txt").unlink()
    with pytest.raises(TrainingError, match="started with other tiles"):
        train(tiles, replace(RECIPE, **ONE_EPOCH), tmp_path, TrainOptions(resume=True))


def test_an_unreadable_tile_is_named_or_left_out_of_the_split(tmp_path):
    tiles = make_tiles(tmp_path / "tiles", per_class=40)
    (tiles / "Water" / "Water_7.png").write_bytes(b"no picture")
    with pytest.raises(TrainingError, match=r"Water_7\.png cannot be read"):
        train(tiles, replace(RECIPE, **ONE_EPOCH), tmp_path / "run")
    train(tiles, replace(RECIPE, **ONE_EPOCH), tmp_path / "run", TrainOptions(skip_unreadable=True))
    split = (tmp_path / "run" / "split-train.txt").read_text() + (
        tmp_path / "run" / "split-val.txt"
    ).read_text()
    assert len(split.split()) == 119
    assert "Water_7.png" not in split


def test_a_class_missing_from_validation_is_named(tmp_path):
    tiles = make_tiles(tmp_path / "tiles", 10)
    names = sorted(str(path.relative_to(tiles)) for path in tiles.glob("*/*.png"))
    validation = [name for name in names if name.endswith("_1.png") and not name.startswith("Water")]
    write_split(tiles, [name for name in names if name not in validation], validation)
    with pytest.raises(TrainingError, match="class 'Water' is in only one of training and validation"):
        train(tiles, RECIPE, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 100}, "90 training tiles do not fill a batch of 100"),
        ({"bands": ("B04", "B03", "B02", "B08")}, "B04, B03, B02, B08 are wanted"),
        ({"stages": (Stage(2, 64),)}, "a stage at 64 pixels; the tiles are 32 pixels wide"),
        ({"augment": AugmentOptions(max_shift=32)}, "max_shift must be less than the tiles' width, 32"),
    ],
)
def test_a_recipe_that_the_tiles_do_not_suit_is_reported(tiles, tmp_path, changes, message):
    with pytest.raises(TrainingError, match=message):
        train(tiles, replace(RECIPE, **changes), tmp_path)


def test_a_constant_band_is_named(tmp_path):
    tiles = make_multispectral(tmp_path / "tiles", per_class=24)
    recipe = replace(RECIPE, bands=("B02", "B03", "B12"), scaling=Scaling((0, 1), (0, 10_000)))
    with pytest.raises(TrainingError, match="band B12 is 10000 everywhere in the training tiles"):
        train(tiles, recipe, tmp_path / "run")


def test_one_class_alone_is_refused(tmp_path):
    tiles = make_tiles(tmp_path / "tiles", 40, colors={"Forest": (50, 110, 60)})
    with pytest.raises(TrainingError, match="There are 1 classes"):
        train(tiles, RECIPE, tmp_path / "run")


def test_values_scaled_to_small_ones_are_standardised(tmp_path):
    """A band may vary by half a thousandth of its scale; to three decimals that would be nothing."""
    tiles = make_multispectral(tmp_path / "tiles", per_class=24)
    recipe = replace(RECIPE, bands=("B02", "B03", "B04"), scaling=Scaling((0, 20), (0, 1)), **ONE_EPOCH)
    card = train(tiles, recipe, tmp_path / "run", TrainOptions(offset=0)).card
    assert card.mean == pytest.approx((0.0055, 0.0105, 0.0155), abs=3e-4)
    assert all(0 < std < 1e-3 for std in card.std)


def test_a_missing_teacher_is_reported_before_tiles_are_read(tiles, tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "load_tiles", None)
    with pytest.raises(ModelError, match="No model 'techer'"):
        train(tiles, replace(RECIPE, teacher="techer"), tmp_path)


def test_averaging_over_more_steps_than_there_are_warns(tiles, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        train(tiles, replace(RECIPE, ema_decay=0.999, **ONE_EPOCH), tmp_path)
    assert "5 steps are too few for ema_decay 0.999" in caplog.text


def test_a_folder_that_cannot_be_made_is_reported(tiles, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="run cannot be written"):
        train(tiles, RECIPE, tmp_path / "file" / "run")
