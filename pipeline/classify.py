"""One scene, start to finish: from its pixels to the files of its land-cover map."""

import json
import logging
import time
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.errors import OutputError, UsageError
from pipeline.grid import MIN_STRIDE, TileGrid
from pipeline.landcover_map import LandcoverMap, MapBuilder
from pipeline.model.bundle import ModelCard
from pipeline.outputs.areas import ClassArea, class_areas, write_areas
from pipeline.outputs.atomic import make_folder, publish, staging_folder, write_file
from pipeline.outputs.polygons import POLYGON_SUFFIXES, polygons_possible, write_polygons
from pipeline.outputs.preview import write_preview
from pipeline.outputs.raster import write_confidence, write_landcover, write_probabilities
from pipeline.outputs.style import write_style
from pipeline.predictor import Predictor
from pipeline.reader import read_blocks
from pipeline.run_record import areas_of, finished_run, identity, make_record, record_path
from pipeline.scene import Scene, SceneOptions, open_scene

log = logging.getLogger(__name__)

# Decompressing is a core's work of some 100 million pixels a second: on the CPU the network leaves no
# core for more than reading ahead, on a GPU it is what the device would wait for.
READER_THREADS = {"cpu": 2, "cuda": 8}

# Every file that a map may have, after the scene's name, apart from the record.
OUTPUTS = {
    "landcover": "_landcover.tif",
    "names": "_landcover.tif.aux.xml",
    "confidence": "_confidence.tif",
    "probabilities": "_probabilities.tif",
    "style": "_landcover.qml",
    "areas": "_areas.csv",
    "preview": "_landcover.png",
    **{f"polygons ({kind})": f"_landcover{suffix}" for kind, suffix in POLYGON_SUFFIXES.items()},
}

# What other programs may have put beside them, and would be wrong beside new ones: statistics, journals.
SIDE_FILES = (
    "_confidence.tif.aux.xml",
    "_probabilities.tif.aux.xml",
    *(f"_landcover.gpkg{ending}" for ending in ("-wal", "-shm", "-journal")),
)


@dataclass(frozen=True)
class ClassifyOptions:
    """What the user may decide about one scene's map.

    `stride` is in pixels, None for the model's tile; `min_confidence` in percent; `polygons` one of
    geojson, gpkg, fgb, parquet and none; `reader_threads` 0 for as many as keep the device busy.
    """

    scene: SceneOptions = field(default_factory=SceneOptions)
    stride: int | None = None
    min_confidence: int = 0
    polygons: str = "geojson"
    probabilities: bool = False
    preview: bool = False
    overwrite: bool = False
    reader_threads: int = 0

    def stride_for(self, card: ModelCard) -> int:
        """Return the stride; raises UsageError if the model's tiles would leave gaps or be too many."""
        stride = self.stride or card.tile_size
        if not MIN_STRIDE <= stride <= card.tile_size:
            raise UsageError(
                f"--stride {stride} is out of range: it may be {MIN_STRIDE} to {card.tile_size} pixels, "
                "the model's tile."
            )
        return stride

    def check(self, card: ModelCard) -> None:
        """Raise UsageError if an option cannot be meant, or not with this model."""
        self.stride_for(card)
        if not 0 <= self.min_confidence <= 100:
            raise UsageError(f"--min-confidence is a percentage, not {self.min_confidence}.")
        if self.polygons not in (*POLYGON_SUFFIXES, "none"):
            raise UsageError(f"--polygons is one of {', '.join(POLYGON_SUFFIXES)} and none.")

    def that_decide_the_map(self, card: ModelCard) -> dict[str, Any]:
        """Return the options that change what is written."""
        decisive = asdict(replace(self, stride=self.stride_for(card)))
        del decisive["overwrite"], decisive["reader_threads"]
        return decisive


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
    taken: Collection[str] = (),
) -> Result:
    """Classify one scene and write its files into the folder `output`.

    `progress` is called with the number of tiles done since the last call and the number of all.
    `taken` are names of scenes, case folded, whose maps must not be replaced even with `overwrite`.
    A scene whose `run.json` matches is left as it is. Until all files are whole nothing in `output`
    changes. Raises SceneError if the scene cannot be read, OutputError if a file cannot be written or
    another run's files are in the way, UsageError for options that do not fit the model.
    """
    started = time.perf_counter()
    card = predictor.card
    options.check(card)
    scene = open_scene(path, card, options.scene)
    if options.overwrite and scene.name.casefold() in taken:
        raise OutputError(
            f"A map of another scene named {scene.name} was just written to {output}: "
            "classify the two into different folders with -o."
        )
    make_folder(output)
    wanted = identity(scene, card, options.that_decide_the_map(card))
    if not options.overwrite and (record := finished_run(output, scene.name, wanted)):
        files = {kind: output / file for kind, file in record["files"].items()}
        return Result(scene.name, files, areas_of(record), record["tiles"], record["seconds"], skipped=True)
    for note in scene.notes:
        log.log(logging.WARNING if note.level == "warning" else logging.INFO, "%s: %s", scene.name, note.text)

    land_cover, tiles = map_scene(scene, predictor, options, progress)
    if tiles == 0:
        log.warning("%s: the scene has no valid pixel, so its map is all no data.", scene.name)
    areas = class_areas(land_cover)
    with staging_folder(output, scene.name) as staging:
        files = write_outputs(land_cover, staging, scene.name, card, options)
        files["run"] = record_path(staging, scene.name)
        seconds = time.perf_counter() - started
        rows, columns = land_cover.class_id.shape
        record = make_record(
            wanted,
            scene,
            files={kind: file.name for kind, file in files.items()},
            areas=areas,
            counts={"tiles": tiles, "cells": {"rows": rows, "columns": columns}},
            seconds=seconds,
            predictor=predictor.description,
        )
        write_file(files["run"], (json.dumps(record, indent=2) + "\n").encode())
        possible = {scene.name + ending for ending in (*OUTPUTS.values(), *SIDE_FILES)}
        publish(staging, output, last=files["run"].name, stale=possible - set(record["files"].values()))
    return Result(
        scene.name, {kind: output / file.name for kind, file in files.items()}, areas, tiles, seconds
    )


def map_scene(
    scene: Scene,
    predictor: Predictor,
    options: ClassifyOptions,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[LandcoverMap, int]:
    """Classify an opened scene; returns its map, and how many tiles the network saw."""
    card = predictor.card
    grid = TileGrid(scene.width, scene.height, card.tile_size, options.stride_for(card))
    builder = MapBuilder(
        grid,
        card.classes,
        min_confidence=options.min_confidence,
        keep_probabilities=options.probabilities,
    )
    tiles = 0
    threads = options.reader_threads or READER_THREADS[predictor.device.type]
    with closing(read_blocks(scene, grid, threads=threads)) as blocks:
        for block, probabilities in predictor.predict(blocks, scene.pixel_transform, grid.tile_count):
            builder.add(block, probabilities)
            tiles += len(block.index)
            if progress is not None:  # tiles left out for want of data count as done
                progress(block.tile_rows * grid.tile_cols, grid.tile_count)
    return builder.finish(scene.crs, scene.transform), tiles


def describe_scene(path: str, card: ModelCard, options: ClassifyOptions) -> dict[str, Any]:
    """Return what would be done with a scene, and why, as plain values in the order to show them."""
    scene = open_scene(path, card, options.scene)
    stride = options.stride_for(card)
    grid = TileGrid(scene.width, scene.height, card.tile_size, stride)
    return {
        "scene": scene.name,
        "ground grid": f"{scene.width}x{scene.height} pixels of {abs(scene.transform.a):g} m",
        "crs": str(scene.crs) if scene.crs else "none (pixel space)",
        "bands": " ".join(scene.bands),
        "pixels": str(scene.dtype),
        "tiles": f"{grid.tile_count} ({grid.tile_rows} rows x {grid.tile_cols} columns)",
        "map": f"{grid.cell_rows}x{grid.cell_cols} cells of {stride * abs(scene.transform.a):g} m",
        "notes": [asdict(note) for note in scene.notes],
    }


def write_outputs(
    land_cover: LandcoverMap, folder: Path, name: str, card: ModelCard, options: ClassifyOptions
) -> dict[str, Path]:
    """Write a map's files, all but `run.json`; returns them by kind."""
    files = {
        kind: folder / f"{name}{OUTPUTS[kind]}"
        for kind in ("landcover", "names", "confidence", "style", "areas")
    }
    tags = {"model": card.name, "model_digest": card.digest}
    write_landcover(land_cover, files["landcover"], tags)
    write_confidence(land_cover, files["confidence"], tags)
    write_style(land_cover.classes, files["style"])
    write_areas(land_cover, files["areas"])
    if options.probabilities:
        files["probabilities"] = folder / f"{name}{OUTPUTS['probabilities']}"
        write_probabilities(land_cover, files["probabilities"], tags)
    if options.preview:
        files["preview"] = folder / f"{name}{OUTPUTS['preview']}"
        write_preview(land_cover, files["preview"], title=name)
    if options.polygons != "none" and not polygons_possible(options.polygons, land_cover.crs):
        log.warning(
            "%s: no polygons, since GeoJSON is in WGS 84 and the scene has no CRS: choose --polygons gpkg.",
            name,
        )
    elif options.polygons != "none":
        files["polygons"] = folder / f"{name}_landcover{POLYGON_SUFFIXES[options.polygons]}"
        write_polygons(land_cover, files["polygons"], options.polygons)
    return files
