"""Calibration against hand-made numbers, and temperatures that are known."""

import numpy as np
import pytest
import torch

from pipeline.training.calibration import calibrate, cross_entropy, fit_temperature, reliability

# Confidence 0.9 twice (one of them right), 0.8 (right), 0.7 (wrong) and 0.6 (right).
PROBABILITIES = np.array(
    [[0.9, 0.1, 0.0], [0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.6, 0.3], [0.0, 0.1, 0.9]], np.float32
)
LABELS = np.array([0, 0, 0, 1, 1])


def honest_logits(n: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits of just the right confidence, and labels drawn as they say."""
    torch.manual_seed(seed)
    logits = torch.randn(n, classes) * 2
    return logits, torch.distributions.Categorical(logits=logits).sample()


def test_the_error_is_the_gap_of_confidence_and_accuracy():
    expected = (2 * abs(0.5 - 0.9) + abs(1 - 0.8) + abs(0 - 0.7) + abs(1 - 0.6)) / 5
    assert reliability(PROBABILITIES, LABELS).error == pytest.approx(expected, abs=1e-6)


def test_bins_hold_every_tile_once_and_empty_ones_say_nothing():
    bins = reliability(PROBABILITIES, LABELS)
    assert bins.tiles.sum() == 5
    assert np.isnan(bins.accuracy[bins.tiles == 0]).all()
    full = bins.to_json()["bins"]
    assert [b["tiles"] for b in full] == [1, 1, 1, 2]
    assert full[-1] == {"tiles": 2, "confidence": 0.9, "accuracy": 0.5}


def test_sure_and_right_is_no_error():
    assert reliability(np.eye(2, dtype=np.float32), np.array([0, 1])).error == 0


def test_cross_entropy_of_the_right_classes():
    expected = -np.log([0.9, 0.8, 0.2, 0.6, 0.1]).mean()
    assert cross_entropy(PROBABILITIES, LABELS) == pytest.approx(expected, abs=1e-6)
    assert np.isfinite(cross_entropy(np.array([[1.0, 0.0]], np.float32), np.array([1])))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_known_temperature_is_recovered(temperature):
    logits, labels = honest_logits(20_000, 5)
    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.03)


@pytest.mark.parametrize("scale", [5.0, 500.0, -5.0, -500.0, 0.0])
def test_temperature_stays_finite_where_all_is_right_or_wrong(scale):
    labels = torch.arange(30) % 3
    logits = scale * torch.nn.functional.one_hot(labels, 3).float()
    assert 0.049 < fit_temperature(logits, labels) < 20.01


def test_before_is_without_temperature_and_after_is_as_given():
    logits, labels = honest_logits(5_000, 4)
    given = (logits * 3 / 2).softmax(dim=1).numpy()  # thrice too sure, and cooled by 2
    calibration = calibrate(given, labels.numpy(), temperature=2.0)
    hot = reliability((logits * 3).softmax(dim=1).numpy(), labels.numpy())
    assert calibration.before.error == pytest.approx(hot.error, abs=1e-4)
    assert calibration.after.error == reliability(given, labels.numpy()).error
    assert calibration.before.error > calibration.after.error + 0.05
    assert calibration.after.error > 0.05 > 0.03 > calibration.cross_fitted.error
    assert calibration.cross_temperatures == pytest.approx((3, 3), rel=0.1)


def test_each_half_is_measured_at_the_temperature_of_the_other():
    """One tile, right or wrong, is alone in its half: its own temperature would be at a limit."""
    two = np.array([[0.9, 0.1], [0.8, 0.2]], np.float32)
    calibration = calibrate(two, np.array([0, 1]), 1.0)  # the first right, the second wrong
    assert min(calibration.cross_temperatures) < 0.2
    assert max(calibration.cross_temperatures) == pytest.approx(20)
    # So the right tile gets next to no confidence, and the wrong one all there is.
    assert calibration.cross_fitted.error == pytest.approx(((1 - 0.527) + 1) / 2, abs=0.01)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_tiles_are_fine(n):
    calibration = calibrate(PROBABILITIES[:n], LABELS[:n], 1.0)
    assert calibration.cross_fitted.tiles.sum() == n
    assert calibration.errors().keys() == {"before", "after", "cross_fitted"}
