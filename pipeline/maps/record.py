"""`NAME_run.json`: what a map was made from and how, and whether it still is the one that is wanted."""

import json
import platform
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.maps.areas import ClassArea
from pipeline.model.card import ModelCard
from pipeline.notes import Note
from pipeline.scenes.gdal import without_query
from pipeline.scenes.scene import Scene

Record = dict[str, Any]


def record_path(output: Path, name: str) -> Path:
    """Return where the record of the scene `name` lies."""
    return output / f"{name}_run.json"


def identity(scene: Scene, card: ModelCard, options: Record) -> Record:
    """Return what makes a map this one and no other: the model, the input's files and the options."""
    return {
        "model": {"name": card.name, "digest": card.digest},
        "input": fingerprint(scene),
        "options": json.loads(json.dumps(options, default=str)),
    }


def earlier_run(output: Path, name: str, wanted: Record) -> tuple[Record | None, tuple[str, ...]]:
    """Return the record in `output`, None if there is none, and what of it differs from `wanted`.

    One that cannot be understood, another version's, is empty and differs in `program`.
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
    """Return the areas that a record holds."""
    return tuple(ClassArea(**area) for area in record["areas"])


def make_record(
    identity: Record,
    scene: Scene,
    *,
    notes: tuple[Note, ...],
    files: dict[str, str],
    areas: tuple[ClassArea, ...],
    counts: Record,
    seconds: float,
    predictor: Record,
) -> Record:
    """Return the record of a run: its identity and all that a reader of the map may want to know."""
    return {
        **identity,
        "scene": without_query(scene.path),
        "notes": [asdict(note) for note in notes],
        "files": files,
        **counts,
        "areas": [asdict(area) for area in areas],
        "seconds": round(seconds, 3),
        "predictor": predictor,
        "versions": _versions(),
    }


def fingerprint(scene: Scene) -> Record:
    """Return what tells whether a scene is still the one it was.

    Names, sizes and times of its files; the folder may be renamed. Of a remote scene only its address,
    without what follows `?`: a signature is renewed, and a secret.
    """
    files = [(file.name, file.stat()) for file in scene.files]
    if not files:
        return {"path": without_query(scene.path)}
    return {
        "files": [
            {"name": name, "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns} for name, stat in files
        ]
    }


@cache
def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("landcover", "torch", "rasterio", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # run from the source tree
            versions[package] = "not installed"
    return versions
