"""Evaluations made up for the tests of the report."""

from dataclasses import replace

import numpy as np
import torch

from pipeline.model.classes import number_classes
from pipeline.training.dataset import TileSet
from pipeline.training.evaluate import Evaluation, TtaGain
from pipeline.training.page import Measurements
from pipeline.training.robustness import Condition, Outlier
from tests.support.cards import RGB_CARD

CLASSES = ("Field", "Forest", "Water")
CARD = replace(
    RGB_CARD, name="my-model", classes=number_classes(CLASSES), temperature=0.8, digest="sha256:ab"
)
MEASURED = Measurements(
    tta=TtaGain(0.91, 0.3, 0.02, 7.9),
    robustness=(Condition("soft", 60, 0.64, 0.66, 0.9), Condition("softer", 60, 0.6, 0.66, 0.8)),
    outliers=(Outlier("snow", 10, 0.75, 0.5, {"Water": 0.7, "Field": 0.3}),),
)
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
