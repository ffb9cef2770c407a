"""The folder that the app serves (`root`): listings, and paths that cannot lead out of it."""

from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.addresses import is_address, local_archive
from pipeline.batch.report import HTML_NAME
from pipeline.errors import SceneError
from pipeline.maps.outputs import file_name, suffixes
from pipeline.maps.own_files import is_own_file
from pipeline.maps.record import RUN_ENDING
from pipeline.scenes.band_names import band_in_file_name
from pipeline.scenes.bands import RASTER_SUFFIXES
from pipeline.scenes.registry import recognise
from pipeline.scenes.scene import Scene

MAX_LISTED = 1_000
"""Entries of each kind in one listing."""

SCENE_SUFFIXES = (RASTER_SUFFIXES | {".zip"}) - {".png"}

DOWNLOAD_SUFFIXES = suffixes() | {".json", ".vrt", ".log"}
"""Of the files in a map's folder that a browser may download."""


@dataclass
class Listing:
    """What is in a folder. Paths are relative to the served folder, with slashes."""

    path: str
    """The folder itself; empty for the served folder."""

    folders: list[str] = field(default_factory=list)
    """Names of subfolders."""

    scenes: list[dict[str, Any]] = field(default_factory=list)
    """name, path and bytes of each scene; bytes is None for a folder."""

    maps: list[dict[str, str]] = field(default_factory=list)
    """name and path (of the `run.json`) of each finished map."""

    report: str | None = None
    """The path of a batch's report."""

    is_scene: bool = False
    """Whether the files are single bands, so that the folder as a whole is a scene."""

    left_out: int = 0
    """How many entries are not listed because there are too many."""

    def add(self, entry: Path, path: str, siblings: Set[str]) -> None:
        """Add a file or folder under the kind that it is; other files are ignored."""
        if entry.name.endswith(RUN_ENDING):
            name = entry.name.removesuffix(RUN_ENDING)
            if file_name(name, "landcover") in siblings:
                self._append(self.maps, {"name": name, "path": path})
        elif entry.is_dir() and not recognise(entry):
            self._append(self.folders, entry.name)
        elif entry.is_dir() or _is_scene_file(entry):
            size = None if entry.is_dir() else entry.stat().st_size
            self._append(self.scenes, {"name": entry.name, "path": path, "bytes": size})
            self.is_scene |= band_in_file_name(entry.stem) is not None
        elif entry.name == HTML_NAME:
            self.report = path

    def _append(self, entries: list[Any], entry: Any) -> None:
        if len(entries) < MAX_LISTED:
            entries.append(entry)
        else:
            self.left_out += 1


class ServedFolder:
    """A folder to serve files from. What is outside of it raises SceneError, as if it did not exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve(strict=True)

    def find(self, path: str) -> Path:
        """Return the file or folder at a relative path, with links and `..` resolved."""
        missing = SceneError(f"There is no file or folder {path} in the served folder.")
        if any(part.startswith(".") for part in Path(path).parts):  # hidden, or `..`
            raise missing
        try:
            found = (self.folder / path).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):  # absent, with a NUL, a loop of links
            raise missing from None
        if not found.is_relative_to(self.folder):
            raise missing
        return found

    def contains(self, path: Path) -> bool:
        """Return whether a path leads to something inside the folder."""
        return path.resolve().is_relative_to(self.folder)

    def relative(self, path: Path) -> str:
        """Return a path relative to the folder, with slashes."""
        return "" if path == self.folder else path.relative_to(self.folder).as_posix()

    def listing(self, path: str) -> Listing:
        """Return what is in a folder: subfolders, scenes, finished maps, a batch's report."""
        folder = self.find(path)
        if not folder.is_dir():
            raise SceneError(f"{path} is not a folder.")
        listing = Listing(self.relative(folder))
        entries = [
            entry
            for entry in folder.iterdir()
            if not entry.name.startswith(".") and entry.exists() and self.contains(entry)
        ]
        names = {entry.name for entry in entries}
        for entry in sorted(entries, key=lambda entry: entry.name.casefold()):
            listing.add(entry, f"{listing.path}/{entry.name}".lstrip("/"), names)
        return listing


def check_inside(scene: Scene, name: str, folder: Path) -> None:
    """Raise SceneError if a scene reads files from outside of `folder`, as a VRT may."""
    named = [file for layer in scene.layers for file in layer.files]
    named += [file for mask in scene.masks for file in mask.files]
    remote = [file for file in named if is_address(file) and not local_archive(file)]
    inside = all(file.resolve().is_relative_to(folder) for file in scene.files)
    if remote or not inside or not scene.files:
        raise SceneError(f"{name} refers to files outside of the served folder: it was not read.")


def _is_scene_file(path: Path) -> bool:
    return path.suffix.lower() in SCENE_SUFFIXES and not is_own_file(path)
