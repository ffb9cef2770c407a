"""Finding labelled tiles: folders with a folder of tiles for each class, perhaps split into parts."""

import logging
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from pipeline.errors import TrainingError

log = logging.getLogger(__name__)

PICTURES = frozenset({".jpg", ".jpeg", ".png"})
TIFFS = frozenset({".tif", ".tiff"})

PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What the folders of a data set that is split already are called, and which part that is."""

WRAPPERS = 7
"""Folders that may lie around the class folders: EuroSAT's first archive had six of them."""


def tile_folder(folder: Path) -> Path:
    """Return the folder of class folders: `folder` or, since archives wrap theirs, the only one inside.

    Where class folders lie in folders such as train, val and test, it is the folder of these, see
    `split_folders`.

    Raises:
        TrainingError: there is none or more than one; the message says what was found.
    """
    if not folder.is_dir():
        raise TrainingError(f"{folder} is not a folder of class folders.")
    found = list(_tile_folders(folder, WRAPPERS))
    if len(found) == 1:
        return found[0]
    if found and split_folders(found[0].parent).keys() == set(found):
        return found[0].parent
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

    Where there are folders for training, validation and test, theirs come first: `train/Class/file`.

    Raises:
        TrainingError: there is no class folder, or one of them is empty.
    """
    place = tile_folder(folder)
    if parts := split_folders(place):
        return [f"{part.name}/{name}" for part in parts for name in _tiles_by_class(part)]
    return _tiles_by_class(place)


def split_folders(folder: Path) -> dict[Path, str]:
    """Return the folders for training, validation and test in `folder`, and which part each is.

    Empty unless there is one for training, another one, and no two for the same part.
    """
    parts = {
        path: PARTS[path.name.lower()]
        for path in _subfolders(folder)
        if path.name.lower() in PARTS and any(map(_holds_tiles, _subfolders(path)))
    }
    kinds = set(parts.values())
    return parts if "train" in kinds and len(kinds) == len(parts) > 1 else {}


def _tiles_by_class(folder: Path) -> list[str]:
    names: list[str] = []
    for class_folder in _subfolders(folder):
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
        if deeper := [path for path in class_folder.glob("*/*") if _is_tile(path)]:
            _warn_of_deeper(class_folder, len(deeper), str(deeper[0].relative_to(folder)))
    return names


@cache  # tiles are looked for several times in a run
def _warn_of_deeper(class_folder: Path, count: int, example: str) -> None:
    log.warning(
        "%d tiles in folders inside the class folder %s are left out, such as %s: move them into the class "
        "folder itself.",
        count,
        class_folder,
        example,
    )


def holds_class_folders(folder: Path) -> bool:
    """Tell whether `folder` directly contains two or more folders of tiles."""
    return sum(map(_holds_tiles, _subfolders(folder))) > 1


def is_tiff(name: str | Path) -> bool:
    """Tell whether a tile is a TIFF by its name."""
    return Path(name).suffix.lower() in TIFFS


def class_of(name: str) -> str:
    """Return the class of a `Class/file` or `train/Class/file` name.

    In Unicode's composed form: some systems store the same letters decomposed.
    """
    return unicodedata.normalize("NFC", name.split("/")[-2])


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
