"""A scene of one session: its files, its description, its picture and its run."""

import secrets
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException

from pipeline.app.picture import scene_picture
from pipeline.app.queue import Run, RunQueue
from pipeline.app.served_folder import check_inside
from pipeline.app.settings import offered_strides
from pipeline.app.uploads import MAX_SCENE_PIXELS, check_pixels, check_scene_file
from pipeline.classify import describe_scene
from pipeline.errors import LandcoverError, SceneError, UsageError
from pipeline.model.card import ModelCard
from pipeline.options import ClassifyOptions
from pipeline.scenes.scene import Scene, open_scene
from pipeline.tiles import TileGrid


@dataclass(eq=False)
class SessionScene:
    """A scene that a visitor uploaded or chose."""

    label: str
    """What the page calls it."""

    folder: Path
    """Holds its uploads, picture and map, and is removed with it."""

    source_folder: Path
    """Files of the scene must be inside this folder."""

    queue: RunQueue
    """Classifies it."""

    path: Path | None = None
    """What to open; None until a file is uploaded."""

    scene: Scene | None = None
    """As it was described last."""

    card: ModelCard | None = None
    """Of the model that it was described for."""

    version: int = 0
    """Counts its descriptions: each may assume something else about the pixels."""

    run: Run | None = None
    """The last time it was classified."""

    _description_lock: threading.Lock = field(default_factory=threading.Lock)
    _picture_lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def busy(self) -> bool:
        """Return whether it is being classified or is queued for it."""
        return self.run is not None and not self.run.finished

    @property
    def accepts_files(self) -> bool:
        """Return whether it consists of uploaded files."""
        return self.path is None or self.path.is_relative_to(self.folder)

    def close(self) -> None:
        """Cancel its run and remove its files."""
        if self.run:
            self.queue.cancel(self.run)
        shutil.rmtree(self.folder, ignore_errors=True)

    def uploaded_bytes(self) -> int:
        """Return the size of all uploaded files."""
        return sum(file.stat().st_size for file in self.source_folder.iterdir())

    def add_file(self, path: Path) -> None:
        """Make an uploaded file part of the scene; raises SceneError, and removes it, if it is unsuitable."""
        try:
            check_scene_file(path)
        except LandcoverError:
            path.unlink()
            raise
        files = sorted(self.source_folder.iterdir())
        # Several files are a folder of single bands.
        self.path = files[0] if len(files) == 1 else self.source_folder
        self.label = files[0].name if len(files) == 1 else f"{len(files)} files"

    def describe(self, card: ModelCard, options: ClassifyOptions) -> dict[str, Any]:
        """Return what `landcover info` says about the scene, and keep the scene for its picture."""
        if self.path is None:
            raise UsageError("The scene has no file yet: upload one.")
        with self._description_lock:
            scene = open_scene(self.path, card, options.scene)
            check_inside(scene, self.label, self.source_folder)
            check_pixels(scene.name, scene.width, scene.height, MAX_SCENE_PIXELS)
            description = describe_scene(str(self.path), card, options)
            self.scene, self.card, self.version = scene, card, self.version + 1
        notes = description.pop("notes")
        return {
            "label": self.label,
            "description": description,
            "notes": notes,
            "width": scene.width,
            "height": scene.height,
            "version": self.version,
            "bands": list(card.bands),
            "strides": [_describe_stride(scene, card, stride) for stride in offered_strides(card.tile_size)],
        }

    def picture(self) -> Path:
        """Return the file of the scene's picture, which is drawn once for each description."""
        with self._description_lock:
            scene, card, version = self.scene, self.card, self.version
        if scene is None or card is None:
            raise UsageError("The scene was not described yet.")
        path = self.folder / f"picture-{version}.webp"
        with self._picture_lock:
            if not path.exists():
                picture = scene_picture(scene, card)
                if not self.folder.exists():
                    raise SceneError("This scene was removed: load it again.")
                path.write_bytes(picture)
        return path

    def start(self, model: str, options: ClassifyOptions) -> Run:
        """Queue the scene for classification; its previous map is removed."""
        if self.scene is None or self.path is None:
            raise UsageError("The scene was not described yet.")
        if self.busy:
            raise HTTPException(409, "This scene is being classified already.")
        if self.run:
            shutil.rmtree(self.run.output, ignore_errors=True)
        output = self.folder / f"map-{secrets.token_hex(4)}"
        self.run = Run(str(self.path), self.label, model, options, output)
        self.queue.add(self.run)
        return self.run


def _describe_stride(scene: Scene, card: ModelCard, stride: int) -> dict[str, Any]:
    grid = TileGrid(scene.width, scene.height, card.tile_size, stride)
    return {
        "stride": stride,
        "metres": stride * abs(scene.transform.a),
        "tiles": grid.tile_count,
        "rows": grid.cell_rows,
        "cols": grid.cell_cols,
    }
