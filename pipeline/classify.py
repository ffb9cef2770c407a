"""One scene, start to finish: from its pixels to the files of its land-cover map."""

import json
import logging
import os
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.addresses import shown
from pipeline.errors import OutputError, SceneError
from pipeline.files import longest_stem, make_folder, publish, staging_folder, write_file
from pipeline.journal import Journal, journal_path
from pipeline.maps.areas import ClassArea, class_areas
from pipeline.maps.landcover_map import LandcoverMap, MapBuilder
from pipeline.maps.outputs import OutputContext, possible_files, scene_outputs, write_outputs
from pipeline.maps.prior import Prior, check_prior, find_prior
from pipeline.maps.record import Record, Run, areas_of, earlier_run, identity, make_record, record_path
from pipeline.maps.rules import NO_CONFIDENCE
from pipeline.model.card import ModelCard
from pipeline.notes import Note, log_note, warning
from pipeline.options import ClassifyOptions
from pipeline.scenes.reader import read_blocks
from pipeline.scenes.scene import Scene, open_scene
from pipeline.tiles import TileBlock, TileGrid

if TYPE_CHECKING:  # torch takes seconds to load, and describing a scene does without it
    from pipeline.model.predictor import Predictor

log = logging.getLogger(__name__)

READER_THREADS = {"cpu": 2, "cuda": 8}
"""A core decompresses some 100 million pixels a second: on the CPU the network leaves no core for more than
reading ahead, while a GPU would have to wait for its pixels."""

UNSURE = 40
"""Percent. Of ten classes the shipped RGB models are less sure than this of nearly all clouds and snow, and
of one cell in twelve of clear scenes: where most of a map is like that, something is wrong with it."""


@dataclass(frozen=True)
class Result:
    """A classified scene."""

    scene: str
    """The scene's name."""

    files: dict[str, Path]
    """The map's files by kind."""

    areas: tuple[ClassArea, ...]
    """The area of each class."""

    tiles: int
    """How many tiles the network classified."""

    seconds: float
    """How long it took."""

    skipped: bool = False
    """Whether an earlier run had made the map already."""

    warnings: tuple[str, ...] = ()
    """What that earlier run warned of."""


@dataclass(frozen=True)
class PreparedScene:
    """A scene that was opened and is being read: the network may begin."""

    scene: Scene
    """The scene."""

    output: Path
    """The folder for its map."""

    card: ModelCard
    """What is known of the model."""

    options: ClassifyOptions
    """What the user decided."""

    identity: Record
    """What decides the map, see `record.identity`."""

    prior: Prior
    """How common the classes are where it lies."""

    grid: TileGrid
    """Its tiles and cells."""

    journal: Journal
    """Where progress is kept."""

    done: tuple[tuple[TileBlock, np.ndarray], ...]
    """The blocks that an interrupted run left in the journal, with their probabilities."""

    blocks: Generator[TileBlock]
    """The blocks still to be classified."""

    started: float
    """When work began, by `time.perf_counter`."""

    def close(self) -> None:
        """End the threads that read the scene, if it is not to be classified after all."""
        self.blocks.close()


@dataclass(frozen=True)
class ComputedMap:
    """A scene's map in memory, to be written."""

    prepared: PreparedScene
    """The scene."""

    landcover: LandcoverMap
    """Its map."""

    tiles: int
    """How many tiles the network classified."""

    predictor: Record
    """What the network ran on, see `Predictor.describe`."""


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
    A scene whose `run.json` matches is left as it is. Nothing in `output` changes until all files are
    complete. A long run that is interrupted is resumed by the next one.

    Raises:
        SceneError: the scene cannot be read.
        OutputError: a file cannot be written, or another run's files are in the way.
        UsageError: the options do not fit the model.
        DeviceError, ModelError: see `Predictor.predict`.
    """
    prepared = prepare_scene(path, output, predictor, options, taken)
    if isinstance(prepared, Result):
        return prepared
    return write_map(compute_map(prepared, predictor, progress))


def check_options(options: ClassifyOptions, card: ModelCard) -> None:
    """Raise UsageError if an option is out of range, or does not suit the model."""
    options.check(card.tile_size)
    check_prior(options.prior, card)


# Step 1: prepare


def prepare_scene(
    path: str,
    output: Path,
    predictor: "Predictor",
    options: ClassifyOptions,
    taken: Collection[str] = (),
) -> PreparedScene | Result:
    """Open a scene and begin to read it, or return the result of the earlier run that made its map.

    Raises as `classify_scene` does.
    """
    started = time.perf_counter()
    card = predictor.card
    check_options(options, card)
    scene, prior = _open(path, card, options)
    if options.overwrite and scene.name.casefold() in taken:
        raise _name_taken(scene.name, output)
    _check_name(scene)
    make_folder(output)
    wanted = _identity_of(scene, prior, card, options)
    if not options.overwrite and (result := _finished(scene.name, output, wanted, options)):
        with suppress(OSError):  # it is still there if that run was killed just before its last step
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
        log.info("%s: resuming after %d of %d rows of tiles.", scene.name, first_row, grid.tile_rows)
    threads = options.reader_threads or READER_THREADS[predictor.device.type]
    blocks = _begin(read_blocks(scene, grid, first_row=first_row, threads=threads))
    return PreparedScene(scene, output, card, options, wanted, prior, grid, journal, done, blocks, started)


def _name_taken(name: str, output: Path) -> OutputError:
    return OutputError(
        f"A map of another scene named {name} was just written to {output}: "
        "classify the two into different folders with `output`."
    )


def _check_name(scene: Scene) -> None:
    """Raise SceneError if the names of the map's files would be too long, now rather than hours later."""
    longest = longest_stem(possible_files("", scene_outputs()))
    if (length := len(os.fsencode(scene.name))) > longest:
        raise SceneError(
            f"The name of {shown(scene.path)} has {length} bytes, and the endings of its map's files leave "
            f"room for {longest}: rename it, or give a link with a shorter name."
        )


def _open(path: str, card: ModelCard, options: ClassifyOptions) -> tuple[Scene, Prior]:
    """Open a scene and choose the prior for its place, which its notes tell too."""
    scene = open_scene(path, card, options.scene)
    prior, note = find_prior(options.prior, card, scene.place)
    return replace(scene, notes=(*scene.notes, note)), prior


def _identity_of(scene: Scene, prior: Prior, card: ModelCard, options: ClassifyOptions) -> Record:
    """Return what decides the map of a scene, see `record.identity`.

    The prior is that which was chosen, with its shares: a file may be changed.
    """
    decisive = {**options.identity(card.tile_size), "prior": prior.record()}
    return identity(card, scene.fingerprint(), decisive)


def _finished(name: str, output: Path, wanted: Record, options: ClassifyOptions) -> Result | None:
    """Return the result of the earlier run if it made the map that is wanted, None if there is work to do.

    Raises:
        OutputError: another map of that name is in the way.
    """
    record, different = earlier_run(output, name, wanted)
    if record is None or (different and options.refresh):
        return None
    if different:
        raise OutputError(
            f"{output} holds a map of {name} made with {_differences(different)}: "
            "choose another folder with `output` or pass `overwrite`."
        )
    return Result(
        scene=name,
        files={kind: output / file for kind, file in record["files"].items()},
        areas=areas_of(record),
        tiles=record["tiles"],
        seconds=record["seconds"],
        skipped=True,
        warnings=tuple(f"{name}: {note['text']}" for note in record["notes"] if note["level"] == "warning"),
    )


def _differences(different: Iterable[str]) -> str:
    """Say in words what of an earlier run differs: keys of its identity, or its program."""
    return " and ".join("other options" if key == "options" else f"another {key}" for key in different)


def _begin(blocks: Generator[TileBlock]) -> Generator[TileBlock]:
    """Return the same blocks after reading the first; the others are being read meanwhile."""

    def begun() -> Generator[Any]:
        with closing(blocks):
            first = list(islice(blocks, 1))
            yield
            while first:  # popped, so that it is not held in memory until the scene is done
                yield first.pop()
            yield from blocks

    generator = begun()
    next(generator)
    return generator


# Step 2: compute


def compute_map(
    prepared: PreparedScene,
    predictor: "Predictor",
    progress: Callable[[int, int], None] | None = None,
    on_all_submitted: Callable[[], None] = lambda: None,
) -> ComputedMap:
    """Classify the tiles of a prepared scene; `progress` as for `classify_scene`.

    `on_all_submitted` is called once the device has all tiles: from then on another thread may submit the
    next scene's.

    Raises:
        SceneError: the scene turns out to be unreadable.
        DeviceError, ModelError: see `Predictor.predict`.
    """
    scene, grid, options = prepared.scene, prepared.grid, prepared.options
    builder = MapBuilder(
        grid,
        prepared.card.classes,
        min_confidence=options.min_confidence,
        keep_probabilities=options.probabilities,
    )
    tiles = 0

    def add(block: TileBlock, probabilities: np.ndarray) -> None:
        nonlocal tiles
        builder.add(block, prepared.prior.apply(probabilities))
        tiles += len(block.index)
        if progress is not None:  # tiles without data, which the network does not see, count as done
            progress(block.tile_rows * grid.tile_cols, grid.tile_count)

    try:
        with closing(prepared.blocks) as blocks:
            for block, probabilities in prepared.done:
                add(block, probabilities)
            for block, probabilities in predictor.predict(
                blocks,
                scene.pixel_transform,
                grid.tile_count,
                tta=options.tta,
                on_all_submitted=on_all_submitted,
            ):
                add(block, probabilities)
                prepared.journal.add(block, probabilities)
    except SceneError:
        if scene.files:  # a local file would fail in the same way again; a remote one may recover
            prepared.journal.remove()
        raise
    landcover = builder.finish(scene.crs, scene.transform)
    return ComputedMap(prepared, landcover, tiles, predictor.describe(grid.tile_count, options.tta))


# Step 3: write


def write_map(computed: ComputedMap) -> Result:
    """Write and publish the files of a map.

    Raises:
        OutputError: a file cannot be written.
        SceneError: the scene was changed since it was opened.
    """
    prepared, landcover = computed.prepared, computed.landcover
    scene, output = prepared.scene, prepared.output
    _check_unchanged(prepared)
    doubts = tuple(_doubts(landcover, scene, prepared.options.min_confidence))
    for doubt in doubts:
        log_note(log, scene.name, doubt)
    with staging_folder(output, scene.name) as staging:
        files = _write_outputs(computed, staging)
        run = Run(
            scene=shown(scene.path),
            notes=(*scene.notes, *doubts),
            files={kind: file.name for kind, file in files.items()},
            tiles=computed.tiles,
            shape=landcover.class_id.shape,
            areas=class_areas(landcover),
            seconds=time.perf_counter() - prepared.started,
            predictor=computed.predictor,
        )
        record = make_record(prepared.identity, run)
        write_file(files["run"], (json.dumps(record, indent=2) + "\n").encode())
        stale = possible_files(scene.name, scene_outputs()) - set(run.files.values())
        publish(staging, output, last=files["run"].name, stale=stale)
    prepared.journal.remove()
    published = {kind: output / file.name for kind, file in files.items()}
    return Result(scene.name, published, run.areas, computed.tiles, run.seconds)


def _check_unchanged(prepared: PreparedScene) -> None:
    """Raise SceneError if the scene's files are not those that were opened."""
    if prepared.scene.fingerprint() != prepared.identity["input"]:
        prepared.journal.remove()
        raise SceneError(
            f"{prepared.scene.name} was changed or removed while it was read: classify it again."
        )


def _write_outputs(computed: ComputedMap, folder: Path) -> dict[str, Path]:
    """Write a map's files into `folder`; returns them by kind, and where the record has to be written."""
    prepared = computed.prepared
    card, name = prepared.card, prepared.scene.name
    context = OutputContext(computed.landcover, name, {"model": card.name, "model_digest": card.digest})
    wanted = [output for output in scene_outputs() if output.applies(prepared.options)]
    return {**write_outputs(wanted, context, folder), "run": record_path(folder, name)}


def _doubts(landcover: LandcoverMap, scene: Scene, min_confidence: int) -> Iterator[Note]:
    """Yield warnings of a map that should not be trusted: it is empty, or mostly guessed."""
    confidence = landcover.confidence[landcover.confidence != NO_CONFIDENCE]
    if not confidence.size:
        yield _empty_map(scene)
    elif (unsure := float((confidence < UNSURE).mean())) > 0.5:
        remedy = "" if min_confidence >= UNSURE else f" `min_confidence` {UNSURE} leaves such cells out."
        yield warning(
            "map-unsure",
            "min_confidence",
            f"The model is less than {UNSURE} % sure of {unsure:.0%} of the map. It may be clouds or snow, "
            "ground unlike any that the model learnt from, or pixels taken for what they are not (`level`, "
            f"`offset`, `bands`).{remedy}",
        )


def _empty_map(scene: Scene) -> Note:
    text = "The scene has no valid pixel, so its map is all no data"
    if not scene.masks:
        return warning("map-empty", None, f"{text}.")
    masks = " and ".join(mask.name for mask in scene.masks)
    return warning(
        "map-empty",
        "mask",
        f"{text}: look at the mask {masks}, of which only a known scene classification may have classes; any "
        "other has to be 0 where pixels are valid, also one whose bits stand for clouds and water (Fmask).",
    )


# Looking at a scene without classifying it


def scene_is_done(path: str, output: Path, card: ModelCard, options: ClassifyOptions) -> str | None:
    """Return why `classify_scene` would classify a scene, None if its map is there already.

    Reads headers, and a sample if needed. Raises as `open_scene` does.
    """
    scene, prior = _open(path, card, options)
    record, different = earlier_run(output, scene.name, _identity_of(scene, prior, card, options))
    if record is None:
        return "new"
    if different:
        return _differences(different)
    return "asked for" if options.overwrite else None


def describe_scene(path: str, card: ModelCard, options: ClassifyOptions) -> dict[str, Any]:
    """Return what would be done with a scene, and why, as plain values in the order to show them."""
    scene, _ = _open(path, card, options)
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
