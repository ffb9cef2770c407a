"""`NAME_run.json`, the record of a run: what a map was made from and how, and whether it is up to date."""

import json
import platform
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.maps.areas import ClassArea
from pipeline.model.card import ModelCard
from pipeline.notes import Note

Record = dict[str, Any]

RUN_ENDING = "_run.json"
"""What follows the scene's name in the name of its record."""


@dataclass(frozen=True)
class Run:
    """What a record says of a run, beside its identity."""

    scene: str
    """The scene's path or address."""

    notes: tuple[Note, ...]
    """What was found or assumed."""

    files: dict[str, str]
    """The names of the map's files by kind."""

    tiles: int
    """How many tiles the network classified."""

    shape: tuple[int, int]
    """The map's cells: (rows, columns)."""

    areas: tuple[ClassArea, ...]
    """The area of each class."""

    seconds: float
    """How long it took."""

    predictor: Record
    """The device, precision and batch size of the network."""


def record_path(output: Path, name: str) -> Path:
    """Return the path of the record of the scene `name`."""
    return output / f"{name}{RUN_ENDING}"


def identity(card: ModelCard, source: Record, options: Record) -> Record:
    """Return what decides a map: the model, the input's fingerprint `source` and the options."""
    return {
        "model": {"name": card.name, "digest": card.digest},
        "input": source,
        "options": json.loads(json.dumps(options, default=str)),
    }


def earlier_run(output: Path, name: str, wanted: Record) -> tuple[Record | None, tuple[str, ...]]:
    """Return the record of the scene `name` in `output`, None if there is none, and which keys differ.

    The keys are those of the identity `wanted`. A record that cannot be read, such as another version's,
    is empty and differs in `program`.
    """
    path = record_path(output, name)
    if not path.is_file():
        return None, ()
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return record, tuple(key for key in wanted if record[key] != wanted[key])
    except (ValueError, KeyError, TypeError):
        return {}, ("program",)


def areas_of(record: Record) -> tuple[ClassArea, ...]:
    """Return the areas in a record."""
    return tuple(ClassArea(**area) for area in record["areas"])


def make_record(identity: Record, run: Run) -> Record:
    """Return the record of a run, as JSON has it."""
    rows, columns = run.shape
    return {
        **identity,
        "scene": run.scene,
        "notes": [asdict(note) for note in run.notes],
        "files": run.files,
        "tiles": run.tiles,
        "cells": {"rows": rows, "columns": columns},
        "areas": [asdict(area) for area in run.areas],
        "seconds": round(run.seconds, 3),
        "predictor": run.predictor,
        "versions": _versions(),
    }


@cache
def _versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide a map."""
    versions = {"python": platform.python_version()}
    for package in ("landcover", "torch", "rasterio", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # run from the source tree
            versions[package] = "not installed"
    return versions
