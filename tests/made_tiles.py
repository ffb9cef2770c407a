"""Labelled tiles made by code: coloured noise, easy to tell apart."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

COLORS = {"Field": (150, 110, 60), "Forest": (50, 110, 60), "Water": (50, 70, 130)}


def make_tiles(
    folder: Path, per_class: int = 10, size: int = 32, colors: Mapping[str, tuple[int, int, int]] = COLORS
) -> Path:
    """Write `folder/Class/Class_N.png`, noise about each class's colour, and return the folder."""
    rng = np.random.default_rng(0)
    for name, color in colors.items():
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            pixels = np.clip(rng.normal(color, 30, (size, size, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{name}_{i}.png")
    return folder


def write_split(folder: Path, train: list[str], validation: list[str]) -> None:
    """Write the split files."""
    (folder / "split-train.txt").write_text("\n".join(train) + "\n")
    (folder / "split-val.txt").write_text("\n".join(validation) + "\n")
