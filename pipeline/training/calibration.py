"""How far a network's confidence can be believed: calibration error, reliability, temperature."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

BINS = 15
TEMPERATURE_LIMIT = 20.0


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy, in bins of equal width over 0 to 1.

    `tiles`, `confidence` (the mean) and `accuracy` hold a value a bin; empty bins hold 0 tiles and NaN.
    """

    tiles: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

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
    """Reliability at temperature 1 (`before`), at the model's own (`after`), and judged fairly.

    Training fits the temperature on its validation tiles: measured on those, `after` praises itself.
    `cross_fitted` cannot: each half of the tiles is measured at the temperature fitted on the other half
    (`cross_temperatures`).
    """

    temperature: float
    before: Reliability
    after: Reliability
    cross_temperatures: tuple[float, float]
    cross_fitted: Reliability

    def errors(self) -> dict[str, float]:
        """Return the three expected calibration errors."""
        return {name: round(getattr(self, name).error, 5) for name in ("before", "after", "cross_fitted")}

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
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
    """Measure the calibration of `probabilities` (N, C), which were given at `temperature`.

    Logits are not needed: their softmax at any other temperature follows from that at one.
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
    """Return the mean negative logarithm of the probability that was given to the right class."""
    return float(-_logarithm(probabilities)[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the softmax temperature with the least cross-entropy (Guo et al. 2017, section 4.2).

    It stays within 1/20 to 20: where every tile is right the least would be at 0, where all is chance
    at infinity. Without tiles it is 1.
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
    """Return the natural logarithm in float64; a probability that was rounded to 0 counts as 1e-38."""
    return np.log(np.maximum(probabilities.astype(np.float64), 1e-38))


def _softmax(logits: np.ndarray) -> np.ndarray:
    return torch.softmax(torch.from_numpy(logits), dim=1).numpy()
