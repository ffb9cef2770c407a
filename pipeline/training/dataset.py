"""Labelled tiles: a folder of class folders, held in memory as one array, and its split."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from sklearn.model_selection import train_test_split
from tqdm import tqdm

from pipeline.errors import TrainingError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png"}
SPLIT_FILES = ("split-train.txt", "split-val.txt")


@dataclass(frozen=True)
class TileSet:
    """Tiles in memory: `images` (N, 3, T, T) uint8, `labels` (N,) int64 indexing `classes`."""

    images: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.labels)


@dataclass(frozen=True)
class Split:
    """Names of the tiles to train on and to validate on, and how they were told apart."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    method: str


def find_tiles(folder: Path) -> list[str]:
    """Return the tiles below `folder` as sorted `Class/file` names.

    Raises TrainingError if there is no class folder or one of them is empty.
    """
    if not folder.is_dir():
        raise TrainingError(f"{folder} is not a folder of class folders.")
    names: list[str] = []
    for class_folder in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        tiles = sorted(p.name for p in class_folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not tiles:
            raise TrainingError(f"The class folder {class_folder} holds no image.")
        names += [f"{class_folder.name}/{tile}" for tile in tiles]
    if not names:
        raise TrainingError(f"{folder} holds no class folders with images.")
    return names


def split_tiles(folder: Path, *, validation_share: float, seed: int) -> Split:
    """Split the tiles of `folder` as its split files say, or stratified by class if it has none.

    Split files are `split-train.txt` and `split-val.txt`, a `Class/file` name a line. Raises TrainingError
    if only one of them is there, they name a tile twice or none, or there are too few tiles to split.
    """
    files = [folder / name for name in SPLIT_FILES]
    there = [path for path in files if path.is_file()]
    if len(there) == 1:
        (absent,) = set(files) - set(there)
        raise TrainingError(f"{there[0]} is there but {absent.name} is not: give both or neither.")
    if there:
        train, validation = (read_names(path) for path in files)
        if both := set(train) & set(validation):
            raise TrainingError(f"{len(both)} tiles stand in both split files, {min(both)} among them.")
        return Split(train, validation, "files")
    names = find_tiles(folder)
    try:
        train_names, validation_names = train_test_split(
            names,
            test_size=validation_share,
            random_state=seed,
            stratify=[name.split("/")[0] for name in names],
        )
    except ValueError as error:
        raise TrainingError(
            f"The {len(names)} tiles of {folder} cannot be split by validation_share {validation_share:g} "
            f"with each class in both parts: {error}"
        ) from error
    return Split(tuple(sorted(train_names)), tuple(sorted(validation_names)), f"stratified, seed {seed}")


def read_names(path: Path) -> tuple[str, ...]:
    """Read a split file; raises TrainingError if it is empty, repeats itself or has odd names."""
    names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    if not names:
        raise TrainingError(f"The split file {path} names no tile.")
    if odd := next((name for name in names if name.count("/") != 1), None):
        raise TrainingError(f"The split file {path} has the line '{odd}', which is not a Class/file name.")
    if len(set(names)) < len(names):
        raise TrainingError(f"The split file {path} names a tile twice.")
    return names


def load_tiles(folder: Path, names: Sequence[str] | None = None) -> TileSet:
    """Read the named tiles (default: all) into memory, in the order given.

    Raises TrainingError naming the first file that cannot be read or has another size than the rest.
    """
    names = tuple(find_tiles(folder) if names is None else names)
    classes = tuple(sorted({name.split("/")[0] for name in names}))
    height, width = _read(folder / names[0]).shape[:2]
    if height != width:
        raise TrainingError(f"{folder / names[0]} is {width}x{height} pixels; tiles must be square.")
    size = height
    images = np.empty((len(names), 3, size, size), np.uint8)

    def load(i: int) -> None:
        pixels = _read(folder / names[i])
        if pixels.shape != (size, size, 3):
            raise TrainingError(
                f"{folder / names[i]} is {pixels.shape[1]}x{pixels.shape[0]} pixels; "
                f"the first tile, {names[0]}, is {size}x{size}, and all must be."
            )
        images[i] = pixels.transpose(2, 0, 1)

    with ThreadPoolExecutor() as pool:
        for _ in tqdm(
            pool.map(load, range(len(names))), "reading tiles", len(names), disable=None, leave=False
        ):
            pass
    labels = torch.tensor([classes.index(name.split("/")[0]) for name in names])
    return TileSet(torch.from_numpy(images), labels, classes, names)


def _read(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError as error:
        raise TrainingError(f"The tile {path} does not exist.") from error
    except (UnidentifiedImageError, OSError) as error:
        raise TrainingError(f"The tile {path} cannot be read as an image: {error}.") from error
