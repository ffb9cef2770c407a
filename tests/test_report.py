"""The report beside a model: files that are there, whole, and say what was measured."""

import json

import numpy as np
import pytest
import torch
from made_tiles import make_tiles
from PIL import Image

from pipeline.errors import OutputError
from pipeline.training import report
from pipeline.training.dataset import TileSet, load_tiles
from pipeline.training.evaluate import Evaluation
from pipeline.training.report import write_report

CLASSES = ("Field", "Forest", "Water")
HISTORY = """epoch,size,learning_rate,train_loss,train_accuracy,seconds,validation_loss,validation_accuracy
1,32,0.01,1.5,0.4,3.0,,
2,32,0.01,1.0,0.7,3.0,0.9,0.75
3,64,0.0,0.8,0.8,9.0,0.7,0.85
"""


def made_up(n: int, wrong: int) -> tuple[Evaluation, TileSet]:
    """Return `n` tiles of which the first `wrong` are classified wrongly, ever less confidently."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, n)
    probabilities = np.full((n, 3), 0.02, np.float32)
    probabilities[np.arange(n), labels] = 0.96
    for i in range(wrong):
        probabilities[i] = (1 - (0.95 - 0.01 * i)) / 2
        probabilities[i, (labels[i] + 1) % 3] = 0.95 - 0.01 * i
    names = tuple(f"{CLASSES[label]}/{i}.png" for i, label in enumerate(labels))
    images = torch.from_numpy(rng.integers(0, 255, (n, 3, 32, 32), dtype=np.uint8))
    return Evaluation(probabilities, labels, CLASSES, names), TileSet(
        images, torch.tensor(labels), CLASSES, names
    )


def texts_of(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


@pytest.fixture
def history(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text(HISTORY)
    return path


def test_all_files_appear_and_are_pictures(tmp_path, history):
    evaluation, tiles = made_up(60, wrong=20)
    output = tmp_path / "report"
    output.mkdir()
    write_report(output, history, evaluation, tiles)
    assert sorted(path.name for path in output.iterdir()) == [
        "accuracy_loss.png",
        "confusion_matrix.png",
        "report.json",
        "sample_predictions.png",
    ]
    assert json.loads((output / "report.json").read_text()) == evaluation.summary()
    for path in output.glob("*.png"):
        with Image.open(path) as image:
            image.load()
            assert min(image.size) > 300


@pytest.mark.parametrize(("n", "wrong"), [(1, 0), (1, 1), (5, 2), (40, 0)])
def test_few_tiles_or_no_mistakes_and_no_history_are_fine(tmp_path, n, wrong):
    write_report(tmp_path, None, *made_up(n, wrong))
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".png", ".png"]


def test_the_most_confident_mistakes_come_first():
    evaluation, tiles = made_up(100, wrong=30)
    panels = report._plot_samples(evaluation, tiles).subfigs
    assert [panel.get_suptitle() for panel in panels] == ["Drawn at random", "The most confident mistakes"]
    titles = [axes.get_title() for axes in panels[1].axes]
    assert len(titles) == report.COLUMNS * report.MISTAKE_ROWS
    for i, title in enumerate(titles):
        predicted, true = (CLASSES[which[i]] for which in (evaluation.predicted, evaluation.labels))
        assert title == f"{predicted} {95 - i}%\ntrue: {true}"


def test_the_pictures_are_the_tiles_named(tmp_path):
    evaluation, tiles = made_up(20, wrong=3)
    axes = report._plot_samples(evaluation, tiles).subfigs[1].axes[0]
    assert np.array_equal(axes.images[0].get_array(), tiles.images[0].permute(1, 2, 0))


def test_curves_are_those_of_the_history(history):
    accuracy, loss = report._plot_history(history).axes
    training, validation = accuracy.get_lines()[:2]
    assert training.get_xydata().tolist() == [[1, 0.4], [2, 0.7], [3, 0.8]]
    assert validation.get_xydata().tolist() == [[2, 0.75], [3, 0.85]]
    assert loss.get_lines()[1].get_xydata().tolist() == [[2, 0.9], [3, 0.7]]
    assert accuracy.get_lines()[2].get_xdata() == [2.5, 2.5]  # where the pieces grow


def test_the_confusion_matrix_shows_counts(tmp_path):
    evaluation, _ = made_up(50, wrong=10)
    shown = texts_of(report._plot_confusion(evaluation))
    for count in evaluation.confusion().diagonal():
        assert str(count) in shown
    assert "50 tiles, accuracy 80.00%" in shown


def test_tiles_read_once_are_evaluated_and_reported_into_a_new_folder(tmp_path):
    tiles = load_tiles(make_tiles(tmp_path / "tiles", 3))
    evaluation = Evaluation(
        np.eye(3, dtype=np.float32)[tiles.labels], tiles.labels.numpy(), CLASSES, tiles.names
    )
    write_report(tmp_path / "new" / "report", None, evaluation, tiles)
    assert json.loads((tmp_path / "new" / "report" / "report.json").read_text())["accuracy"] == 1


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="report cannot be written"):
        write_report(tmp_path / "file" / "report", None, *made_up(5, 1))
