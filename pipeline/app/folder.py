"""The folder that `root` names: what is below it may be looked at, and nothing else."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.batch.report import HTML_NAME
from pipeline.errors import SceneError
from pipeline.maps.outputs import file_name, is_output, suffixes
from pipeline.maps.record import RUN_ENDING
from pipeline.scenes.band_names import band_in_file_name
from pipeline.scenes.bands import RASTER_SUFFIXES
from pipeline.scenes.registry import recognise
from pipeline.scenes.scene import Scene

MAX_LISTED = 1_000  # of each kind
SCENE_SUFFIXES = (RASTER_SUFFIXES | {".zip"}) - {".png"}
# What a map's folder holds that a browser may be given.
SERVED = suffixes() | {".json", ".vrt", ".log"}


@dataclass
class Listing:
    """What lies in a folder; paths are relative to the root, with slashes.

    `is_scene` says that the folder's files are the bands of one; `left_out` how many more there are.
    """

    path: str
    folders: list[str] = field(default_factory=list)
    scenes: list[dict[str, Any]] = field(default_factory=list)
    maps: list[dict[str, str]] = field(default_factory=list)
    report: str | None = None
    is_scene: bool = False
    left_out: int = 0


class Root:
    """A folder to serve files from. Raises SceneError, as if it were not there, for what is not below it."""

    def __init__(self, folder: Path):
        self.folder = folder.resolve(strict=True)

    def find(self, path: str) -> Path:
        """Return the file or folder that a visitor means, free of links and `..`."""
        missing = SceneError(f"There is no file or folder {path} below the folder that is served.")
        if any(part.startswith(".") for part in Path(path).parts):  # hidden, or the way up
            raise missing
        try:
            found = (self.folder / path).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):  # absent, a NUL in it, a circle of links
            raise missing from None
        if not found.is_relative_to(self.folder):
            raise missing
        return found

    def holds(self, path: Path) -> bool:
        """Tell whether a path of ours leads to something below the root."""
        return path.resolve().is_relative_to(self.folder)

    def name(self, path: Path) -> str:
        """Return how visitors call what lies below the root."""
        return "" if path == self.folder else path.relative_to(self.folder).as_posix()

    def listing(self, path: str) -> Listing:
        """Say what lies in a folder: other folders, scenes, finished maps, a batch's report."""
        folder = self.find(path)
        if not folder.is_dir():
            raise SceneError(f"{path} is not a folder.")
        here = self.name(folder)
        listing = Listing(here)
        entries = sorted(
            (
                entry
                for entry in folder.iterdir()
                if not entry.name.startswith(".") and entry.exists() and self.holds(entry)
            ),
            key=lambda entry: entry.name.casefold(),
        )
        names = {entry.name for entry in entries}
        for entry in entries:
            address = f"{here}/{entry.name}".lstrip("/")
            if entry.name.endswith(RUN_ENDING):
                name = entry.name.removesuffix(RUN_ENDING)
                if file_name(name, "landcover") in names:
                    self._add(listing, listing.maps, {"name": name, "path": address})
            elif entry.is_dir() and not recognise(entry):
                self._add(listing, listing.folders, entry.name)
            elif entry.is_dir() or (entry.suffix.lower() in SCENE_SUFFIXES and not is_output(entry.name)):
                size = None if entry.is_dir() else entry.stat().st_size
                self._add(listing, listing.scenes, {"name": entry.name, "path": address, "bytes": size})
                listing.is_scene |= band_in_file_name(entry.stem) is not None
            elif entry.name == HTML_NAME:
                listing.report = address
        return listing

    @staticmethod
    def _add(listing: Listing, entries: list[Any], entry: Any) -> None:
        if len(entries) < MAX_LISTED:
            entries.append(entry)
        else:
            listing.left_out += 1


def check_borders(scene: Scene, name: str, folder: Path) -> None:
    """Raise SceneError if a scene reads files from outside of `folder`: a VRT may name any."""
    named = [file for layer in scene.layers for file in layer.files]
    named += [file for mask in scene.masks for file in mask.files]
    remote = [file for file in named if "://" in file or re.match(r"/vsi(?!zip/)", file)]
    inside = all(file.resolve().is_relative_to(folder) for file in scene.files)
    if remote or not inside or not scene.files:
        raise SceneError(f"{name} refers to files outside of the folder that is served: it was not read.")
