"""Scores against hand-made numbers, and bundles evaluated on folders of tiles."""

import numpy as np
import pytest
import torch
from made_tiles import make_tiles
from torch import nn

from pipeline import predictor
from pipeline.errors import TrainingError
from pipeline.model.bundle import ModelCard, Scaling, save_bundle
from pipeline.model.classes import number_classes
from pipeline.model.network import build_network
from pipeline.training.dataset import load_tiles
from pipeline.training.evaluate import (
    Evaluation,
    evaluate_bundle,
    evaluate_tiles,
    fit_temperature,
    predict_logits,
)

# Six tiles: A, A, A (one taken for B), B, B (one taken for C), C never right nor wrong: it has no tile.
PROBABILITIES = np.array(
    [[0.9, 0.1, 0.0], [0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.6, 0.3], [0.0, 0.1, 0.9]], np.float32
)
EVALUATION = Evaluation(PROBABILITIES, np.array([0, 0, 0, 1, 1]), ("A", "B", "C"), ("a", "b", "c", "d", "e"))


def test_accuracy_and_predictions():
    assert EVALUATION.predicted.tolist() == [0, 0, 1, 1, 2]
    assert EVALUATION.accuracy == pytest.approx(3 / 5)


def test_confusion_has_a_row_a_true_class():
    assert EVALUATION.confusion().tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 0]]


def test_summary_gives_the_scores_of_each_class():
    summary = EVALUATION.summary()
    assert summary["tiles"] == 5
    assert summary["accuracy"] == 0.6
    # A: 2 of 2 predicted are right, 2 of 3 found; B: 1 of 2, 1 of 2; C: 0 of 1, none to find.
    assert summary["classes"] == {
        "A": {"precision": 1.0, "recall": 0.6667, "f1": 0.8, "tiles": 3},
        "B": {"precision": 0.5, "recall": 0.5, "f1": 0.5, "tiles": 2},
        "C": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "tiles": 0},
    }


def test_calibration_error_is_the_gap_of_confidence_and_accuracy():
    # Bins of a fifteenth: confidence 0.9 twice (one right), 0.8, 0.7, 0.6 alone (right, wrong, right).
    expected = (2 * abs(0.5 - 0.9) + abs(1 - 0.8) + abs(0 - 0.7) + abs(1 - 0.6)) / 5
    assert EVALUATION.calibration_error == pytest.approx(expected, abs=1e-6)


def test_calibration_error_of_sure_and_right_is_zero():
    sure = Evaluation(np.eye(2, dtype=np.float32), np.array([0, 1]), ("A", "B"), ("a", "b"))
    assert sure.calibration_error == 0


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_known_temperature_is_recovered(temperature):
    torch.manual_seed(0)
    honest = torch.randn(20_000, 5) * 2
    labels = torch.distributions.Categorical(logits=honest).sample()
    assert fit_temperature(honest * temperature, labels) == pytest.approx(temperature, rel=0.03)


def test_temperature_leaves_predictions_and_mends_calibration():
    torch.manual_seed(1)
    honest = torch.randn(5_000, 4) * 1.5
    labels = torch.distributions.Categorical(logits=honest).sample()
    overconfident = honest * 3
    cooled = overconfident / fit_temperature(overconfident, labels)

    def evaluate(logits):
        return Evaluation(logits.softmax(dim=1).numpy(), labels.numpy(), tuple("ABCD"), ("",) * 5_000)

    assert np.array_equal(evaluate(cooled).predicted, evaluate(overconfident).predicted)
    assert evaluate(cooled).calibration_error < 0.03 < 0.1 < evaluate(overconfident).calibration_error


@pytest.mark.parametrize("scale", [5.0, 500.0, -5.0, -500.0, 0.0])
def test_temperature_stays_finite_where_all_is_right_or_wrong(scale):
    labels = torch.arange(30) % 3
    logits = scale * torch.nn.functional.one_hot(labels, 3).float()
    assert 0.049 < fit_temperature(logits, labels) < 20.01


def test_temperature_can_be_fitted_to_what_prediction_returns(tmp_path):
    """Tensors made in inference mode could not be: they cannot take part in a gradient."""
    tiles = load_tiles(make_tiles(tmp_path / "tiles", 4))
    network = build_network("resnet18", bands=3, classes=3)
    zero, one = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
    assert fit_temperature(predict_logits(network, tiles, zero, one, batch_size=5), tiles.labels) > 0


class BandMeans(nn.Module):
    """Its logits are the means of the bands."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x.mean(dim=(2, 3)) * self.weight


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_every_tile_is_predicted_once_in_order_and_standardised(tmp_path, batch_size):
    tiles = load_tiles(make_tiles(tmp_path / "tiles", 4))
    mean, std = (
        torch.tensor([10.0, 20, 30]).reshape(1, 3, 1, 1),
        torch.tensor([2.0, 4, 8]).reshape(1, 3, 1, 1),
    )
    logits = predict_logits(BandMeans(), tiles, mean, std, batch_size=batch_size)
    torch.testing.assert_close(logits, ((tiles.images.float() - mean) / std).mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Return an untrained model of four classes, of which the tiles have three."""
    card = ModelCard(
        name="untrained",
        architecture="resnet18",
        head="linear",
        bands=("B04", "B03", "B02"),
        level="l1c",
        scaling=Scaling((0.0, 0.275), (1.0, 255.0)),
        mean=(90.0, 90.0, 90.0),
        std=(40.0, 40.0, 40.0),
        tile_size=32,
        gsd=10.0,
        classes=number_classes(["Bog", "Field", "Forest", "Water"]),
        temperature=2.0,
    )
    torch.manual_seed(0)
    return save_bundle(
        build_network("resnet18", bands=3, classes=4), card, tmp_path_factory.mktemp("m") / "untrained"
    )


def test_labels_are_numbered_as_the_models_classes_are(bundle, tmp_path):
    evaluation = evaluate_bundle(bundle, make_tiles(tmp_path / "tiles", 5))
    assert evaluation.classes == ("Bog", "Field", "Forest", "Water")
    assert evaluation.labels.tolist() == [1] * 5 + [2] * 5 + [3] * 5
    assert evaluation.names[0] == "Field/Field_0.png"
    assert evaluation.confusion().shape == (4, 4)


def test_probabilities_are_those_of_the_calibrated_network(bundle, tmp_path, monkeypatch):
    # The precision that is fastest differs from processor to processor; this is about the rest.
    monkeypatch.setattr(predictor, "find_precision", lambda wish, device: torch.float32)
    tiles = load_tiles(make_tiles(tmp_path / "tiles", 3))
    probabilities = evaluate_tiles(bundle, tiles).probabilities
    with torch.no_grad():
        logits = bundle.load_network()((tiles.images.float() - 90) / 40)
    np.testing.assert_allclose(probabilities, (logits / 2).softmax(dim=1), atol=1e-5)
    assert probabilities.dtype == np.float32


def test_named_tiles_alone_are_evaluated(bundle, tmp_path):
    folder = make_tiles(tmp_path / "tiles", 5)
    evaluation = evaluate_bundle(bundle, folder, ["Water/Water_1.png", "Forest/Forest_0.png"])
    assert evaluation.labels.tolist() == [3, 2]


def test_a_class_folder_that_the_model_does_not_know_is_named(bundle, tmp_path):
    folder = make_tiles(tmp_path / "tiles", 2, colors={"Forest": (0, 90, 0), "Lava": (200, 30, 0)})
    with pytest.raises(TrainingError, match=r"'Lava' is none of the model's classes \(Bog, Field"):
        evaluate_bundle(bundle, folder)


def test_tiles_of_another_size_are_refused(bundle, tmp_path):
    with pytest.raises(TrainingError, match="tiles are 16 pixels wide; the model takes 32"):
        evaluate_bundle(bundle, make_tiles(tmp_path / "tiles", 2, size=16))
