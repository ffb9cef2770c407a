"""What a batch and its workers tell each other: plain values, so that neither needs what the other loads."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import LandcoverError
from pipeline.options import ClassifyOptions, PredictorOptions

# A scene's way through a worker. While it waits for the one before it, nobody waits for a sign of it.
OPENING, CLASSIFYING, WRITING, WAITING = "opened", "classified", "written", "waiting"

DONE, SKIPPED, FAILED, INTERRUPTED, WANTED = "done", "skipped", "failed", "interrupted", "to do"


@dataclass(frozen=True)
class Setup:
    """What all workers need to know to do the same."""

    model: str
    """The name or folder of the model."""

    options: ClassifyOptions = field(default_factory=ClassifyOptions)
    """How each scene is classified."""

    predictor: PredictorOptions = field(default_factory=PredictorOptions)
    """How a worker computes."""

    workers: int | None = None
    """How many share the machine; None for one a device."""

    look_only: bool = False
    """Look at the scenes and do nothing."""

    debug: bool = False
    """Log everything."""

    heartbeat: float = 10.0
    """Seconds between two messages that a worker's process is not stuck."""


@dataclass(frozen=True)
class Task:
    """A scene to classify into the folder `output`; `log` is the file for what there is to say of it.

    `tries` is how often it went wrong before; `alone` has no other scene be worked on meanwhile.
    """

    index: int
    path: str
    output: Path
    log: Path | None = None
    tries: int = 0
    alone: bool = False


@dataclass(frozen=True)
class Ready:
    """A worker has loaded the model: its facts for the report, and how many devices of its kind there are."""

    model: dict[str, Any]
    device: str
    devices: int


@dataclass(frozen=True)
class Unable:
    """A worker cannot work, and no other could."""

    error: LandcoverError


@dataclass(frozen=True)
class Hungry:
    """A worker has room for a scene."""


@dataclass(frozen=True)
class Alive:
    """A worker's process is not stuck as a whole."""


@dataclass(frozen=True)
class Stage:
    """A scene has come this far."""

    index: int
    stage: str


@dataclass(frozen=True)
class Tiles:
    """So many more tiles of a scene are classified."""

    index: int
    count: int


@dataclass(frozen=True)
class Outcome:
    """How it ended with a scene.

    `status` is one of done, skipped, failed and interrupted, or to do when scenes are only looked at;
    `reason` says why. `files` are the map's by kind, `areas` a row a class, `memory` the most that the
    worker has held so far, in bytes. `unexpected` is what another attempt, in a fresh worker, may spare.
    """

    index: int
    status: str
    reason: str = ""
    name: str = ""
    seconds: float = 0.0
    tiles: int = 0
    files: dict[str, str] = field(default_factory=dict)
    areas: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    memory: int | None = None
    unexpected: bool = False
