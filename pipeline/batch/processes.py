"""The executor of worker processes on this machine: spawning, pipes, signals, heartbeats, timeouts, killing.

A scene can harm only the process that works on it.
"""

import logging
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from pipeline.addresses import file_name_of, scrub
from pipeline.batch.executor import Event, WorkerLost
from pipeline.batch.messages import (
    WAITING,
    Heartbeat,
    Idle,
    Outcome,
    Ready,
    Setup,
    SetupFailed,
    Stage,
    Task,
    Tiles,
)
from pipeline.batch.worker_process import run_worker_process
from pipeline.errors import LandcoverError

log = logging.getLogger(__name__)

PRELOADED = (
    "pipeline.classify",
    "pipeline.maps.areas",
    "pipeline.maps.cog",
    "pipeline.maps.polygons",
    "pipeline.maps.style",
    "pipeline.model.predictor",
    "pipeline.model.weights",
)
"""Modules that load all that a worker needs: processes that are forked afterwards start in a moment."""

POLL_SECONDS = 0.5  # the longest wait for messages before timeouts are checked
MAX_FAILED_STARTS = 3  # in a row; then a worker is given up
START_SECONDS = 900.0  # to load the libraries and the model, from a cold network disk
KILL_SECONDS = 5.0  # to wait for a killed process; one that waits for a dead disk does not end
CONSOLE_TAIL = 20_000  # bytes of a lost worker's console that are copied to its scenes' logs

CONSOLES = ".worker-{}.txt"


@dataclass
class _AssignedScene:
    """A scene that a worker process has."""

    task: Task
    stage: str
    last_progress: float  # by the executor's clock

    @property
    def name(self) -> str:
        return file_name_of(self.task.path)


@dataclass
class _WorkerProcess:
    """A running worker as the executor sees it; times are by the executor's clock."""

    number: int
    process: BaseProcess
    connection: Connection
    console: Path | None
    started: float
    last_heard: float
    ready: bool = False
    scenes: dict[int, _AssignedScene] = field(default_factory=dict)

    def stuck_scenes(self, since: float) -> list[_AssignedScene]:
        """Return the scenes that have made no progress since then and are not waiting for another one."""
        return [s for s in self.scenes.values() if s.stage != WAITING and s.last_progress < since]

    def printed(self) -> str:
        """Return the end of what the worker has printed."""
        try:
            content = self.console.read_bytes() if self.console else b""
        except OSError:
            return ""
        return content[-CONSOLE_TAIL:].decode(errors="replace")

    def print_stacks(self) -> None:
        """Make a stuck worker print what each of its threads is doing."""
        if hasattr(signal, "SIGUSR1") and self.process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGUSR1)
                time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        self.process.kill()
        self.process.join(KILL_SECONDS)
        self.connection.close()


class LocalProcesses:
    """Runs scenes in worker processes. An `Executor`.

    `setup.workers` None means one worker per device, which the first worker counts. `timeout` is in seconds;
    `consoles` is the folder for what workers print, None to drop it.
    """

    def __init__(self, setup: Setup, timeout: float, consoles: Path | None) -> None:
        self._setup = replace(setup, heartbeat=min(setup.heartbeat, timeout / 4))
        self._timeout = timeout
        self._consoles = consoles
        self._allowed = setup.workers or 1
        self._workers: dict[int, _WorkerProcess] = {}
        self._failed_starts: Counter[int] = Counter()  # in a row, by the worker's number
        self._began = time.time()
        self._clock = _Clock()
        self._context: Any = _context()

    def ensure_workers(self, useful: int) -> None:
        """Start workers, but not those that could not be started several times; see `Executor`."""
        usable = [n for n in range(self._allowed) if self._failed_starts[n] < MAX_FAILED_STARTS]
        for number in usable[:useful]:
            if number not in self._workers:
                self._workers[number] = self._spawn(number)

    def submit(self, worker: int, task: Task) -> None:
        """Send a scene to an idle worker; see `Executor`."""
        receiver = self._workers[worker]
        receiver.scenes[task.index] = _AssignedScene(task, WAITING, self._clock.now)
        with suppress(OSError):  # it has just died, which the next events will report
            receiver.connection.send(task)

    def events(self) -> Iterator[Event]:
        """Wait for messages and yield them as events, then check for timeouts; see `Executor`."""
        yield from self._receive_all()
        self._clock.tick()
        yield from self._check_timeouts()

    def end_worker(self, worker: int) -> None:
        """End a worker that has no scene; see `Executor`."""
        self._workers.pop(worker).kill()

    def stop(self) -> None:
        """Kill all workers and remove their consoles, also those of an earlier batch; see `Executor`."""
        for worker in self._workers.values():
            worker.kill()
        self._workers.clear()
        if self._consoles:
            for console in self._consoles.glob(CONSOLES.format("*")):
                console.unlink(missing_ok=True)

    def _spawn(self, number: int) -> _WorkerProcess:
        console = self._consoles / CONSOLES.format(number) if self._consoles else None
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=run_worker_process,
            args=(theirs, self._setup, number, console),
            name=f"landcover worker {number}",
        )
        with _signals_blocked():
            process.start()
        theirs.close()
        log.debug("Worker %d is process %d.", number, process.pid)
        return _WorkerProcess(number, process, ours, console, self._clock.now, self._clock.now)

    def _receive_all(self) -> Iterator[Event]:
        """Wait for messages from any worker, or for the end of one, and handle what has come."""
        sources = [s for w in self._workers.values() for s in (w.connection, w.process.sentinel)]
        signaled = wait(sources, timeout=POLL_SECONDS)
        for worker in list(self._workers.values()):
            if worker.connection not in signaled and worker.process.sentinel not in signaled:
                continue
            ended = worker.process.sentinel in signaled  # so it has sent all that it will ever send
            try:
                while worker.connection.poll():
                    yield from self._handle(worker, worker.connection.recv())
            except (EOFError, OSError):
                ended = True
            if ended:
                yield self._lose(worker)

    def _handle(self, worker: _WorkerProcess, message: object) -> Iterator[Event]:
        """Note what a worker says, and yield what concerns the batch."""
        worker.last_heard = self._clock.now
        match message:
            case Ready():
                worker.ready = True
                del self._failed_starts[worker.number]
                self._allowed = self._setup.workers or message.devices
                yield message
            case SetupFailed():
                raise message.error
            case Idle():
                yield message
            case Stage():
                scene = worker.scenes[message.index]
                scene.stage, scene.last_progress = message.stage, self._clock.now
            case Tiles():
                worker.scenes[message.index].last_progress = self._clock.now
                yield message
            case Outcome():
                del worker.scenes[message.index]
                yield message
            case _:
                assert isinstance(message, Heartbeat)

    def _check_timeouts(self) -> Iterator[Event]:
        """End workers that are stuck, do not start, or have stuck scenes."""
        now = self._clock.now
        for worker in list(self._workers.values()):
            if not worker.ready:
                if worker.started < now - START_SECONDS:
                    yield self._lose(worker, f"took more than {START_SECONDS:g} s to start")
            elif worker.last_heard < now - self._timeout:
                yield self._lose(worker, f"sent no heartbeat for {self._timeout:g} s (`timeout`)")
            elif stuck := worker.stuck_scenes(now - self._timeout):
                yield self._end_stuck(worker, stuck)

    def _end_stuck(self, worker: _WorkerProcess, stuck: list[_AssignedScene]) -> WorkerLost:
        """Kill a worker whose process runs but whose scenes make no progress; only these are to blame."""
        worker.print_stacks()
        worker.kill()
        causes = {
            scene.task.index: f"{scene.name} was {scene.stage} and made no progress for "
            f"{self._timeout:g} s: if it is only slow, raise `timeout`"
            for scene in stuck
        }
        return self._remove(worker, causes, certain=True)

    def _lose(self, worker: _WorkerProcess, what_happened: str = "") -> WorkerLost:
        """Remove a worker that has ended, or whose process is stuck; any of its scenes may have caused it."""
        worker.kill()
        what_happened = what_happened or _describe_exit(worker.process.exitcode)
        if not worker.ready:
            self._count_failed_start(worker, what_happened)
        causes = {
            index: f"The worker process {what_happened} while {scene.name} was {scene.stage}"
            for index, scene in worker.scenes.items()
        }
        return self._remove(worker, causes)

    def _remove(self, worker: _WorkerProcess, causes: dict[int, str], certain: bool = False) -> WorkerLost:
        """Forget a killed worker, and note in its scenes' logs what happened."""
        del self._workers[worker.number]
        for index, cause in causes.items():
            self._log(worker.scenes[index].task, f"{cause}.", worker.printed())
        return WorkerLost(worker.number, causes, certain)

    def _count_failed_start(self, worker: _WorkerProcess, what_happened: str) -> None:
        """Give up a worker that failed to start too often; raises LandcoverError if it was the last one."""
        self._failed_starts[worker.number] += 1
        if self._failed_starts[worker.number] < MAX_FAILED_STARTS:
            return
        printed = worker.printed().strip().splitlines()
        last_line = f" ({printed[-1].strip()})" if printed else ""
        reason = (
            f"{MAX_FAILED_STARTS} in a row ended before the model was loaded, "
            f"the last one {what_happened}{last_line}."
        )
        if all(self._failed_starts[number] >= MAX_FAILED_STARTS for number in range(self._allowed)):
            raise LandcoverError(f"Workers cannot be started: {reason}")
        log.warning("Going on without worker %d: %s", worker.number, reason)

    def _log(self, task: Task, text: str, printed: str) -> None:
        """Add what happened to a scene's worker, and what that printed last, to the scene's log."""
        if task.log is None:
            return
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} ERROR   {text}\n"
        with suppress(OSError):
            # A log that no worker has touched since this batch began is an earlier run's.
            ours = task.log.is_file() and task.log.stat().st_mtime >= self._began
            with task.log.open("a" if ours else "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(scrub(f"{line}{printed}", task.path))


class _Clock:
    """Seconds for which this process has been running: a suspended machine must not cause timeouts."""

    def __init__(self) -> None:
        self.now = 0.0
        self._last_tick = time.monotonic()

    def tick(self) -> None:
        """Advance by the time since the last tick, but not by a pause, which is far longer than a poll."""
        now = time.monotonic()
        self.now += min(now - self._last_tick, 2 * POLL_SECONDS)
        self._last_tick = now


def _context() -> Any:
    """Return how to start processes: where possible, fork one that has loaded the libraries already."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    # It would start with the first worker, and starting it unblocks signals.
    resource_tracker.ensure_running()
    return context


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block signals while a process is started; this process gets them afterwards.

    Ctrl-C goes to every process of a terminal, and a new process ignores it only once it runs.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _describe_exit(exitcode: int | None) -> str:
    """Say how a process ended, as it goes on after its name."""
    if exitcode is None or exitcode >= 0:
        return f"ended with status {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    hint = " (perhaps it ran out of memory)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"
