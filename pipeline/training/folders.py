"""Finding labelled tiles: folders with a folder of tiles for each class."""

import logging
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import TrainingError

log = logging.getLogger(__name__)

PICTURES = frozenset({".jpg", ".jpeg", ".png"})
TIFFS = frozenset({".tif", ".tiff"})

WRAPPERS = 7
"""Folders that may lie around the class folders: EuroSAT's first archive had six of them."""


def tile_folder(folder: Path) -> Path:
    """Return the folder of class folders: `folder` or, since archives wrap theirs, the only one inside.

    Raises:
        TrainingError: there is none or more than one; the message says what was found.
    """
    if not folder.is_dir():
        raise TrainingError(f"{folder} is not a folder of class folders.")
    found = list(_tile_folders(folder, WRAPPERS))
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(str(path.relative_to(folder)) for path in found)
        raise TrainingError(
            f"{folder} holds {len(found)} folders of class folders ({names}): name one of them with `data`."
        )
    if _holds_tiles(folder):
        raise TrainingError(f"{folder} holds images but no class folders: name the folder around it.")
    raise TrainingError(f"{folder} holds no class folders with images.")


def find_tiles(folder: Path) -> list[str]:
    """Return the tiles below the folder of class folders in `folder` as sorted `Class/file` names.

    Raises:
        TrainingError: there is no class folder, or one of them is empty.
    """
    names: list[str] = []
    for class_folder in _subfolders(tile_folder(folder)):
        try:
            tiles = sorted(path.name for path in class_folder.iterdir() if _is_tile(path))
        except OSError as error:
            log.warning("%s is left out, since it cannot be read: %s.", class_folder, error.strerror)
            continue
        if not tiles:
            inside = any(_tile_folders(class_folder, WRAPPERS))
            hint = ": if the class folders are inside it, name it with `data`" if inside else ""
            raise TrainingError(f"The class folder {class_folder} holds no image{hint}.")
        names += [f"{class_folder.name}/{tile}" for tile in tiles]
    return names


def holds_class_folders(folder: Path) -> bool:
    """Tell whether `folder` directly contains two or more folders of tiles."""
    return sum(map(_holds_tiles, _subfolders(folder))) > 1


def is_tiff(name: str | Path) -> bool:
    """Tell whether a tile is a TIFF by its name."""
    return Path(name).suffix.lower() in TIFFS


def class_of(name: str) -> str:
    """Return the class of a `Class/file` name."""
    return name.split("/")[0]


def stem_of(name: str) -> str:
    """Return a `Class/file` name without its ending: EuroSAT's pictures and GeoTIFFs differ in that alone."""
    return name.rsplit(".", 1)[0]


def _tile_folders(folder: Path, depth: int) -> Iterator[Path]:
    if any(map(_holds_tiles, _subfolders(folder))):
        yield folder
    elif depth:
        for subfolder in _subfolders(folder):
            yield from _tile_folders(subfolder, depth - 1)


def _subfolders(folder: Path) -> list[Path]:
    """Return the subfolders, without hidden ones and those that macOS's archiver leaves."""
    return sorted(
        path
        for path in _entries(folder)
        if _is_folder(path) and not path.name.startswith(".") and path.name != "__MACOSX"
    )


def _entries(folder: Path) -> list[Path]:
    """Return what is in a folder; nothing where it cannot be read, as `lost+found`."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _holds_tiles(folder: Path) -> bool:
    return any(map(_is_tile, _entries(folder)))


def _is_tile(path: Path) -> bool:
    return path.suffix.lower() in PICTURES | TIFFS and not path.name.startswith(".")
