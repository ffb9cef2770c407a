"""The workers of a batch: started, given scenes, watched, and replaced when they die.

Whatever a scene does to its worker, it does to that one process. The scenes that a dead worker had in
hand are tried once more, each alone, after all others: the one that kills again fails.
"""

import logging
import multiprocessing
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from pipeline.batch.inputs import is_address
from pipeline.batch.messages import (
    FAILED,
    WAITING,
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
from pipeline.batch.worker import work
from pipeline.errors import LandcoverError

log = logging.getLogger(__name__)

TURN = 0.5  # seconds at most between two looks at everything
STARTS = 3  # in a row that may fail
START_SECONDS = 900.0  # for loading the libraries and the model, from a cold network disk
BURIAL_SECONDS = 5.0  # a process that waits for a dead disk can't be killed either
TAIL = 20_000  # bytes of what a dead worker printed that go into its scenes' logs


@dataclass
class _InHand:
    """A scene that a worker has, how far it is, and when there was a sign of it last."""

    task: Task
    stage: str
    since: float


@dataclass
class _Worker:
    number: int
    process: BaseProcess
    connection: Connection
    console: Path | None
    heard: float  # when there was a sign of the process last
    started: float
    ready: bool = False
    hungry: bool = False
    retired: bool = False  # gets no more scenes
    scenes: dict[int, _InHand] = field(default_factory=dict)


class Pool:
    """Does tasks in worker processes and tells how it goes.

    `timeout` is in seconds without a sign of a scene; `consoles` the folder for what workers print, None
    to drop it. `workers` None in `setup` is one a device, which the first worker counts.
    """

    def __init__(self, setup: Setup, timeout: float, consoles: Path | None = None):
        self._setup = replace(setup, heartbeat=min(setup.heartbeat, timeout / 4))
        self._timeout = timeout
        self._consoles = consoles
        self._wanted = setup.workers or 1
        self._queue: deque[Task] = deque()
        self._later: deque[Task] = deque()  # remote scenes that failed
        self._suspects: deque[Task] = deque()  # were in the hands of a worker that died
        self._workers: list[_Worker] = []
        self._failed_starts: Counter[int] = Counter()  # in a row, by the worker's number
        self._begun = time.time()
        self._clock = _Clock()
        self._context: Any = _context()

    def run(self, tasks: Iterable[Task]) -> Generator[Ready | Tiles | Outcome | None]:
        """Yield what the workers tell, an outcome for each task in the end; None when there is no news.

        Whoever has enough closes the iterator: the workers are killed then. Raises LandcoverError if
        workers cannot be started.
        """
        self._queue.extend(tasks)
        try:
            while self._queue or self._later or self._suspects or self._in_hand():
                self._begin_second_round()
                self._staff()
                self._hand_out()
                yield from self._listen()
                self._clock.tick()
                yield from self._judge_the_silent()
                yield None
        finally:  # all is told and all files are whole: nothing to say goodbye for
            for worker in self._workers:
                self._kill(worker)

    def _in_hand(self) -> int:
        return sum(len(worker.scenes) for worker in self._workers)

    def _begin_second_round(self) -> None:
        """Once all else is done, try remote scenes again: by fresh workers, since GDAL remembers failures."""
        if self._later and not self._queue and not self._in_hand():
            for worker in self._workers:
                self._kill(worker)
            self._workers.clear()
            self._queue.extend(self._later)
            self._later.clear()

    def _staff(self) -> None:
        """Start workers while there are scenes for more of them; not those whose device is out of order."""
        able = [number for number in range(self._wanted) if self._failed_starts[number] < STARTS]
        useful = len(self._queue) + self._in_hand() + bool(self._suspects)
        taken = {worker.number for worker in self._workers}
        for number in able[:useful]:
            if number not in taken:
                self._workers.append(self._start(number))

    def _start(self, number: int) -> _Worker:
        console = self._consoles / f".worker-{number}.txt" if self._consoles else None
        ours, its = self._context.Pipe()
        process = self._context.Process(
            target=work, args=(its, self._setup, number, console), name=f"landcover worker {number}"
        )
        with _signals_held_back():
            process.start()
        its.close()
        log.debug("Worker %d is process %d.", number, process.pid)
        return _Worker(number, process, ours, console, self._clock.now, self._clock.now)

    def _hand_out(self) -> None:
        for worker in self._workers:
            if worker.hungry and not worker.retired and (task := self._next_task()):
                worker.hungry = False
                worker.scenes[task.index] = _InHand(task, WAITING, self._clock.now)
                with suppress(OSError):  # it has just died, which will be heard
                    worker.connection.send(task)

    def _next_task(self) -> Task | None:
        if any(scene.task.alone for worker in self._workers for scene in worker.scenes.values()):
            return None  # nothing beside a suspect
        if self._queue:
            return self._queue.popleft()
        return self._suspects.popleft() if self._suspects and not self._in_hand() else None

    def _listen(self) -> Iterator[Ready | Tiles | Outcome]:
        """Wait for news, for a moment, and yield what concerns the batch."""
        sources = [s for worker in self._workers for s in (worker.connection, worker.process.sentinel)]
        told = wait(sources, timeout=TURN)
        for worker in list(self._workers):
            if worker.connection in told or worker.process.sentinel in told:
                dead = worker.process.sentinel in told  # then nothing comes after what has been sent
                try:
                    while worker.connection.poll():
                        yield from self._hear(worker, worker.connection.recv())
                except (EOFError, OSError):
                    dead = True
                if dead:
                    yield from self._bury(worker)
                elif worker.retired and not worker.scenes:
                    self._kill(worker)
                    self._workers.remove(worker)

    def _hear(self, worker: _Worker, message: object) -> Iterator[Ready | Tiles | Outcome]:
        worker.heard = self._clock.now
        match message:
            case Ready():
                worker.ready = True
                del self._failed_starts[worker.number]
                self._wanted = self._setup.workers or message.devices
                yield message
            case Unable():
                raise message.error
            case Hungry():
                worker.hungry = True
            case Stage():
                scene = worker.scenes[message.index]
                scene.stage, scene.since = message.stage, self._clock.now
            case Tiles():
                worker.scenes[message.index].since = self._clock.now
                yield message
            case Outcome():
                yield from self._take_back(worker, worker.scenes.pop(message.index).task, message)
            case _:
                assert isinstance(message, Alive)

    def _take_back(self, worker: _Worker, task: Task, outcome: Outcome) -> Iterator[Outcome]:
        """Yield how it ended with a scene, unless it is worth another try.

        After an error that nobody foresaw, a worker's state is anybody's guess: a CUDA device that has
        failed once fails every scene after. What is remote may be back when all else is done.
        """
        worker.retired |= outcome.unexpected
        if outcome.unexpected and not task.alone:
            self._suspects.append(replace(task, tries=task.tries + 1, alone=True))
        elif outcome.status == FAILED and is_address(task.path) and not (task.tries or self._setup.look_only):
            self._later.append(replace(task, tries=1))
        else:
            yield outcome

    def _judge_the_silent(self) -> Iterator[Outcome]:
        """End workers that are stuck, and fail the scenes that they are stuck in."""
        long_ago = self._clock.now - self._timeout
        for worker in list(self._workers):
            if not worker.ready:
                if worker.started < self._clock.now - START_SECONDS:
                    yield from self._bury(worker, f"took more than {START_SECONDS:g} s to start")
                continue
            if worker.heard < long_ago:
                yield from self._bury(worker, f"gave no sign of life for {self._timeout:g} s (`timeout`)")
                continue
            stuck = [s for s in worker.scenes.values() if s.stage != WAITING and s.since < long_ago]
            if stuck:
                yield from self._rescue_from(worker, stuck)

    def _rescue_from(self, worker: _Worker, stuck: list[_InHand]) -> Iterator[Outcome]:
        """Kill a worker that lives but is stuck in some of its scenes; the others are as good as new."""
        _ask_where_it_is(worker.process)
        self._kill(worker)
        self._workers.remove(worker)
        for scene in worker.scenes.values():
            if scene in stuck:
                reason = (
                    f"{_name(scene.task)} was being {scene.stage} and made no progress for "
                    f"{self._timeout:g} s: if it is only slow, raise `timeout`."
                )
                self._note(scene.task, reason, worker.console)
                yield self._fail(scene.task, reason)
            else:
                (self._suspects if scene.task.alone else self._queue).appendleft(scene.task)

    def _bury(self, worker: _Worker, cause: str = "") -> Iterator[Outcome]:
        """Deal with a worker that has died, by itself or not."""
        self._kill(worker)
        if worker in self._workers:
            self._workers.remove(worker)
        cause = cause or _cause_of_death(worker.process.exitcode)
        if not worker.ready:
            self._failed_starts[worker.number] += 1
            if self._failed_starts[worker.number] == STARTS:
                self._give_up(worker, cause)
        for scene in worker.scenes.values():
            reason = f"The worker process {cause} while {_name(scene.task)} was being {scene.stage}"
            self._note(scene.task, f"{reason}.", worker.console)
            if scene.task.alone:
                yield self._fail(scene.task, f"{reason}, the second time and with no other scene beside it.")
            else:
                self._suspects.append(replace(scene.task, tries=scene.task.tries + 1, alone=True))

    def _give_up(self, worker: _Worker, cause: str) -> None:
        """Do without a worker that cannot be started; raises LandcoverError if it was the last one."""
        printed = _printed(worker.console).strip().splitlines()
        text = (
            f"{STARTS} in a row ended before the model was loaded, the last one {cause}"
            f"{f' ({printed[-1].strip()})' if printed else ''}."
        )
        if all(self._failed_starts[number] >= STARTS for number in range(self._wanted)):
            raise LandcoverError(f"Workers cannot be started: {text}")
        log.warning("Worker %d is done without: %s", worker.number, text)

    def _fail(self, task: Task, reason: str) -> Outcome:
        return Outcome(task.index, FAILED, reason)

    def _note(self, task: Task, text: str, console: Path | None) -> None:
        """Put into a scene's log what became of its worker, and what that printed last."""
        if task.log is None:
            return
        with suppress(OSError):
            # A log that no worker has touched since this batch began is an earlier run's.
            begun = task.log.is_file() and task.log.stat().st_mtime >= self._begun
            with task.log.open("a" if begun else "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} ERROR   {text}\n{_printed(console)}")

    def _kill(self, worker: _Worker) -> None:
        """End a process now; files appear whole or not at all, so there is nothing to wait for."""
        worker.process.kill()
        worker.process.join(BURIAL_SECONDS)
        worker.connection.close()


class _Clock:
    """Seconds during which this process ran: what stopped it, or the whole machine, is no worker's fault."""

    def __init__(self) -> None:
        self.now = 0.0
        self._looked = time.monotonic()

    def tick(self) -> None:
        """Go on by the time since the last look, unless that is far more than a turn takes."""
        now = time.monotonic()
        self.now += min(now - self._looked, 2 * TURN)
        self._looked = now


def _context() -> Any:
    """Return the way to start processes: where it can be had, forks of one that has loaded the libraries."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.classify"])
    # It would start with the first worker, and when it starts it lets signals through that are held back.
    resource_tracker.ensure_running()
    return context


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Keep signals from a process that is being started; this one gets them afterwards.

    Ctrl-C goes to every process of a terminal, and the new one is deaf to it only once it runs.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ask_where_it_is(process: BaseProcess) -> None:
    """Have a stuck worker print, before it is killed, what each of its threads is doing."""
    if hasattr(signal, "SIGUSR1") and process.pid is not None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGUSR1)
            time.sleep(TURN)


def _cause_of_death(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return f"ended with status {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    hint = " (perhaps for want of memory)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


def _name(task: Task) -> str:
    return Path(task.path).name


def _printed(console: Path | None) -> str:
    """Return the end of what a worker has printed."""
    try:
        return console.read_bytes()[-TAIL:].decode(errors="replace") if console else ""
    except OSError:
        return ""
