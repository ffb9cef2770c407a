"""A recipe that trains a tiny network in a second, and what a run leaves behind."""

import csv
from pathlib import Path

from pipeline.training.recipe import Recipe, Stage
from pipeline.values import Scaling

RECIPE = Recipe(
    name="tiny",
    architecture="tiny",
    stages=(Stage(1, 24), Stage(2, 32)),
    dropout=0.1,  # draws from the global random numbers, which a resumed run must find as they were
    optimizer="adamw",
    learning_rate=0.01,
    warmup_epochs=1,
    batch_size=16,
    ema_decay=0.8,
    validation_share=0.25,
    precision="float32",
    level="l2a",
    gsd=2.5,
    scaling=Scaling((0.0, 0.4), (0.0, 200.0)),
    license="CC-BY-4.0",
)
ONE_EPOCH = {"stages": (Stage(1, 32),), "warmup_epochs": 0}


def history_of(output: Path) -> list[dict[str, str]]:
    with (output / "history.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))
