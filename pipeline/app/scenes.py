"""A scene that a visitor looks at: described, drawn, classified, and gone when they go."""

import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.app.folder import check_borders
from pipeline.app.picture import scene_picture
from pipeline.app.runs import Run, RunQueue
from pipeline.app.uploads import MAX_SCENE_PIXELS, check_pixels
from pipeline.classify import describe_scene
from pipeline.errors import SceneError, UsageError
from pipeline.model.card import ModelCard
from pipeline.options import ClassifyOptions
from pipeline.scenes.scene import Scene, open_scene
from pipeline.tiles import TileGrid

STRIDES = (64, 32, 16, 8)


@dataclass(eq=False)
class VisitorScene:
    """A scene that a visitor looks at. `folder` is its own and goes with it; `path` what to open.

    Files of the scene must lie in `borders`. `looks` counts how often it was described, each time maybe with
    other assumptions about its pixels; `card` is the model's that it was described for.
    """

    label: str
    folder: Path
    borders: Path
    queue: RunQueue
    path: Path | None = None
    scene: Scene | None = None
    card: ModelCard | None = None
    looks: int = 0
    run: Run | None = None
    looking: threading.Lock = field(default_factory=threading.Lock)
    drawing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def busy(self) -> bool:
        """Tell whether it is being classified, or waits for it."""
        return self.run is not None and not self.run.finished

    def close(self) -> None:
        """End what is going on with it, and remove its files."""
        if self.run:
            self.queue.cancel(self.run)
        shutil.rmtree(self.folder, ignore_errors=True)

    def look(self, card: ModelCard, options: ClassifyOptions) -> dict[str, Any]:
        """Return what `info` says of the scene, and remember it for the picture."""
        if self.path is None:
            raise UsageError("The scene has no file yet: send one.")
        with self.looking:
            scene = open_scene(self.path, card, options.scene)
            check_borders(scene, self.label, self.borders)
            check_pixels(scene.name, scene.width, scene.height, MAX_SCENE_PIXELS)
            description = describe_scene(str(self.path), card, options)
            self.scene, self.card, self.looks = scene, card, self.looks + 1
        notes = description.pop("notes")
        return {
            "label": self.label,
            "description": description,
            "notes": notes,
            "width": scene.width,
            "height": scene.height,
            "look": self.looks,
            "bands": list(card.bands),
            "strides": [_stride(scene, card, stride) for stride in STRIDES if stride <= card.tile_size],
        }

    def picture(self) -> Path:
        """Return the file of the scene's picture; drawn once for each look."""
        with self.looking:
            scene, card, path = self.scene, self.card, self.folder / f"picture-{self.looks}.webp"
        if scene is None or card is None:
            raise UsageError("The scene was not looked at yet.")
        with self.drawing:
            if not path.exists():
                picture = scene_picture(scene, card)
                if not self.folder.exists():
                    raise SceneError("This scene is gone: load it again.")
                path.write_bytes(picture)
        return path


def _stride(scene: Scene, card: ModelCard, stride: int) -> dict[str, Any]:
    grid = TileGrid(scene.width, scene.height, card.tile_size, stride)
    return {
        "stride": stride,
        "metres": stride * abs(scene.transform.a),
        "tiles": grid.tile_count,
        "rows": grid.cell_rows,
        "columns": grid.cell_cols,
    }
