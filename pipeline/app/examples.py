"""Examples to begin with, made by our own code: tiles cut from the made-up scene, and that scene itself.

`python -m pipeline.app.examples` draws the tiles that ship anew.
"""

import sys
import threading
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.scenes.synthetic import BANDS, Cover, SyntheticScene, make_scene, write_scene
from pipeline.values import DIGITAL_NUMBERS, EUROSAT_RGB_SCALING, NATURAL_COLOR

FOLDER = Path(__file__).with_name("static") / "examples"
TILE = 64
# Of herbs and orchards the made-up landscape has no tile that is as plain as these.
SHOWN = (
    *(Cover.FOREST, Cover.SEA_LAKE, Cover.ANNUAL_CROP, Cover.RESIDENTIAL),
    *(Cover.INDUSTRIAL, Cover.RIVER, Cover.PASTURE, Cover.HIGHWAY),
)


def example_files() -> list[Path]:
    """Return the tiles that ship, in the order to show them; they are named after their class."""
    return [FOLDER / f"{class_name(cover)}.jpg" for cover in SHOWN]


def class_name(cover: Cover) -> str:
    """Return EuroSAT's name of a cover: AnnualCrop."""
    return "".join(word.capitalize() for word in cover.name.split("_"))


def draw_tiles(folder: Path = FOLDER) -> None:
    """Write a tile of each class shown, as EuroSAT's are: JPEG, reflectance 0-0.275 as 1-255."""
    scene = make_scene()
    folder.mkdir(parents=True, exist_ok=True)
    for cover in SHOWN:
        tile = _purest(scene, cover)[[BANDS.index(band) for band in NATURAL_COLOR]]
        values = EUROSAT_RGB_SCALING.to_value(tile / DIGITAL_NUMBERS).clip(*EUROSAT_RGB_SCALING.values)
        colours = np.rint(values).astype(np.uint8)
        picture = Image.fromarray(np.moveaxis(colours, 0, -1))
        picture.save(folder / f"{class_name(cover)}.jpg", quality=92, subsampling=0)


def _purest(scene: SyntheticScene, cover: Cover) -> np.ndarray:
    """Return the pixels (B, 64, 64) of the tile with most of a cover; of several, one of middling variety."""
    rows, columns = (length // TILE for length in scene.truth.shape)
    places = [
        np.s_[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
        for row, column in np.ndindex(rows, columns)
    ]
    share = [float((scene.truth[place] == cover).mean()) for place in places]
    purest = [
        scene.pixels[:, *place] for place, part in zip(places, share, strict=True) if part == max(share)
    ]
    return sorted(purest, key=lambda tile: float(tile.std(axis=(1, 2)).sum()))[len(purest) // 2]


class DemoScene:
    """The made-up scene, drawn when somebody first asks for it and then everybody's."""

    def __init__(self, folder: Path, size: int = 1600):
        self.folder = folder
        self._size = size
        self._lock = threading.Lock()

    def file(self) -> Path:
        """Return the scene's file; takes seconds the first time."""
        path = self.folder / "demo.tif"
        with self._lock:
            if not path.exists():
                self.folder.mkdir(exist_ok=True)
                write_scene(path, self._size)
        return path


if __name__ == "__main__":
    draw_tiles(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
