"""Messages between a batch and its workers, and the words for a scene's status: plain values only.

This module imports nothing heavy, so that a batch need not load what its workers load.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import LandcoverError
from pipeline.options import ClassifyOptions, PredictorOptions

# The stages of a scene in a worker. A waiting scene makes no progress because another one goes first.
WAITING, OPENING, CLASSIFYING, WRITING = "waiting", "being opened", "being classified", "being written"

DONE, SKIPPED, FAILED, INTERRUPTED, WANTED = "done", "skipped", "failed", "interrupted", "to do"


@dataclass(frozen=True)
class Setup:
    """What every worker needs to know; the same for all of them."""

    model: str
    """The name or folder of the model."""

    options: ClassifyOptions = field(default_factory=ClassifyOptions)
    """How each scene is classified."""

    predictor: PredictorOptions = field(default_factory=PredictorOptions)
    """How a worker computes."""

    workers: int | None = None
    """How many workers share the machine; None for one per device."""

    look_only: bool = False
    """Only report what would be done with each scene."""

    debug: bool = False
    """Log everything."""

    heartbeat: float = 10.0
    """Seconds between two heartbeats of a worker."""


@dataclass(frozen=True)
class Task:
    """A scene to classify."""

    index: int
    """The scene's position in the batch."""

    path: str
    """The scene, as `open_scene` takes it."""

    output: Path
    """The folder for the map."""

    log: Path | None = None
    """The scene's log file; None to log nothing."""

    retry: bool = False
    """Whether to try once more after a failure, since a remote scene may be available again later."""

    tries: int = 0
    """How often it failed before."""

    alone: bool = False
    """Whether no other scene may be worked on at the same time."""


@dataclass(frozen=True)
class Ready:
    """A worker has loaded the model."""

    model: dict[str, Any]
    """The model's name, digest and classes, for the report."""

    device: str
    """The device that the worker computes on."""

    devices: int
    """How many devices of this kind the machine has."""


@dataclass(frozen=True)
class SetupFailed:
    """A worker cannot use its setup, and no other worker could."""

    error: LandcoverError
    """Why not."""


@dataclass(frozen=True)
class Idle:
    """A worker can take another scene."""

    worker: int
    """The worker's number."""


@dataclass(frozen=True)
class Heartbeat:
    """A worker's process is still running."""


@dataclass(frozen=True)
class Stage:
    """A scene has reached another stage."""

    index: int
    """The scene's position in the batch."""

    stage: str
    """One of `WAITING`, `OPENING`, `CLASSIFYING` and `WRITING`."""


@dataclass(frozen=True)
class Tiles:
    """More tiles of a scene are classified."""

    index: int
    """The scene's position in the batch."""

    count: int
    """How many more."""


@dataclass(frozen=True)
class Outcome:
    """How a scene ended."""

    index: int
    """The scene's position in the batch."""

    status: str
    """`DONE`, `SKIPPED`, `FAILED` or `INTERRUPTED`; `WANTED` if scenes are only looked at."""

    reason: str = ""
    """Why, in one sentence; empty where the status says it all."""

    name: str = ""
    """What the map's files are called; empty if the scene was never opened."""

    seconds: float = 0.0
    """How long it took."""

    tiles: int = 0
    """How many tiles were classified."""

    files: dict[str, str] = field(default_factory=dict)
    """Paths of the map's files, by kind."""

    areas: tuple[dict[str, Any], ...] = ()
    """The map's area per class, one row each."""

    warnings: tuple[str, ...] = ()
    """What the user should know before trusting the map."""

    memory: int | None = None
    """Bytes: the worker's peak memory so far; None if unknown."""

    unexpected: bool = False
    """Whether it failed in a way that may not happen again in a fresh worker."""
