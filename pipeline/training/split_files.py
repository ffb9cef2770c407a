"""Split files: lists of the tiles that a model is trained on, is chosen by, and is reported on."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import TrainingError
from pipeline.notes import Note, warning
from pipeline.training.folders import stem_of

TRAIN_FILE, VALIDATION_FILE, REPORT_FILE = SPLIT_FILES = (
    "split-train.txt",
    "split-val.txt",
    "split-report.txt",
)
"""A `Class/file` name a line. The first two belong together; the third is optional."""


@dataclass(frozen=True)
class Split:
    """The parts that labelled tiles are split into, as `Class/file` names."""

    train: tuple[str, ...]
    """Tiles to train on."""

    validation: tuple[str, ...]
    """Tiles that choose the best epoch and the temperature."""

    method: str
    """How the tiles were split, in words."""

    report: tuple[str, ...] = ()
    """Tiles that are used once, at the end, to measure the model; if there are none, validation does that."""

    def parts(self) -> dict[str, tuple[str, ...]]:
        """Return the tiles of each part under the name of its split file; empty parts are left out."""
        parts = zip(SPLIT_FILES, (self.train, self.validation, self.report), strict=True)
        return {name: tiles for name, tiles in parts if tiles}


def has_split_files(folder: Path) -> bool:
    """Tell whether any of the split files is in the folder."""
    return any((folder / name).is_file() for name in SPLIT_FILES)


def read_split(folder: Path, method: str) -> Split:
    """Read the split files of a folder.

    Raises:
        TrainingError: one of the first two files is missing, a tile is in two files, or `read_names` raises.
    """
    there = {name: read_names(folder / name) for name in SPLIT_FILES if (folder / name).is_file()}
    if absent := {TRAIN_FILE, VALIDATION_FILE} - there.keys():
        found = " and ".join(sorted(map(str, there)))
        raise TrainingError(
            f"{folder} has {found} but no {' and no '.join(sorted(absent))}: add what is missing, or remove "
            "the others."
        )
    split = Split(there[TRAIN_FILE], there[VALIDATION_FILE], method, there.get(REPORT_FILE, ()))
    _check_disjoint(folder, split)
    return split


def known_split(model: Path) -> Split | None:
    """Return the split that a model was trained with, if its folder holds the split files.

    Raises:
        TrainingError: as `read_split` does.
    """
    if not all((model / name).is_file() for name in (TRAIN_FILE, VALIDATION_FILE)):
        return None
    return read_split(model, f"as that of {model.name}")


def count_common(names: Iterable[str], part: Iterable[str]) -> int:
    """Return how many of the tiles `names` are in `part`, whatever their file endings."""
    stems = set(map(stem_of, part))
    return sum(stem_of(name) in stems for name in names)


def find_unfair_tiles(names: tuple[str, ...], model: Path) -> tuple[Note, ...]:
    """Return warnings if a model would be measured on tiles that it was trained on or chosen by.

    Raises:
        TrainingError: as `known_split` does.
    """
    split = known_split(model)
    if split is None:
        return ()
    fair = model / (REPORT_FILE if split.report else VALIDATION_FILE)
    notes = []
    if seen := count_common(names, split.train):
        text = (
            f"The model was trained on {seen} of the {len(names)} tiles, so it looks better than it is: "
            f"measure it with `names` {fair}."
        )
        notes.append(warning("tiles-trained-on", "names", text))
    if chosen_by := count_common(names, split.validation):
        remedy = f"`names` {fair}" if split.report else "tiles that it has not seen"
        text = (
            f"The model's epoch and temperature were chosen by {chosen_by} of the {len(names)} tiles, so it "
            f"looks slightly better than it is: for a fair figure, measure it with {remedy}."
        )
        notes.append(warning("tiles-chosen-by", "names", text))
    return tuple(notes)


def read_names(path: Path) -> tuple[str, ...]:
    """Read the tiles' names from a split file.

    Raises:
        TrainingError: the file is not a split file, is empty, names a tile twice, or has a line that is not a
            `Class/file` name; a folder before that, as in `train/Class/file`, is one of a split data set.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(
            f"{path} cannot be read as a list of tiles, a Class/file name a line ({error})."
        ) from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise TrainingError(f"The split file {path} names no tile.")
    if odd := next((name for name in names if name.count("/") not in (1, 2)), None):
        raise TrainingError(f"The split file {path} has the line '{odd}', which is not a Class/file name.")
    if len(set(names)) < len(names):
        raise TrainingError(f"The split file {path} names a tile twice.")
    return names


def write_names(names: Iterable[str]) -> bytes:
    """Return the content of a split file."""
    return ("\n".join(names) + "\n").encode("utf-8")


def _check_disjoint(folder: Path, split: Split) -> None:
    parts = list(split.parts().items())
    for i, (name, tiles) in enumerate(parts):
        for other_name, other_tiles in parts[i + 1 :]:
            if both := set(tiles) & set(other_tiles):
                raise TrainingError(
                    f"{len(both)} tiles are in both {name} and {other_name} of {folder}, such as {min(both)}."
                )
