"""How well a network's confidence matches its accuracy: calibration error, reliability, temperature."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

BINS = 15
"""Of confidence, from 0 to 1."""

TEMPERATURE_LIMIT = 20.0
"""Fitted temperatures stay within 1/20 to 20."""


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy, in bins of confidence that are equally wide."""

    tiles: np.ndarray
    """(bins,): how many tiles are in each."""

    confidence: np.ndarray
    """(bins,): the mean of each; NaN where it is empty."""

    accuracy: np.ndarray
    """(bins,): the accuracy in each; NaN where it is empty."""

    @property
    def error(self) -> float:
        """Return the expected calibration error (Guo et al. 2017, equation 3), from 0 to 1."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.nansum(self.tiles / self.tiles.sum() * gaps))

    def to_json(self) -> dict[str, Any]:
        """Return the error and the bins that hold tiles as plain values."""
        return {
            "expected_calibration_error": round(self.error, 5),
            "bins": [
                {"tiles": int(n), "confidence": round(float(c), 4), "accuracy": round(float(a), 4)}
                for n, c, a in zip(self.tiles, self.confidence, self.accuracy, strict=True)
                if n
            ],
        }


@dataclass(frozen=True)
class Calibration:
    """Reliability without and with the model's temperature.

    Training fits the temperature on the validation tiles, so `after` is too good when measured on those;
    `cross_fitted` is fair on any tiles.
    """

    temperature: float
    """The model's."""

    before: Reliability
    """At temperature 1."""

    after: Reliability
    """At the model's temperature."""

    cross_temperatures: tuple[float, float]
    """Fitted on each half of the tiles."""

    cross_fitted: Reliability
    """Each half of the tiles at the temperature fitted on the other half."""

    def errors(self) -> dict[str, float]:
        """Return the three expected calibration errors."""
        return {name: round(getattr(self, name).error, 5) for name in ("before", "after", "cross_fitted")}

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "temperature": self.temperature,
            "before": {"temperature": 1.0, **self.before.to_json()},
            "after": {"temperature": self.temperature, **self.after.to_json()},
            "cross_fitted": {
                "temperatures": [round(t, 4) for t in self.cross_temperatures],
                **self.cross_fitted.to_json(),
            },
        }


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> Reliability:
    """Bin the confidences, the largest of each row of `probabilities` (N, C), against `labels` (N,)."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    tiles = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        return Reliability(
            tiles,
            np.bincount(bins, confidence, BINS) / tiles,
            np.bincount(bins, correct, BINS) / tiles,
        )


def calibrate(
    probabilities: np.ndarray, labels: np.ndarray, temperature: float, seed: int = 0
) -> Calibration:
    """Measure the calibration of probabilities (N, C) that were computed at `temperature`.

    Logits are not needed: the softmax at one temperature determines that at every other.
    """
    logits = temperature * _logarithm(probabilities)
    halves = np.array_split(np.random.default_rng(seed).permutation(len(labels)), 2)
    fair, temperatures = np.empty_like(logits), []
    for fitted, measured in (halves, halves[::-1]):
        fit = fit_temperature(torch.from_numpy(logits[fitted]), torch.from_numpy(labels[fitted]))
        temperatures.append(fit)
        fair[measured] = _softmax(logits[measured] / fit)
    return Calibration(
        temperature=temperature,
        before=reliability(_softmax(logits), labels),
        after=reliability(probabilities, labels),
        cross_temperatures=(temperatures[0], temperatures[1]),
        cross_fitted=reliability(fair, labels),
    )


def cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean negative logarithm of the right class's probability."""
    return float(-_logarithm(probabilities)[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the softmax temperature with the lowest cross-entropy (Guo et al. 2017, section 4.2).

    It stays within 1/20 to 20, since the optimum is 0 if every tile is right and infinite if all is chance.
    Without tiles it is 1.
    """
    if not len(labels):
        return 1.0
    limit = math.log(TEMPERATURE_LIMIT)
    log_temperature = torch.zeros(1, dtype=logits.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def temperature() -> torch.Tensor:
        return log_temperature.clamp(-limit, limit).exp()

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(logits / temperature(), labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    return temperature().item()


def _logarithm(probabilities: np.ndarray) -> np.ndarray:
    """Return the natural logarithm in float64; a probability of 0 counts as 1e-38."""
    return np.log(np.maximum(probabilities.astype(np.float64), 1e-38))


def _softmax(logits: np.ndarray) -> np.ndarray:
    return torch.softmax(torch.from_numpy(logits), dim=1).numpy()
