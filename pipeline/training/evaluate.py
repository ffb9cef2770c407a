"""Measuring a network on labelled tiles: predictions, accuracy, per-class scores, calibration."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import nn
from tqdm import tqdm

from pipeline.errors import TrainingError
from pipeline.model.bundle import Bundle
from pipeline.predictor import Predictor
from pipeline.radiometry import PixelTransform
from pipeline.training.dataset import TileSet, load_tiles


@dataclass(frozen=True)
class Evaluation:
    """Predictions on labelled tiles: `probabilities` (N, C) float32, `labels` (N,) int64."""

    probabilities: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def predicted(self) -> np.ndarray:
        """Return the (N,) indices of the most probable classes."""
        return self.probabilities.argmax(axis=1)

    @property
    def accuracy(self) -> float:
        """Return the share of tiles whose most probable class is the label."""
        return float((self.predicted == self.labels).mean())

    @property
    def calibration_error(self) -> float:
        """Return the expected calibration error over 15 bins (Guo et al. 2017, equation 3)."""
        confidence = self.probabilities.max(axis=1)
        correct = self.predicted == self.labels
        bins = np.minimum((confidence * 15).astype(int), 14)
        gaps = [
            (bins == b).mean() * abs(correct[bins == b].mean() - confidence[bins == b].mean())
            for b in np.unique(bins)
        ]
        return float(sum(gaps))

    def confusion(self) -> np.ndarray:
        """Return the (C, C) counts, a row a true class, a column a predicted one."""
        return confusion_matrix(self.labels, self.predicted, labels=range(len(self.classes)))

    def summary(self) -> dict[str, Any]:
        """Return all scores as plain values for JSON."""
        precision, recall, f1, support = precision_recall_fscore_support(
            self.labels, self.predicted, labels=range(len(self.classes)), zero_division=0.0
        )
        return {
            "tiles": len(self.labels),
            "accuracy": round(self.accuracy, 5),
            "expected_calibration_error": round(self.calibration_error, 5),
            "classes": {
                name: {
                    "precision": round(float(precision[i]), 4),
                    "recall": round(float(recall[i]), 4),
                    "f1": round(float(f1[i]), 4),
                    "tiles": int(support[i]),
                }
                for i, name in enumerate(self.classes)
            },
        }


def evaluate_bundle(bundle: Bundle, folder: Path, names: Sequence[str] | None = None) -> Evaluation:
    """Classify the named tiles (default: all) of a folder of class folders with a bundle.

    Raises TrainingError if a class folder's name is none of the model's classes, or the tiles have
    another size than the model's.
    """
    return evaluate_tiles(bundle, load_tiles(folder, names))


def evaluate_tiles(bundle: Bundle, tiles: TileSet) -> Evaluation:
    """Classify tiles in memory with a bundle, as `classify` would; labels are numbered as its classes are.

    Raises TrainingError if a class is none of the model's, or the tiles have another size.
    """
    known = tuple(c.name for c in bundle.card.classes)
    if unknown := sorted(set(tiles.classes) - set(known)):
        raise TrainingError(f"'{unknown[0]}' is none of the model's classes ({', '.join(known)}).")
    if tiles.images.shape[-1] != bundle.card.tile_size:
        raise TrainingError(
            f"The tiles are {tiles.images.shape[-1]} pixels wide; the model takes {bundle.card.tile_size}."
        )
    if len(bundle.card.bands) != tiles.images.shape[1]:
        raise TrainingError(
            f"The tiles have {tiles.images.shape[1]} bands; the model takes {len(bundle.card.bands)} "
            f"({', '.join(bundle.card.bands)})."
        )
    labels = torch.tensor([known.index(name) for name in tiles.classes])[tiles.labels]
    predictor = Predictor(bundle.load_network(), bundle.card)
    as_they_are = PixelTransform.identity(len(bundle.card.bands))
    probabilities = predictor.predict_tiles(tiles.images.numpy(), as_they_are)
    return Evaluation(probabilities, labels.numpy(), known, tiles.names)


@torch.no_grad()
def predict_logits(
    network: nn.Module, tiles: TileSet, mean: torch.Tensor, std: torch.Tensor, *, batch_size: int
) -> torch.Tensor:
    """Return the network's `(N, C)` float32 output for all tiles; the network is left in evaluation mode."""
    network.eval()
    device = next(network.parameters()).device
    outputs = []
    for images in _batches(tiles, batch_size):
        x = (images.to(device).float() - mean.to(device)) / std.to(device)
        outputs.append(network(x.contiguous(memory_format=torch.channels_last)).float().cpu())
    return torch.cat(outputs)


def _batches(tiles: TileSet, batch_size: int) -> Iterator[torch.Tensor]:
    for start in tqdm(range(0, len(tiles), batch_size), "evaluating", disable=None, leave=False):
        yield tiles.images[start : start + batch_size]


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the softmax temperature with the least cross-entropy (Guo et al. 2017, section 4.2).

    It stays within 1/20 to 20: where every tile is right the least would be at 0, where all is chance
    at infinity.
    """
    limit = math.log(20)
    log_temperature = torch.zeros(1, requires_grad=True)
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
