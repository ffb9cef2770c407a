"""A worker process: holds the model loaded, and has a few scenes in hand, each at another stage.

While one scene is classified, the next is opened and its first pixels are read. As soon as the device has
all tiles of the one, it is given the other's: it never waits for the last batches of a small scene, nor for
its files to be written.
"""

import contextlib
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.batch.inputs import shown
from pipeline.batch.messages import (
    CLASSIFYING,
    DONE,
    FAILED,
    OPENING,
    SKIPPED,
    WAITING,
    WANTED,
    WRITING,
    Alive,
    Hungry,
    Outcome,
    Ready,
    Setup,
    Stage,
    Task,
    Tiles,
    Unable,
)
from pipeline.errors import DeviceError, LandcoverError

if TYPE_CHECKING:
    from pipeline.classify import ComputedMap, PreparedScene, Result
    from pipeline.model.card import ModelCard
    from pipeline.model.predictor import Predictor
    from pipeline.options import ClassifyOptions

T = TypeVar("T")
log = logging.getLogger(__name__)

# A server that fails or falls silent is asked again a few times, and then the scene fails. Whoever sets
# these variables is right: https://gdal.org/user/configoptions.html#networking-options.
NETWORK = {
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "1",  # seconds, about twice as long each time
    "GDAL_HTTP_CONNECTTIMEOUT": "30",
    "GDAL_HTTP_LOW_SPEED_TIME": "60",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",  # bytes a second
}
TELL_EVERY = 0.2  # seconds between two messages about tiles
FINISHING = 2  # scenes at most whose last batches or files are awaited while another one is classified


def work(connection: Connection, setup: Setup, number: int, console: Path | None) -> None:
    """Be worker `number`: take tasks from the connection until killed. The process's main function.

    What libraries print goes to the file `console`.
    """
    _settle(console)
    channel = _Channel(connection)
    threading.Thread(target=_watch, args=(channel, setup.heartbeat), daemon=True).start()
    for name, value in NETWORK.items():
        os.environ.setdefault(name, value)
    try:
        worker = _load(channel, setup, number)
    except LandcoverError as error:
        channel.tell(Unable(error))
        return
    worker.run()


def _settle(console: Path | None) -> None:
    """Leave signals from the keyboard to the batch, and the terminal too."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):  # they were held back while this process was started
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    logging.raiseExceptions = False  # on a full disk, no log is no reason to fail
    with contextlib.suppress(OSError), open(console or os.devnull, "wb", buffering=0) as file:  # noqa: PTH123
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.enable()  # where it was when it crashed, and where it is when asked
    if hasattr(signal, "SIGUSR1"):
        faulthandler.register(signal.SIGUSR1)


def _watch(channel: "_Channel", heartbeat: float) -> None:
    """Say now and then that this process lives; end it at once when the batch is gone."""
    parent = parent_process()
    assert parent is not None
    while not wait([parent.sentinel], timeout=heartbeat):
        channel.tell(Alive())
    os._exit(1)


class _Channel:
    """The connection to the batch. Any thread may tell, one may ask."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._telling = threading.Lock()

    def tell(self, message: object) -> None:
        """Send a message; there is no going on without the batch."""
        try:
            with self._telling:
                self._connection.send(message)
        except OSError:
            os._exit(1)

    def ask(self) -> Task:
        """Return the next task, when the batch gives one."""
        self.tell(Hungry())
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            os._exit(1)


@dataclass
class _InHand:
    """A scene that is being worked on."""

    task: Task
    started: float = field(default_factory=time.perf_counter)
    warnings: list[str] = field(default_factory=list)
    logged: bool = False


_SCENE: ContextVar[_InHand | None] = ContextVar("scene", default=None)  # that what is logged is about


class _SceneLogs(logging.Handler):
    """Writes what is logged to the file of the scene that it is about, and keeps the scene's warnings.

    Which scene that is, the context tells, which threads that read for a scene are started with.
    """

    def __init__(self, debug: bool):
        super().__init__(logging.DEBUG if debug else logging.INFO)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))

    @contextlib.contextmanager
    def about(self, scene: _InHand) -> Iterator[None]:
        """What this thread logs meanwhile, and those that it starts, is about `scene`."""
        token = _SCENE.set(scene)
        try:
            yield
        finally:
            _SCENE.reset(token)

    def emit(self, record: logging.LogRecord) -> None:
        scene = _SCENE.get()
        if scene is None:
            return
        if record.name.startswith("pipeline") and record.levelno == logging.WARNING:
            scene.warnings.append(record.getMessage())
        if scene.task.log is None:
            return
        begun = scene.logged or scene.task.tries  # else it replaces the log of an earlier run
        head = "" if scene.logged else f"{shown(scene.task.path)}, process {os.getpid()}\n"
        scene.logged = True
        with (
            contextlib.suppress(OSError),
            scene.task.log.open("a" if begun else "w", encoding="utf-8", errors="backslashreplace") as file,
        ):
            file.write(f"{head}{self.format(record)}\n")


def _load(channel: _Channel, setup: Setup, number: int) -> "_Worker":
    """Load the model onto this worker's device, and tell what it is."""
    import torch

    from pipeline.model.bundle import load_bundle
    from pipeline.model.device import find_device
    from pipeline.model.predictor import Predictor
    from pipeline.model.weights import load_network

    logs = _SceneLogs(setup.debug)
    logging.basicConfig(level=logs.level, handlers=[logs], force=True)
    logging.getLogger("rasterio").setLevel(logging.DEBUG if setup.debug else logging.WARNING)
    bundle = load_bundle(setup.model)
    setup.options.check(bundle.card.tile_size)
    device = find_device(setup.predictor.device)
    devices = torch.cuda.device_count() if device.type == "cuda" and device.index is None else 1
    predictor = None
    if not setup.look_only:
        if devices > 1:
            device = torch.device("cuda", number % devices)
        if device.type == "cpu":
            torch.set_num_threads(max(1, torch.get_num_threads() // (setup.workers or 1)))
        predictor = Predictor(load_network(bundle), bundle.card, replace(setup.predictor, device=str(device)))
    model = {
        "name": bundle.card.name,
        "digest": bundle.card.digest,
        "classes": [asdict(entry) for entry in bundle.card.classes],
    }
    channel.tell(Ready(model, str(device), devices))
    return _Worker(channel, bundle.card, predictor, setup.options, logs)


@dataclass
class _Worker:
    channel: _Channel
    card: "ModelCard"
    predictor: "Predictor | None"
    options: "ClassifyOptions"
    logs: _SceneLogs
    # Plots and some drivers are for one thread at a time.
    _writing: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        """Take scenes until killed: one thread opens them in turn, others take one to its end each."""
        begun: deque[Future[None]] = deque()
        with ThreadPoolExecutor(1, "prepare") as preparing, ThreadPoolExecutor(1 + FINISHING) as classifying:
            upcoming = preparing.submit(self._prepare)
            while True:
                scene, prepared = upcoming.result()
                upcoming = preparing.submit(self._prepare)
                while len(begun) > FINISHING or (begun and begun[0].done()):
                    begun.popleft().result()
                fed = threading.Event()
                begun.append(classifying.submit(self._classify, scene, prepared, fed))
                fed.wait()

    def _prepare(self) -> "tuple[_InHand, PreparedScene]":
        """Return the next scene that there is something to classify of."""
        while True:
            scene = _InHand(self.channel.ask())
            if self.predictor is None:
                self._look(scene)
            elif (prepared := self._open(scene, self.predictor)) is not None:
                return scene, prepared

    def _look(self, scene: _InHand) -> None:
        from pipeline.classify import scene_is_done

        task = scene.task
        reason = self._attempt(
            scene, OPENING, lambda: scene_is_done(task.path, task.output, self.card, self.options) or ""
        )
        if reason is not None:
            self._finish(scene, WANTED if reason else SKIPPED, reason or "done already")

    def _open(self, scene: _InHand, predictor: "Predictor") -> "PreparedScene | None":
        from pipeline.classify import Result, prepare_scene

        task = scene.task
        prepared = self._attempt(
            scene, OPENING, lambda: prepare_scene(task.path, task.output, predictor, self.options)
        )
        if isinstance(prepared, Result):
            self._finish_with(scene, prepared)
            return None
        if prepared is not None:
            self.channel.tell(Stage(task.index, WAITING))
        return prepared

    def _classify(self, scene: _InHand, prepared: "PreparedScene", fed: threading.Event) -> None:
        """Take a scene to its end; `fed` is set as soon as the device may have the next one's tiles."""
        from pipeline.classify import write_map

        try:
            computed = self._compute(scene, prepared, fed)
        finally:
            fed.set()
        if computed is None:
            return
        self.channel.tell(Stage(scene.task.index, WAITING))
        with self._writing:
            result = self._attempt(scene, WRITING, lambda: write_map(computed))
        if result is not None:
            self._finish_with(scene, result)

    def _compute(
        self, scene: _InHand, prepared: "PreparedScene", fed: threading.Event
    ) -> "ComputedMap | None":
        from pipeline.classify import compute_map

        predictor = self.predictor
        assert predictor is not None
        tiles, told = 0, time.monotonic()

        def progress(more: int, _: int) -> None:
            nonlocal tiles, told
            tiles += more
            if time.monotonic() >= told + TELL_EVERY:
                self.channel.tell(Tiles(scene.task.index, tiles))
                tiles, told = 0, time.monotonic()

        computed = self._attempt(
            scene, CLASSIFYING, lambda: compute_map(prepared, predictor, progress, fed.set)
        )
        if computed is not None:
            self.channel.tell(Tiles(scene.task.index, tiles))
        return computed

    def _attempt(self, scene: _InHand, stage: str, call: Callable[[], T]) -> T | None:
        """Do one stage of a scene's work; None if it failed, which is told then."""
        self.channel.tell(Stage(scene.task.index, stage))
        with self.logs.about(scene):
            try:
                return call()
            except LandcoverError as error:
                # What another program has taken of a device's memory may be free for a fresh worker.
                reason, unexpected = str(error), isinstance(error, DeviceError)
                log.error("%s", reason)
            except Exception as error:
                kind = type(error).__name__
                reason = (
                    f"Unexpected {kind} while being {stage} (a bug of ours; the log shows where): {error}"
                )
                unexpected = True
                log.exception("%s", reason)
        self._finish(scene, FAILED, reason, unexpected=unexpected)
        return None

    def _finish_with(self, scene: _InHand, result: "Result") -> None:
        status = SKIPPED if result.skipped else DONE
        scene.warnings += result.warnings
        if not result.skipped:
            with self.logs.about(scene):
                log.info("%s: %d tiles in %.1f s.", result.scene, result.tiles, result.seconds)
        self._finish(
            scene,
            status,
            "done already" if result.skipped else "",
            name=result.scene,
            seconds=result.seconds,
            tiles=result.tiles,
            files={kind: str(path) for kind, path in result.files.items()},
            areas=tuple(asdict(area) for area in result.areas),
        )

    def _finish(self, scene: _InHand, status: str, reason: str, **facts: Any) -> None:
        facts.setdefault("seconds", time.perf_counter() - scene.started)
        self.channel.tell(
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
    """Return the most memory that this process has held, in bytes; None where the system doesn't tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
