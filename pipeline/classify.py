"""One scene, start to finish: from its pixels to the files of its land-cover map."""

import json
import logging
import time
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import OutputError, SceneError
from pipeline.files import make_folder, publish, staging_folder, write_file
from pipeline.journal import Journal, journal_path
from pipeline.maps.areas import ClassArea, class_areas, write_areas
from pipeline.maps.cog import write_confidence, write_landcover, write_probabilities
from pipeline.maps.landcover_map import NO_CONFIDENCE, LandcoverMap, MapBuilder
from pipeline.maps.polygons import POLYGON_SUFFIXES, polygons_possible, write_polygons
from pipeline.maps.preview import write_preview
from pipeline.maps.record import (
    Record,
    areas_of,
    earlier_run,
    fingerprint,
    identity,
    make_record,
    record_path,
)
from pipeline.maps.style import write_style
from pipeline.model.card import ModelCard
from pipeline.notes import Note, log_note, warning
from pipeline.options import ClassifyOptions
from pipeline.scenes.reader import read_blocks
from pipeline.scenes.scene import Scene, open_scene
from pipeline.tiles import TileBlock, TileGrid

if TYPE_CHECKING:  # torch takes seconds to load, and describing a scene does without it
    from pipeline.model.predictor import Predictor

log = logging.getLogger(__name__)

# Decompressing is a core's work of some 100 million pixels a second: on the CPU the network leaves no
# core for more than reading ahead, on a GPU it is what the device would wait for.
READER_THREADS = {"cpu": 2, "cuda": 8}

# Percent. Of ten classes the shipped RGB models are less sure than this of nearly all clouds and snow, and of
# one cell in twelve of clear scenes: where most of a map is like that, something is wrong with it.
UNSURE = 40

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
class Result:
    """One scene done: the map, where its files are, and how it went.

    `skipped` if an earlier run did it; `warnings` are what that one warned of.
    """

    scene: str
    files: dict[str, Path]
    areas: tuple[ClassArea, ...]
    tiles: int
    seconds: float
    skipped: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class PreparedScene:
    """A scene of which all is known and whose first pixels are read: the network may begin.

    `done` are blocks that an earlier run left in the journal, `blocks` those still to be classified.
    """

    scene: Scene
    output: Path
    card: ModelCard
    options: ClassifyOptions
    identity: Record
    grid: TileGrid
    journal: Journal
    done: tuple[tuple[TileBlock, np.ndarray], ...]
    blocks: Generator[TileBlock]
    started: float  # by time.perf_counter

    def close(self) -> None:
        """End the threads that read, if the scene is not to be classified after all."""
        self.blocks.close()


@dataclass(frozen=True)
class ComputedMap:
    """A scene's map, to be written; `tiles` is how many the network saw, `predictor` what it ran on."""

    prepared: PreparedScene
    land_cover: LandcoverMap
    tiles: int
    predictor: Record


def classify_scene(
    path: str,
    output: Path,
    predictor: "Predictor",
    options: ClassifyOptions = ClassifyOptions(),
    progress: Callable[[int, int], None] | None = None,
    taken: Collection[str] = (),
) -> Result:
    """Classify one scene and write its files into the folder `output`.

    `progress` is called with the number of tiles done since the last call and the number of all.
    `taken` are names of scenes, case folded, whose maps must not be replaced even with `overwrite`.
    A scene whose `run.json` matches is left as it is. Until all files are whole nothing in `output`
    changes. A long run that is interrupted is resumed by the next one. Raises SceneError if the scene
    cannot be read, OutputError if a file cannot be written or another run's files are in the way,
    UsageError for options that do not fit the model, DeviceError and ModelError as the predictor does.
    """
    prepared = prepare_scene(path, output, predictor, options, taken)
    if isinstance(prepared, Result):
        return prepared
    return write_map(compute_map(prepared, predictor, progress))


def prepare_scene(
    path: str,
    output: Path,
    predictor: "Predictor",
    options: ClassifyOptions,
    taken: Collection[str] = (),
) -> PreparedScene | Result:
    """Open a scene and begin to read it; the result of the earlier run if its map is there already.

    Raises as `classify_scene` does.
    """
    started = time.perf_counter()
    card = predictor.card
    options.check(card.tile_size)
    scene = open_scene(path, card, options.scene)
    if options.overwrite and scene.name.casefold() in taken:
        raise OutputError(
            f"A map of another scene named {scene.name} was just written to {output}: "
            "classify the two into different folders with `output`."
        )
    make_folder(output)
    wanted = identity(scene, card, options.identity(card.tile_size))
    if not options.overwrite and (result := _finished(scene.name, output, wanted, options)):
        with suppress(OSError):  # it is there still if that run was killed between its last two steps
            journal_path(output, scene.name).unlink(missing_ok=True)
        return result
    for note in scene.notes:
        log_note(log, scene.name, note)

    grid = TileGrid(scene.width, scene.height, card.tile_size, options.stride_for(card.tile_size))
    journal = Journal(
        journal_path(output, scene.name),
        {**wanted, "computed": [predictor.device.type, str(predictor.precision)]},
        wait=options.journal_after,
    )
    done = tuple(journal.blocks())
    first_row = sum(block.tile_rows for block, _ in done)
    if done:
        log.info("%s: going on after %d of %d rows of tiles.", scene.name, first_row, grid.tile_rows)
    blocks = _begin(
        read_blocks(
            scene,
            grid,
            first_row=first_row,
            threads=options.reader_threads or READER_THREADS[predictor.device.type],
        )
    )
    return PreparedScene(scene, output, card, options, wanted, grid, journal, done, blocks, started)


def _finished(name: str, output: Path, wanted: Record, options: ClassifyOptions) -> Result | None:
    """Return the result of an earlier run that is the one wanted; OutputError if its files are in the way."""
    record, different = earlier_run(output, name, wanted)
    if record is None or (different and options.refresh):
        return None
    if different:
        raise OutputError(
            f"{output} holds a map of {name} made with another {' and '.join(different)}: "
            "choose another folder with `output` or pass `overwrite`."
        )
    files = {kind: output / file for kind, file in record["files"].items()}
    warnings = tuple(f"{name}: {note['text']}" for note in record["notes"] if note["level"] == "warning")
    return Result(
        name, files, areas_of(record), record["tiles"], record["seconds"], skipped=True, warnings=warnings
    )


def _begin(blocks: Generator[TileBlock]) -> Generator[TileBlock]:
    """Return the same blocks, of which the first is read already and others are being read."""

    def begun() -> Generator[Any]:
        with closing(blocks):
            first = list(islice(blocks, 1))
            yield
            while first:  # not to be kept until the scene is done
                yield first.pop()
            yield from blocks

    generator = begun()
    next(generator)
    return generator


def compute_map(
    prepared: PreparedScene,
    predictor: "Predictor",
    progress: Callable[[int, int], None] | None = None,
    fed: Callable[[], None] = lambda: None,
) -> ComputedMap:
    """Classify what `prepare_scene` opened; `progress` as for `classify_scene`.

    `fed` is called once the device has all tiles: another thread may then let it have the next scene's.

    Raises SceneError if the scene turns out to be unreadable, DeviceError and ModelError as the
    predictor does.
    """
    grid, options = prepared.grid, prepared.options
    builder = MapBuilder(
        grid,
        prepared.card.classes,
        min_confidence=options.min_confidence,
        keep_probabilities=options.probabilities,
    )
    tiles = 0

    def add(block: TileBlock, probabilities: np.ndarray) -> None:
        nonlocal tiles
        builder.add(block, probabilities)
        tiles += len(block.index)
        if progress is not None:  # tiles left out for want of data count as done
            progress(block.tile_rows * grid.tile_cols, grid.tile_count)

    scene = prepared.scene
    try:
        with closing(prepared.blocks) as blocks:
            for block, probabilities in prepared.done:
                add(block, probabilities)
            for block, probabilities in predictor.predict(
                blocks, scene.pixel_transform, grid.tile_count, tta=options.tta, on_all_submitted=fed
            ):
                add(block, probabilities)
                prepared.journal.add(block, probabilities)
    except SceneError:
        if scene.files:  # the same again would end the same; what is remote may come back
            prepared.journal.remove()
        raise
    land_cover = builder.finish(scene.crs, scene.transform)
    return ComputedMap(prepared, land_cover, tiles, predictor.describe(grid.tile_count, options.tta))


def write_map(computed: ComputedMap) -> Result:
    """Write and publish the files of a map.

    Raises OutputError if one cannot be written, SceneError if the scene is no longer what was opened.
    """
    prepared, land_cover = computed.prepared, computed.land_cover
    scene, output, options = prepared.scene, prepared.output, prepared.options
    if fingerprint(scene) != prepared.identity["input"]:
        prepared.journal.remove()
        raise SceneError(f"{scene.name} was changed or removed while it was read: classify it again.")
    doubts = tuple(_doubts(land_cover, options.min_confidence))
    for doubt in doubts:
        log_note(log, scene.name, doubt)
    areas = class_areas(land_cover)
    with staging_folder(output, scene.name) as staging:
        files = write_outputs(land_cover, staging, scene.name, prepared.card, options)
        files["run"] = record_path(staging, scene.name)
        seconds = time.perf_counter() - prepared.started
        rows, columns = land_cover.class_id.shape
        record = make_record(
            prepared.identity,
            scene,
            notes=(*scene.notes, *doubts),
            files={kind: file.name for kind, file in files.items()},
            areas=areas,
            counts={"tiles": computed.tiles, "cells": {"rows": rows, "columns": columns}},
            seconds=seconds,
            predictor=computed.predictor,
        )
        write_file(files["run"], (json.dumps(record, indent=2) + "\n").encode())
        possible = {scene.name + ending for ending in (*OUTPUTS.values(), *SIDE_FILES)}
        publish(staging, output, last=files["run"].name, stale=possible - set(record["files"].values()))
    prepared.journal.remove()
    return Result(
        scene.name, {kind: output / file.name for kind, file in files.items()}, areas, computed.tiles, seconds
    )


def _doubts(land_cover: LandcoverMap, min_confidence: int) -> Iterator[Note]:
    """Yield what the user should know of a map before trusting it: that it is empty, or mostly guessed."""
    confidence = land_cover.confidence[land_cover.confidence != NO_CONFIDENCE]
    if not confidence.size:
        yield warning("map-empty", None, "The scene has no valid pixel, so its map is all no data.")
    elif (unsure := float((confidence < UNSURE).mean())) > 0.5:
        remedy = "" if min_confidence >= UNSURE else f" `min_confidence` {UNSURE} leaves such cells out."
        yield warning(
            "map-unsure",
            "min_confidence",
            f"The model is less than {UNSURE} % sure of {unsure:.0%} of the map. It may be clouds or snow, "
            "ground unlike any that the model learnt from, or pixels taken for what they are not (`level`, "
            f"`offset`, `bands`).{remedy}",
        )


def scene_is_done(path: str, output: Path, card: ModelCard, options: ClassifyOptions) -> str | None:
    """Return why `classify_scene` would classify a scene, None if its map is there already.

    Reads headers, and a sample if needed. Raises as `open_scene` does.
    """
    scene = open_scene(path, card, options.scene)
    wanted = identity(scene, card, options.identity(card.tile_size))
    record, different = earlier_run(output, scene.name, wanted)
    if record is None:
        return "new"
    if different:
        return f"another {' and '.join(different)}"
    return "asked for" if options.overwrite else None


def describe_scene(path: str, card: ModelCard, options: ClassifyOptions) -> dict[str, Any]:
    """Return what would be done with a scene, and why, as plain values in the order to show them."""
    scene = open_scene(path, card, options.scene)
    stride = options.stride_for(card.tile_size)
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
            "%s: no polygons, since GeoJSON is in WGS 84 and the scene has no CRS: choose `polygons` gpkg.",
            name,
        )
    elif options.polygons != "none":
        files["polygons"] = folder / f"{name}_landcover{POLYGON_SUFFIXES[options.polygons]}"
        write_polygons(land_cover, files["polygons"], options.polygons)
    return files
