"""An `Executor` without processes: it does each scene in the calling thread, as soon as it is submitted."""

from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.batch.executor import Event
from pipeline.batch.messages import Idle, Ready, Setup, Task

MODEL = {"name": "fake", "digest": "0", "classes": [{"id": 0, "name": "No data", "color": "#000000"}]}


class InProcessExecutor:
    """Calls `do` with each task and reports the events that this returns.

    Its one worker has the number of workers started before it, so that tests can tell a fresh one.
    """

    def __init__(self, do: Callable[[int, Task], list[Event]], model: dict = MODEL):
        self._do = do
        self._model = model
        self._events: list[Event] = []
        self.running: int | None = None
        self.started = 0
        self.stopped = False

    def start(self, setup: Setup, timeout: float, consoles: Path | None) -> "InProcessExecutor":
        """Return this executor: a `StartExecutor`."""
        self.setup, self.timeout, self.consoles = setup, timeout, consoles
        return self

    def ensure_workers(self, useful: int) -> None:
        if useful and self.running is None:
            self.running, self.started = self.started, self.started + 1
            self._events += [Ready(self._model, "cpu", 1), Idle(self.running)]

    def submit(self, worker: int, task: Task) -> None:
        assert worker == self.running
        self._events += self._do(worker, task)
        if self.running is not None:
            self._events.append(Idle(worker))

    def events(self) -> Iterator[Event]:
        events, self._events = self._events, []
        yield from events

    def end_worker(self, worker: int) -> None:
        assert worker == self.running
        self.running = None

    def lose_worker(self) -> None:
        """Have the worker end while it does a task."""
        self.running = None

    def stop(self) -> None:
        self.running = None
        self.stopped = True
