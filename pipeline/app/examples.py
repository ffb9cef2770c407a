"""Examples to start with, drawn by our own code: tiles of the synthetic scene, and that scene itself.

`python -m pipeline.app.examples` draws the tiles that ship again.
"""

import sys
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.scenes.synthetic import BANDS, Cover, SyntheticScene, make_scene, write_scene
from pipeline.values import DIGITAL_NUMBERS, EUROSAT_RGB_SCALING, NATURAL_COLOR

FOLDER = Path(__file__).with_name("static") / "examples"
TILE = 64
# The synthetic scene has no equally clear tile of herbaceous vegetation or permanent crops.
SHOWN = (
    *(Cover.FOREST, Cover.SEA_LAKE, Cover.ANNUAL_CROP, Cover.RESIDENTIAL),
    *(Cover.INDUSTRIAL, Cover.RIVER, Cover.PASTURE, Cover.HIGHWAY),
)


def example_files() -> list[Path]:
    """Return the tiles that ship, named after their classes, in the order to show them."""
    return [FOLDER / f"{class_name(cover)}.jpg" for cover in SHOWN]


def class_name(cover: Cover) -> str:
    """Return EuroSAT's name of a cover, such as AnnualCrop."""
    return "".join(word.capitalize() for word in cover.name.split("_"))


def draw_tiles(folder: Path = FOLDER) -> None:
    """Write a tile of each class shown, in EuroSAT's format: JPEG, reflectance 0-0.275 as 1-255."""
    scene = make_scene()
    folder.mkdir(parents=True, exist_ok=True)
    for cover in SHOWN:
        tile = _purest(scene, cover)[[BANDS.index(band) for band in NATURAL_COLOR]]
        values = EUROSAT_RGB_SCALING.to_value(tile / DIGITAL_NUMBERS).clip(*EUROSAT_RGB_SCALING.values)
        colors = np.rint(values).astype(np.uint8)
        picture = Image.fromarray(np.moveaxis(colors, 0, -1))
        picture.save(folder / f"{class_name(cover)}.jpg", quality=92, subsampling=0)


def _purest(scene: SyntheticScene, cover: Cover) -> npt.NDArray[np.uint16]:
    """Return the tile (B, 64, 64) with the largest share of a cover; among equals, the median in variety."""
    rows, cols = (length // TILE for length in scene.truth.shape)
    windows = [
        np.s_[row * TILE : (row + 1) * TILE, col * TILE : (col + 1) * TILE]
        for row, col in np.ndindex(rows, cols)
    ]
    share = [float((scene.truth[window] == cover).mean()) for window in windows]
    purest = [
        scene.pixels[:, *window] for window, part in zip(windows, share, strict=True) if part == max(share)
    ]
    return sorted(purest, key=lambda tile: float(tile.std(axis=(1, 2)).sum()))[len(purest) // 2]


class DemoScene:
    """The synthetic scene, drawn on the first request and then shared by all sessions."""

    def __init__(self, folder: Path, size: int = 1600) -> None:
        self.folder = folder
        self._size = size
        self._lock = threading.Lock()

    def file(self) -> Path:
        """Return the scene's file; takes some seconds the first time."""
        path = self.folder / "demo.tif"
        with self._lock:
            if not path.exists():
                self.folder.mkdir(exist_ok=True)
                write_scene(path, self._size)
        return path


if __name__ == "__main__":
    draw_tiles(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
