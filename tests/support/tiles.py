"""Labelled tiles made by code: coloured noise, easy to tell apart, as pictures and as GeoTIFFs."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from rasterio.transform import from_origin

# What trains on them in a second.
TINY_RECIPE = """
name: tiny
architecture: resnet18
stages: [{epochs: 1, size: 32}]
batch_size: 8
ema_decay: 0.5
"""

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


def make_multispectral(
    folder: Path, per_class: int = 10, size: int = 32, bands: int = 13, classes: Sequence[str] = tuple(COLORS)
) -> Path:
    """Write `folder/Class/Class_N.tif` and return the folder.

    Digital numbers of band b (from 0) are 1000 b plus 100 for each class, and a little noise. Tile N of
    every class lies at the same place, 100 km east of tile N - 1, in UTM zone 33.
    """
    rng = np.random.default_rng(0)
    for c, name in enumerate(classes):
        for i in range(per_class):
            pixels = (
                1000 * np.arange(bands)[:, None, None] + 100 * c + rng.integers(0, 10, (bands, size, size))
            )
            write_tile(
                folder / name / f"{name}_{i}.tif",
                pixels.astype(np.uint16),
                place=(400_000 + i * 100_000, 5e6),
            )
    return folder


def write_tile(
    path: Path,
    pixels: np.ndarray,
    descriptions: Sequence[str] = (),
    place: tuple[float, float] | None = (400_000, 5e6),
    crs: str = "EPSG:32633",
) -> Path:
    """Write a (B, H, W) array as a GeoTIFF tile of 10 m pixels with its upper left corner at `place`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = pixels.shape
    ground = {"crs": crs, "transform": from_origin(*place, 10, 10)} if place else {}
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=pixels.dtype, **ground
    ) as dataset:
        dataset.write(pixels)
        for i, text in enumerate(descriptions):
            dataset.set_band_description(i + 1, text)
    return path


def write_split(folder: Path, train: list[str], validation: list[str], report: Sequence[str] = ()) -> None:
    """Write the split files; `split-report.txt` only if there are tiles to report on."""
    parts = {"train": train, "val": validation} | ({"report": report} if report else {})
    for part, names in parts.items():
        (folder / f"split-{part}.txt").write_text("\n".join(names) + "\n")


def class_counts(names: Iterable[str]) -> Counter[str]:
    """Return how many of the tiles `Class/file` are of each class."""
    return Counter(name.split("/")[0] for name in names)
