"""The report's pictures show what was measured."""

import numpy as np
import pytest

from pipeline.training import plots
from tests.support.evaluations import CLASSES, HISTORY, made_up


def texts_of(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


@pytest.fixture
def history(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text(HISTORY)
    return path


def test_the_picture_shows_truth_prediction_and_confidence():
    evaluation, tiles = made_up(100, wrong=30)
    panels = plots.plot_samples(evaluation, tiles).subfigs
    titles = [axes.get_title() for axes in panels[1].axes]
    for i, title in enumerate(titles):
        predicted, true = (CLASSES[which[i]] for which in (evaluation.predicted, evaluation.labels))
        assert title == f"{predicted} {95 - i}%\ntrue: {true}"


def test_the_pictures_are_the_tiles_named():
    evaluation, tiles = made_up(20, wrong=3)
    axes = plots.plot_samples(evaluation, tiles).subfigs[1].axes[0]
    assert np.array_equal(axes.images[0].get_array(), tiles.images[0].permute(1, 2, 0))


def test_curves_are_those_of_the_history(history):
    accuracy, loss = plots.plot_history(history).axes
    training, validation = accuracy.get_lines()[:2]
    assert training.get_xydata().tolist() == [[1, 0.4], [2, 0.7], [3, 0.8]]
    assert validation.get_xydata().tolist() == [[2, 0.75], [3, 0.85]]
    assert loss.get_lines()[1].get_xydata().tolist() == [[2, 0.9], [3, 0.7]]
    assert accuracy.get_lines()[2].get_xdata() == [2.5, 2.5]  # where the pieces grow


def test_the_confusion_matrix_shows_counts():
    evaluation, _ = made_up(50, wrong=10)
    shown = texts_of(plots.plot_confusion(evaluation))
    for count in evaluation.confusion().diagonal():
        assert str(count) in shown
    assert "50 tiles, accuracy 80.00%" in shown


def test_the_reliability_diagram_shows_all_three_errors():
    evaluation, _ = made_up(50, wrong=10)
    figure = plots.plot_reliability(evaluation)
    figure.draw_without_rendering()
    shown = " ".join(texts_of(figure))
    assert "$" not in shown
    for error in evaluation.calibration.errors().values():
        assert f"(error {error:.2%})" in shown
