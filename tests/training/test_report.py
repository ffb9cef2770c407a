"""The report beside a model: all of its files, whole."""

import json

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import OutputError
from pipeline.training.dataset import load_tiles
from pipeline.training.evaluate import Evaluation
from pipeline.training.report import write_report
from tests.support.evaluations import CARD, CLASSES, HISTORY, MEASURED, made_up
from tests.support.tiles import make_tiles


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return a folder with a report of all there is, on 60 tiles of which 20 are wrong."""
    output = tmp_path_factory.mktemp("report")
    (output / "history.csv").write_text(HISTORY)
    write_report(output, output / "history.csv", *made_up(60, wrong=20), CARD, MEASURED)
    return output


def test_all_files_appear_and_are_pictures(written):
    assert sorted(path.name for path in written.iterdir() if path.name != "history.csv") == [
        "accuracy_loss.png",
        "confusion_matrix.png",
        "reliability.png",
        "report.html",
        "report.json",
        "sample_predictions.png",
    ]
    for path in written.glob("*.png"):
        with Image.open(path) as image:
            image.load()
            assert min(image.size) > 300


def test_the_json_holds_all_that_was_measured(written):
    document = json.loads((written / "report.json").read_text())
    assert made_up(60, wrong=20)[0].summary().items() <= document.items()
    assert (document["model"], document["digest"]) == ("my-model", "sha256:ab")
    assert document["calibration"]["before"].keys() >= {"temperature", "expected_calibration_error", "bins"}
    assert document["test_time_augmentation"]["accuracy"] == 0.91
    assert [row["points_lost"] for row in document["robustness"]] == [2.0, 6.0]
    assert document["outliers"][0]["classes"] == {"Water": 0.7, "Field": 0.3}


@pytest.mark.parametrize(("n", "wrong"), [(1, 0), (5, 2), (5, 5)])
def test_few_tiles_or_no_mistakes_and_no_history_are_fine(tmp_path, n, wrong):
    write_report(tmp_path, None, *made_up(n, wrong), CARD)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".html", ".json", ".png", ".png", ".png"]


def test_tiles_read_once_are_evaluated_and_reported_into_a_new_folder(tmp_path):
    tiles = load_tiles(make_tiles(tmp_path / "tiles", 3))
    evaluation = Evaluation(
        np.eye(3, dtype=np.float32)[tiles.labels], tiles.labels.numpy(), CLASSES, tiles.names
    )
    write_report(tmp_path / "new" / "report", None, evaluation, tiles, CARD)
    assert json.loads((tmp_path / "new" / "report" / "report.json").read_text())["accuracy"] == 1


def test_a_folder_that_cannot_be_made_is_reported(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="report cannot be written"):
        write_report(tmp_path / "file" / "report", None, *made_up(5, 1), CARD)
