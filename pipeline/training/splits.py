"""Which tiles to train on and which to validate on."""

import logging
import math
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold
from tqdm import tqdm

from pipeline.errors import TrainingError
from pipeline.options import SPLIT_METHODS
from pipeline.training.dataset import TIFFS, UnreadableTileError, find_tiles, open_tile, tile_folder

log = logging.getLogger(__name__)

SPLIT_FILES = ("split-train.txt", "split-val.txt")

BLOCK_KM = 20  # far more than a tile's 640 m, so that few tiles lie at the edge of a block
KM_PER_DEGREE = 111.2  # of latitude
FINEST_SHARE = 20  # tiles are dealt into at most this many folds


@dataclass(frozen=True)
class Split:
    """Names of the tiles to train on and to validate on, and how they were told apart."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    method: str


def split_tiles(
    folder: Path, *, validation_share: float, seed: int, method: str = "auto", known: Split | None = None
) -> Split:
    """Split the tiles of `folder` into those to train on and those to validate on.

    - `files`: as `split-train.txt` and `split-val.txt` in the folder say, a `Class/file` name a line.
    - `random`: the share of each class, and a tile of each at least.
    - `location`: georeferenced tiles by blocks of 20 km, each wholly on one side, so that no tile is
      validated on ground that a neighbour showed in training; stratified as well as the blocks allow.
    - `auto`: `files` if they are there, else as `known`, the split of a model that training builds on, if it
      names half of these tiles or more, with every class in both parts (the others are left out), else
      `random`.

    Raises TrainingError if split files are half there, name a tile twice or none, or the same tile in both; a
    tile has no georeference to go by, or there are too few blocks; a class has a single tile, or would be in
    one part only.
    """
    if method not in SPLIT_METHODS:
        raise TrainingError(f"`split` is '{method}'; known are {', '.join(SPLIT_METHODS)}.")
    if not 0 < validation_share < 1:
        raise TrainingError(f"validation_share must lie between 0 and 1, not be {validation_share:g}.")
    if method == "files" or (method == "auto" and _split_files(folder)):
        split = _by_files(folder)
    elif method == "auto" and known is not None and (as_known := _as_known(folder, known)):
        split = as_known
    elif method == "location":
        split = _by_location(folder, validation_share, seed)
    else:
        split = _at_random(folder, validation_share, seed)
    _check_classes(split)
    return split


def known_split(model: Path) -> Split | None:
    """Return the split that a model's folder says it was trained with, if it says so.

    Raises TrainingError as `read_names` does.
    """
    train, validation = (model / name for name in SPLIT_FILES)
    if not (train.is_file() and validation.is_file()):
        return None
    return Split(read_names(train), read_names(validation), f"as that of {model.name}")


def count_trained_on(names: Iterable[str], known: Split) -> int:
    """Return how many of the tiles a model with the split `known` was trained on, whatever their endings."""
    trained = set(map(_stem, known.train))
    return sum(_stem(name) in trained for name in names)


def read_names(path: Path) -> tuple[str, ...]:
    """Read a split file; raises TrainingError if it is none, is empty, repeats itself or has odd names."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(
            f"{path} cannot be read as a list of tiles, a Class/file name a line ({error})."
        ) from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise TrainingError(f"The split file {path} names no tile.")
    if odd := next((name for name in names if name.count("/") != 1), None):
        raise TrainingError(f"The split file {path} has the line '{odd}', which is not a Class/file name.")
    if len(set(names)) < len(names):
        raise TrainingError(f"The split file {path} names a tile twice.")
    return names


def block_of(longitude: float, latitude: float) -> tuple[int, int]:
    """Return the row and the column of the block of about 20 x 20 km that a place (in degrees) lies in.

    Rows are bands of latitude; columns start at the prime meridian and are as wide in kilometres in every
    row, as the parallel in its middle measures them.
    """
    height = BLOCK_KM / KM_PER_DEGREE
    row = math.floor(latitude / height)
    width = height / math.cos(math.radians((row + 0.5) * height))
    return row, math.floor(longitude / width)


def _split_files(folder: Path) -> list[Path]:
    """Return the split files that are there, in the folder named or in the one that it wraps."""
    for place in (folder, tile_folder(folder)):
        if there := [place / name for name in SPLIT_FILES if (place / name).is_file()]:
            return there
    return []


def _by_files(folder: Path) -> Split:
    there = _split_files(folder)
    if not there:
        raise TrainingError(f"{folder} has no {' and '.join(SPLIT_FILES)}: choose another `split`.")
    if len(there) == 1:
        (absent,) = set(SPLIT_FILES) - {there[0].name}
        raise TrainingError(f"{there[0]} is there but {absent} is not: give both or neither.")
    train, validation = map(read_names, there)
    if both := set(train) & set(validation):
        raise TrainingError(f"{len(both)} tiles stand in both split files, {min(both)} among them.")
    return Split(train, validation, "files")


def _as_known(folder: Path, known: Split) -> Split | None:
    """Return the split of `known` for these tiles; None if it names fewer than half, or lacks a class.

    EuroSAT's pictures and multispectral tiles differ in their endings alone. Tiles that it does not name, a
    test split's, are left out.
    """
    names = find_tiles(folder)
    train, validation = (
        tuple(name for name in names if _stem(name) in part)
        for part in (set(map(_stem, known.train)), set(map(_stem, known.validation)))
    )
    classes = set(map(_class_of, names))
    if 2 * len(train + validation) < len(names) or any(
        set(map(_class_of, part)) != classes for part in (train, validation)
    ):
        return None
    if left_out := len(names) - len(train + validation):
        log.info("%d tiles that the initial weights' split does not name are left out", left_out)
    return Split(train, validation, known.method)


def _at_random(folder: Path, share: float, seed: int) -> Split:
    """Draw the share of each class, but one tile at least; none is left without a part in either."""
    generator = np.random.default_rng(seed)
    names = np.array(find_tiles(folder))
    labels = np.array([_class_of(name) for name in names])
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


def _by_location(folder: Path, share: float, seed: int) -> Split:
    names = find_tiles(folder)
    labels = np.array([_class_of(name) for name in names])
    blocks = _blocks(tile_folder(folder), names)
    # So many of so many folds: 0.3 is three of ten.
    finest = Fraction(1, FINEST_SHARE)
    wanted = min(max(Fraction(share).limit_denominator(FINEST_SHARE), finest), 1 - finest)
    if (count := len(set(blocks))) < wanted.denominator:
        raise TrainingError(
            f"The {len(names)} tiles lie in {count} blocks of {BLOCK_KM} km, too few to validate on "
            f"{share:.0%} of them: give tiles elsewhere or choose `split` random."
        )
    folds = _deal(labels, blocks, wanted.denominator, seed)
    # Folds differ in how well they are stratified: take the neighbours among them that fit best.
    choices = [
        np.isin(folds, (np.arange(wanted.numerator) + start) % wanted.denominator)
        for start in range(wanted.denominator)
    ]
    chosen = min(choices, key=lambda validation: _worst_share(labels, validation, float(wanted)))
    log.info(
        "split by location: %d of %d tiles, in %d of %d blocks of %d km, are for validation",
        chosen.sum(),
        len(names),
        len(set(blocks[chosen])),
        count,
        BLOCK_KM,
    )
    train, validation = (
        tuple(name for name, to_validate in zip(names, chosen, strict=True) if to_validate == side)
        for side in (False, True)
    )
    return Split(train, validation, f"by location in blocks of {BLOCK_KM} km, seed {seed}")


def _deal(labels: np.ndarray, blocks: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return the fold, from 0, of each tile; a block lies in one, classes are spread as well as they can."""
    fold_of = np.empty(len(labels), dtype=int)
    dealer = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of rare classes: _check_classes knows better
        try:
            for fold, (_, members) in enumerate(dealer.split(labels, labels, blocks)):
                fold_of[members] = fold
        except ValueError as error:
            raise TrainingError(f"{len(labels)} tiles cannot be split by location: {error}") from error
    return fold_of


def _worst_share(labels: np.ndarray, validation: np.ndarray, wanted: float) -> float:
    """Return how far the share of tiles for validation is from the one wanted, in the worst class.

    A class that is missing from a part counts as infinitely far.
    """
    shares = [validation[labels == name].mean() for name in np.unique(labels)]
    return max(abs(share - wanted) if 0 < share < 1 else math.inf for share in shares)


def _blocks(folder: Path, names: Sequence[str]) -> np.ndarray:
    """Return the number of the block that each tile's centre lies in, in order of appearance."""
    with ThreadPoolExecutor() as pool:
        placing = pool.map(lambda name: _place(folder / name), names)
        places = list(tqdm(placing, "placing tiles", len(names), disable=None, leave=False))
    # A tile that cannot be read is a block of its own: whoever loads the tiles reports or skips it.
    keys = [block_of(*place) if place else name for place, name in zip(places, names, strict=True)]
    numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys])


def _place(path: Path) -> tuple[float, float] | None:
    """Return longitude and latitude of a tile's centre, or None if the tile cannot be read."""
    if path.suffix.lower() not in TIFFS:
        raise TrainingError(
            f"{path} is a picture, which has no place on the ground: `split` location takes GeoTIFFs, "
            "`split` random all tiles."
        )
    try:
        with open_tile(path) as dataset:
            if dataset.crs is None:
                raise TrainingError(f"{path} has no place on the ground (no CRS): choose `split` random.")
            return dataset.lnglat()
    except UnreadableTileError:
        return None


def _check_classes(split: Split) -> None:
    trained, validated = ({_class_of(name) for name in part} for part in (split.train, split.validation))
    if odd := sorted(trained ^ validated):
        where = "training" if odd[0] in trained else "validation"
        remedy = (
            "tell the split files" if split.method == "files" else "give it tiles elsewhere or `split` random"
        )
        raise TrainingError(
            f"The class '{odd[0]}' is in only one of training and validation, in {where}: {remedy}."
        )


def _stem(name: str) -> str:
    return name.rsplit(".", 1)[0]


def _class_of(name: str) -> str:
    return name.split("/")[0]
