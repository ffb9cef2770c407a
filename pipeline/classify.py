"""One scene, start to finish: from its pixels to the files of its land-cover map."""

import json
import logging
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline.errors import OutputError, UsageError
from pipeline.grid import MIN_STRIDE, TileGrid
from pipeline.landcover_map import LandcoverMap, MapBuilder
from pipeline.model.bundle import ModelCard
from pipeline.outputs.areas import ClassArea, class_areas, write_areas
from pipeline.outputs.atomic import write_file
from pipeline.outputs.polygons import POLYGON_SUFFIXES, polygons_possible, write_polygons
from pipeline.outputs.preview import write_preview
from pipeline.outputs.raster import write_confidence, write_landcover, write_probabilities
from pipeline.outputs.style import write_style
from pipeline.predictor import Predictor
from pipeline.reader import read_blocks
from pipeline.scene import Scene, SceneOptions, open_scene

log = logging.getLogger(__name__)

# Decompressing is a core's work of some 100 million pixels a second: on the CPU the network leaves no
# core for more than reading ahead, on a GPU it is what the device would wait for.
READER_THREADS = {"cpu": 2, "cuda": 8}


@dataclass(frozen=True)
class ClassifyOptions:
    """What the user may decide about one scene's map."""

    scene: SceneOptions = field(default_factory=SceneOptions)
    stride: int = 64
    min_confidence: int = 0
    polygons: str = "geojson"
    probabilities: bool = False
    preview: bool = False
    overwrite: bool = False
    reader_threads: int = 0  # 0 = as many as keep the device busy

    def check(self, card: ModelCard) -> None:
        """Raise UsageError if the options cannot go together with the model."""
        if not MIN_STRIDE <= self.stride <= card.tile_size:
            raise UsageError(
                f"--stride {self.stride} is out of range: it may be {MIN_STRIDE} to {card.tile_size} pixels, "
                "the model's tile."
            )

    def that_decide_the_map(self) -> dict[str, Any]:
        """Return the options that change what is written, as plain values for `run.json`."""
        decisive = asdict(self)
        del decisive["overwrite"], decisive["reader_threads"]
        return json.loads(json.dumps(decisive, default=str))


@dataclass(frozen=True)
class Result:
    """One scene done: the map, where its files are, and how it went."""

    scene: str
    files: dict[str, Path]
    areas: tuple[ClassArea, ...]
    tiles: int
    seconds: float
    skipped: bool = False


def classify_scene(
    path: str,
    output: Path,
    predictor: Predictor,
    options: ClassifyOptions = ClassifyOptions(),
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Classify one scene and write its files into the folder `output`.

    `progress` is called with the number of tiles done since the last call and the number of all.
    A scene whose `run.json` matches is left as it is. Raises SceneError if the scene cannot be read,
    OutputError if a file cannot be written or another run's files are in the way, UsageError for
    options that do not fit the model.
    """
    started = time.perf_counter()
    card = predictor.card
    options.check(card)
    scene = open_scene(path, card, options.scene)
    identity = {
        "model": {"name": card.name, "digest": card.digest},
        "input": fingerprint(scene),
        "options": options.that_decide_the_map(),
    }
    if earlier := finished_run(output, scene.name, identity, overwrite=options.overwrite):
        return earlier
    for note in scene.notes:
        log.log(logging.WARNING if note.level == "warning" else logging.INFO, "%s: %s", scene.name, note.text)

    land_cover, tiles = map_scene(scene, predictor, options, progress)
    if tiles == 0:
        log.warning("%s: the scene has no valid pixel, so its map is all no data.", scene.name)
    run_file = output / f"{scene.name}_run.json"
    run_file.unlink(missing_ok=True)  # from here on, what lies there is no longer what it says
    files = write_outputs(land_cover, output, scene.name, card, options)
    areas = class_areas(land_cover)
    seconds = time.perf_counter() - started
    record = {
        **identity,
        "notes": [{"level": note.level, "text": note.text} for note in scene.notes],
        "files": {kind: file.name for kind, file in files.items()},
        "tiles": tiles,
        "cells": {"rows": land_cover.class_id.shape[0], "columns": land_cover.class_id.shape[1]},
        "areas": [asdict(area) for area in areas],
        "seconds": round(seconds, 3),
        "predictor": predictor.description,
        "versions": _versions(),
    }
    write_file(run_file, (json.dumps(record, indent=2) + "\n").encode())
    return Result(scene.name, files | {"run": run_file}, areas, tiles, seconds)


def map_scene(
    scene: Scene,
    predictor: Predictor,
    options: ClassifyOptions,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[LandcoverMap, int]:
    """Classify an opened scene; returns its map, and how many tiles the network saw."""
    card = predictor.card
    grid = TileGrid(scene.width, scene.height, card.tile_size, options.stride)
    builder = MapBuilder(
        grid,
        card.classes,
        min_confidence=options.min_confidence,
        keep_probabilities=options.probabilities,
    )
    tiles = 0
    threads = options.reader_threads or READER_THREADS[predictor.device.type]
    blocks = read_blocks(scene, grid, threads=threads)
    for block, probabilities in predictor.predict(blocks, scene.pixel_transform, grid.tile_count):
        builder.add(block, probabilities)
        tiles += len(block.index)
        if progress is not None:  # tiles left out for want of data count as done
            progress(block.tile_rows * grid.tile_cols, grid.tile_count)
    return builder.finish(scene.crs, scene.transform), tiles


def describe_scene(path: str, card: ModelCard, options: SceneOptions, stride: int) -> dict[str, Any]:
    """Return what would be done with a scene, and why, as plain values in the order to show them."""
    scene = open_scene(path, card, options)
    grid = TileGrid(scene.width, scene.height, card.tile_size, stride)
    return {
        "scene": scene.name,
        "ground grid": f"{scene.width}x{scene.height} pixels of {abs(scene.transform.a):g} m",
        "crs": str(scene.crs) if scene.crs else "none (pixel space)",
        "bands": " ".join(scene.bands),
        "pixels": str(scene.dtype),
        "tiles": f"{grid.tile_count} ({grid.tile_rows} rows x {grid.tile_cols} columns)",
        "map": f"{grid.cell_rows}x{grid.cell_cols} cells of {stride * abs(scene.transform.a):g} m",
        "notes": [{"level": note.level, "text": note.text} for note in scene.notes],
    }


def write_outputs(
    land_cover: LandcoverMap, output: Path, name: str, card: ModelCard, options: ClassifyOptions
) -> dict[str, Path]:
    """Write a map's files, all but `run.json`; returns them by kind."""
    make_folder(output)
    files = {
        "landcover": output / f"{name}_landcover.tif",
        "confidence": output / f"{name}_confidence.tif",
        "style": output / f"{name}_landcover.qml",
        "areas": output / f"{name}_areas.csv",
    }
    tags = {"model": card.name, "model_digest": card.digest}
    write_landcover(land_cover, files["landcover"], tags)
    write_confidence(land_cover, files["confidence"], tags)
    write_style(land_cover.classes, files["style"])
    write_areas(land_cover, files["areas"])
    if options.probabilities:
        files["probabilities"] = output / f"{name}_probabilities.tif"
        write_probabilities(land_cover, files["probabilities"], tags)
    if options.preview:
        files["preview"] = output / f"{name}_landcover.png"
        write_preview(land_cover, files["preview"], title=name)
    if options.polygons != "none" and not polygons_possible(options.polygons, land_cover.crs):
        log.warning(
            "%s: no polygons, since GeoJSON is in WGS 84 and the scene has no CRS: choose --polygons gpkg.",
            name,
        )
    elif options.polygons != "none":
        files["polygons"] = output / f"{name}_landcover{POLYGON_SUFFIXES[options.polygons]}"
        write_polygons(land_cover, files["polygons"], options.polygons)
    return files


def make_folder(folder: Path) -> None:
    """Make the output folder; raises OutputError if that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"The output folder {folder} cannot be made: {error.strerror}.") from error


def finished_run(output: Path, name: str, identity: dict[str, Any], *, overwrite: bool) -> Result | None:
    """Return the result that lies in `output` already, if it is of the same model, input and options.

    Raises OutputError if another run's result lies there and may not be overwritten.
    """
    run_file = output / f"{name}_run.json"
    if overwrite or not run_file.is_file():
        return None
    try:
        record = json.loads(run_file.read_text(encoding="utf-8"))
    except ValueError:
        record = {}
    different = [key for key in identity if record.get(key) != identity[key]]
    if different:
        raise OutputError(
            f"{output} holds a map of {name} made with another {' and '.join(different)}: "
            "choose another folder or pass --overwrite."
        )
    return Result(
        name,
        {kind: output / file for kind, file in record["files"].items()} | {"run": run_file},
        tuple(ClassArea(**area) for area in record["areas"]),
        record["tiles"],
        record["seconds"],
        skipped=True,
    )


def fingerprint(scene: Scene) -> dict[str, Any]:
    """Return what tells whether a scene is still the one it was: its files' names, sizes and times."""
    return {
        "path": scene.path,
        "files": [
            {"name": file.name, "bytes": file.stat().st_size, "modified_ns": file.stat().st_mtime_ns}
            for file in scene.files
        ],
    }


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in ("landcover", "torch", "rasterio", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # run from the source tree
            versions[package] = "not installed"
    return versions
