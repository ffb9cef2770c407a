"""A worker: loads the model once, then classifies one scene after the other. Knows nothing of processes.

Scenes overlap. While one is classified, the next is opened and its first pixels are read. As soon as the
device has all tiles of one scene it gets the tiles of the next: it never waits for the last batches of a
small scene, nor for files to be written.
"""

import contextlib
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pipeline.addresses import scrub, shown
from pipeline.batch.messages import (
    CLASSIFYING,
    DONE,
    FAILED,
    OPENING,
    SKIPPED,
    WAITING,
    WANTED,
    WRITING,
    Outcome,
    Ready,
    Setup,
    Stage,
    Task,
    Tiles,
)
from pipeline.errors import DeviceError, LandcoverError
from pipeline.options import ClassifyOptions

if TYPE_CHECKING:
    import torch

    from pipeline.classify import ComputedMap, PreparedScene, Result
    from pipeline.model.bundle import Bundle
    from pipeline.model.card import ModelCard
    from pipeline.model.predictor import Predictor

T = TypeVar("T")
log = logging.getLogger(__name__)

# GDAL asks a server that fails or stops sending again a few times before the scene fails. Variables that the
# user has set win: https://gdal.org/user/configoptions.html#networking-options.
NETWORK_DEFAULTS = {
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "1",  # seconds, about twice as long each time
    "GDAL_HTTP_CONNECTTIMEOUT": "30",
    "GDAL_HTTP_LOW_SPEED_TIME": "60",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",  # bytes a second
}
PROGRESS_SECONDS = 0.2  # between two messages about tiles
MAX_FINISHING = 2  # scenes whose last batches are computed or files written while another one is classified


class Channel(Protocol):
    """How a worker talks to its executor. Any thread may send, but only one may receive tasks."""

    def send(self, message: object) -> None:
        """Send a message."""

    def next_task(self) -> Task:
        """Report `Idle`, wait for the next task and return it."""
        ...


@dataclass
class _ActiveScene:
    """A scene that this worker has; it collects the scene's warnings."""

    task: Task
    started: float = field(default_factory=time.perf_counter)
    warnings: list[str] = field(default_factory=list)
    logged: bool = False  # whether its log has a line of this worker


_CURRENT_SCENE: ContextVar[_ActiveScene | None] = ContextVar("scene", default=None)


class _SceneLogs(logging.Handler):
    """Writes each log record to the log file of the scene that it is about, and keeps the scene's warnings.

    The current scene is part of the context. Threads that read a scene's pixels inherit the context.
    """

    def __init__(self, debug: bool) -> None:
        super().__init__(logging.DEBUG if debug else logging.INFO)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))

    @contextlib.contextmanager
    def about(self, scene: _ActiveScene) -> Iterator[None]:
        """Have whatever this thread logs meanwhile, and the threads that it starts, be about `scene`."""
        token = _CURRENT_SCENE.set(scene)
        try:
            yield
        finally:
            _CURRENT_SCENE.reset(token)

    def emit(self, record: logging.LogRecord) -> None:
        scene = _CURRENT_SCENE.get()
        if scene is None:
            return
        if record.name.startswith("pipeline") and record.levelno == logging.WARNING:
            scene.warnings.append(scrub(record.getMessage(), scene.task.path))
        if scene.task.log is None:
            return
        append = scene.logged or scene.task.tries  # otherwise this replaces the log of an earlier run
        head = "" if scene.logged else f"{shown(scene.task.path)}, process {os.getpid()}\n"
        scene.logged = True
        with (
            contextlib.suppress(OSError),
            scene.task.log.open("a" if append else "w", encoding="utf-8", errors="backslashreplace") as file,
        ):
            file.write(f"{head}{scrub(self.format(record), scene.task.path)}\n")


def load_worker(channel: Channel, setup: Setup, number: int) -> "Worker":
    """Load the model onto the device of worker `number`, and report that it is ready.

    Raises:
        LandcoverError: there is no such model or device, or the options do not fit the model.
    """
    from pipeline.classify import check_options
    from pipeline.model.bundle import load_bundle

    for name, value in NETWORK_DEFAULTS.items():
        os.environ.setdefault(name, value)
    logs = _SceneLogs(setup.debug)
    logging.basicConfig(level=logs.level, handlers=[logs], force=True)
    logging.getLogger("rasterio").setLevel(logging.DEBUG if setup.debug else logging.WARNING)
    bundle = load_bundle(setup.model)
    check_options(setup.options, bundle.card)
    device, devices = _choose_device(setup, number)
    predictor = None if setup.look_only else _load_predictor(bundle, setup, device)
    model = {
        "name": bundle.card.name,
        "digest": bundle.card.digest,
        "classes": [asdict(entry) for entry in bundle.card.classes],
    }
    channel.send(Ready(model, str(device), devices))
    return Worker(channel, bundle.card, predictor, setup.options, logs)


def _choose_device(setup: Setup, number: int) -> "tuple[torch.device, int]":
    """Return the device for worker `number`, and how many devices share the work."""
    import torch

    from pipeline.model.device import find_device

    device = find_device(setup.predictor.device)
    devices = torch.cuda.device_count() if device.type == "cuda" and device.index is None else 1
    if devices > 1 and not setup.look_only:
        device = torch.device("cuda", number % devices)
    return device, devices


def _load_predictor(bundle: "Bundle", setup: Setup, device: "torch.device") -> "Predictor":
    """Load the network onto a device; on the CPU, the workers share the cores."""
    import torch

    from pipeline.model.predictor import Predictor
    from pipeline.model.weights import load_network

    if device.type == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // (setup.workers or 1)))
    return Predictor(load_network(bundle), bundle.card, replace(setup.predictor, device=str(device)))


@dataclass
class Worker:
    """Takes scenes through their stages, a few at a time, each at another stage."""

    channel: Channel
    """The connection to the batch."""

    card: "ModelCard"
    """The model's card."""

    predictor: "Predictor | None"
    """The model on its device; None if scenes are only looked at."""

    options: ClassifyOptions
    """How each scene is classified."""

    logs: _SceneLogs
    """Writes what is logged into the log of the scene that it is about."""

    _writing: threading.Lock = field(default_factory=threading.Lock)  # Matplotlib and some drivers need it

    def run(self) -> None:
        """Take scenes until killed: one thread opens them one by one, the others classify one each."""
        running: deque[Future[None]] = deque()
        with (
            ThreadPoolExecutor(1, "prepare") as preparing,
            ThreadPoolExecutor(1 + MAX_FINISHING) as classifying,
        ):
            upcoming = preparing.submit(self._prepare)
            while True:
                scene, prepared = upcoming.result()
                upcoming = preparing.submit(self._prepare)
                while len(running) > MAX_FINISHING or (running and running[0].done()):
                    running.popleft().result()
                device_free = threading.Event()
                running.append(classifying.submit(self._classify, scene, prepared, device_free))
                device_free.wait()

    def _prepare(self) -> "tuple[_ActiveScene, PreparedScene]":
        """Return the next scene that needs classifying."""
        while True:
            scene = _ActiveScene(self.channel.next_task())
            if self.predictor is None:
                self._look(scene)
            elif (prepared := self._open(scene, self.predictor)) is not None:
                return scene, prepared

    def _look(self, scene: _ActiveScene) -> None:
        from pipeline.classify import scene_is_done

        task = scene.task
        reason = self._attempt(
            scene, OPENING, lambda: scene_is_done(task.path, task.output, self.card, self.options) or ""
        )
        if reason is not None:
            self._report(scene, WANTED if reason else SKIPPED, reason or "done already")

    def _open(self, scene: _ActiveScene, predictor: "Predictor") -> "PreparedScene | None":
        from pipeline.classify import Result, prepare_scene

        task = scene.task
        prepared = self._attempt(
            scene, OPENING, lambda: prepare_scene(task.path, task.output, predictor, self.options)
        )
        if isinstance(prepared, Result):
            self._report_result(scene, prepared)
            return None
        if prepared is not None:
            self.channel.send(Stage(task.index, WAITING))
        return prepared

    def _classify(self, scene: _ActiveScene, prepared: "PreparedScene", device_free: threading.Event) -> None:
        """Classify a scene and write its map; `device_free` is set once the device has all its tiles."""
        from pipeline.classify import write_map

        try:
            computed = self._compute(scene, prepared, device_free)
        finally:
            device_free.set()
        if computed is None:
            return
        self.channel.send(Stage(scene.task.index, WAITING))
        with self._writing:
            result = self._attempt(scene, WRITING, lambda: write_map(computed))
        if result is not None:
            self._report_result(scene, result)

    def _compute(
        self, scene: _ActiveScene, prepared: "PreparedScene", device_free: threading.Event
    ) -> "ComputedMap | None":
        from pipeline.classify import compute_map

        predictor = self.predictor
        assert predictor is not None
        tiles, sent = 0, time.monotonic()

        def progress(more: int, _: int) -> None:
            nonlocal tiles, sent
            tiles += more
            if time.monotonic() >= sent + PROGRESS_SECONDS:
                self.channel.send(Tiles(scene.task.index, tiles))
                tiles, sent = 0, time.monotonic()

        computed = self._attempt(
            scene, CLASSIFYING, lambda: compute_map(prepared, predictor, progress, device_free.set)
        )
        if computed is not None:
            self.channel.send(Tiles(scene.task.index, tiles))
        return computed

    def _attempt(self, scene: _ActiveScene, stage: str, call: Callable[[], T]) -> T | None:
        """Run one stage of a scene and return its result; None if it failed, after reporting that."""
        self.channel.send(Stage(scene.task.index, stage))
        with self.logs.about(scene):
            try:
                return call()
            except LandcoverError as error:
                # The device's memory may only be full for now, with what other programs hold.
                reason, unexpected = str(error), isinstance(error, DeviceError)
                log.error("%s", reason)  # noqa: TRY400 - the sentence says it all
            except Exception as error:
                kind = type(error).__name__
                reason = f"Unexpected {kind} while {stage} (a bug of ours; the log shows where): {error}"
                unexpected = True
                log.exception("%s", reason)
        self._report(scene, FAILED, scrub(reason, scene.task.path), unexpected=unexpected)
        return None

    def _report_result(self, scene: _ActiveScene, result: "Result") -> None:
        status = SKIPPED if result.skipped else DONE
        scene.warnings += result.warnings
        if not result.skipped:
            with self.logs.about(scene):
                log.info("%s: %d tiles in %.1f s.", result.scene, result.tiles, result.seconds)
        self._report(
            scene,
            status,
            "done already" if result.skipped else "",
            name=result.scene,
            seconds=result.seconds,
            tiles=result.tiles,
            files={kind: str(path) for kind, path in result.files.items()},
            areas=tuple(asdict(area) for area in result.areas),
        )

    def _report(self, scene: _ActiveScene, status: str, reason: str, **facts: Any) -> None:
        facts.setdefault("seconds", time.perf_counter() - scene.started)
        self.channel.send(
            Outcome(
                scene.task.index,
                status,
                reason,
                warnings=tuple(scene.warnings),
                memory=_peak_memory(),
                **facts,
            )
        )


def _peak_memory() -> int | None:
    """Return the peak memory of this process in bytes; None where the system does not report it."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
