"""Choosing the tiles to train on, to validate on, and to report on."""

import logging
from pathlib import Path

import numpy as np

from pipeline.errors import TrainingError
from pipeline.options import SPLIT_METHODS
from pipeline.training.folders import class_of, find_tiles, split_folders, stem_of, tile_folder
from pipeline.training.split_by_location import split_by_location
from pipeline.training.split_files import TRAIN_FILE, VALIDATION_FILE, Split, has_split_files, read_split

log = logging.getLogger(__name__)


def split_tiles(
    folder: Path, *, validation_share: float, seed: int, method: str = "auto", known: Split | None = None
) -> Split:
    """Split the tiles of `folder` by one of `SPLIT_METHODS`.

    - `files`: by `split-train.txt`, `split-val.txt` and, if it is there, `split-report.txt` in the folder.
    - `random`: the validation share of each class, and at least one tile of each.
    - `location`: georeferenced tiles by blocks of 20 km, see `split_by_location`.
    - `auto`: `files` if they are there; else by the folders train, val and test around the class folders, if
      there are such (without val, its share is drawn from train); else as `known`, the split of a model that
      training builds on, if it names at least half of these tiles and every class is in its training and its
      validation part (tiles that it does not name are left out); else `random`.

    Raises:
        TrainingError: split files are incomplete, empty or overlap; tiles have no georeference or lie in too
            few blocks; a class has a single tile, or is missing from training or validation.
    """
    if method not in SPLIT_METHODS:
        raise TrainingError(f"`split` is '{method}'; known are {', '.join(SPLIT_METHODS)}.")
    if not 0 < validation_share < 1:
        raise TrainingError(f"validation_share must lie between 0 and 1, not be {validation_share:g}.")
    if method == "files" or (method == "auto" and _split_folder(folder)):
        split = _by_files(folder)
    elif method == "auto" and split_folders(tile_folder(folder)):
        split = _by_folders(folder, validation_share, seed)
    elif method == "auto" and known is not None and (as_known := _as_known(folder, known)):
        split = as_known
    elif method == "location":
        split = split_by_location(folder, validation_share, seed)
    else:
        split = _at_random(folder, validation_share, seed)
    _check_classes(split)
    return split


def _split_folder(folder: Path) -> Path | None:
    """Return the folder that holds the split files: the one given, or the folder of class folders in it."""
    return next((place for place in (folder, tile_folder(folder)) if has_split_files(place)), None)


def _by_files(folder: Path) -> Split:
    place = _split_folder(folder)
    if place is None:
        raise TrainingError(f"{folder} has no {TRAIN_FILE} and {VALIDATION_FILE}: choose another `split`.")
    return read_split(place, "files")


def _by_folders(folder: Path, share: float, seed: int) -> Split:
    """Return the split by folders for training, validation and test, the last of which is reported on."""
    parts = {path.name: part for path, part in split_folders(tile_folder(folder)).items()}
    tiles: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for name in find_tiles(folder):
        tiles[parts[name.split("/")[0]]].append(name)
    report, method = tuple(tiles["test"]), f"by the folders {', '.join(parts)}"
    if tiles["validation"]:
        return Split(tuple(tiles["train"]), tuple(tiles["validation"]), method, report)
    drawn = _draw(tiles["train"], folder, share, seed)
    return Split(drawn.train, drawn.validation, f"{method}; validation drawn from train, seed {seed}", report)


def _as_known(folder: Path, known: Split) -> Split | None:
    """Return the split of `known` for these tiles; None if it names less than half of them, or lacks a class.

    File endings do not count. Tiles that it does not name, such as those of a test split, are left out.
    """
    names = find_tiles(folder)
    train, validation, report = (
        tuple(name for name in names if stem_of(name) in stems)
        for stems in (set(map(stem_of, part)) for part in (known.train, known.validation, known.report))
    )
    classes = set(map(class_of, names))
    named = len(train) + len(validation) + len(report)
    if 2 * named < len(names) or any(set(map(class_of, part)) != classes for part in (train, validation)):
        return None
    if left_out := len(names) - named:
        log.info("%d tiles that the initial weights' split does not name are left out", left_out)
    return Split(train, validation, known.method, report)


def _at_random(folder: Path, share: float, seed: int) -> Split:
    """Draw the share of each class for validation, but leave at least one tile of it in either part."""
    return _draw(find_tiles(folder), folder, share, seed)


def _draw(tiles: list[str], folder: Path, share: float, seed: int) -> Split:
    generator = np.random.default_rng(seed)
    names = np.array(tiles)
    labels = np.array([class_of(name) for name in names])
    validation = np.zeros(len(names), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise TrainingError(
                f"The class '{label}' has a single tile in {folder}: it takes two or more, to train on "
                "and to validate on."
            )
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        validation[generator.permutation(members)[:count]] = True
    train, validated = (tuple(names[validation == side].tolist()) for side in (False, True))
    return Split(train, validated, f"stratified, seed {seed}")


def _check_classes(split: Split) -> None:
    """Raise TrainingError if training and validation, or report and training, differ in classes."""
    trained, validated, reported = (
        {class_of(name) for name in part} for part in (split.train, split.validation, split.report)
    )
    remedy = (
        "correct the split files" if split.method == "files" else "add tiles from elsewhere or `split` random"
    )
    if odd := sorted(trained ^ validated):
        where = "training" if odd[0] in trained else "validation"
        raise TrainingError(
            f"The class '{odd[0]}' is in only one of training and validation, in {where}: {remedy}."
        )
    if odd := sorted(reported - trained):
        raise TrainingError(f"The class '{odd[0]}' is to be reported on but not trained on: {remedy}.")
