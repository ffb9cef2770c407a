"""The queue of scenes to classify: one at a time, with progress, and each can be cancelled."""

import json
import logging
import shutil
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from pipeline.app.models import Models
from pipeline.classify import Result, compute_map, prepare_scene, write_map
from pipeline.errors import LandcoverError
from pipeline.model.predictor import Predictor
from pipeline.options import ClassifyOptions

log = logging.getLogger(__name__)

SHUTDOWN_SECONDS = 20.0
"""How long the app waits, when it ends, for the current run to notice that it was cancelled."""


class RunState(StrEnum):
    """Where a run stands, in the order in which states follow one another."""

    WAITING = "waiting"
    RUNNING = "running"
    WRITING = "writing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINISHED = frozenset({RunState.DONE, RunState.FAILED, RunState.CANCELLED})


class _CancelledError(Exception):
    """The run was cancelled."""


@dataclass(eq=False)
class Run:
    """One scene to classify. Only the queue's worker thread changes it, except for `cancel`."""

    path: str
    """The scene."""

    label: str
    """What the page calls the scene."""

    model: str
    """The name of the model."""

    options: ClassifyOptions
    """How to classify it."""

    output: Path
    """A new folder for the map."""

    state: RunState = RunState.WAITING
    """Where it stands."""

    tiles_done: int = 0
    """Tiles that have been classified."""

    tiles_total: int = 0
    """All tiles of the scene; 0 until that is known."""

    message: str = ""
    """Why it failed."""

    record: Path | None = None
    """The map's `run.json`, once it is done."""

    started: float = 0.0
    """When it left the queue, by time.monotonic; 0 before."""

    _cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def finished(self) -> bool:
        """Return whether it is done, failed or cancelled."""
        return self.state in FINISHED

    def cancel(self) -> None:
        """Ask the run to stop: it does so after the block of tiles that is being classified."""
        self._cancelled.set()

    def advance(self, tiles: int, total: int) -> None:
        """Count `tiles` more of `total` as done; stops the run if it was cancelled."""
        self.tiles_done, self.tiles_total = self.tiles_done + tiles, total
        self.stop_if_cancelled()

    def stop_if_cancelled(self) -> None:
        """Stop the run, by an exception, if it was cancelled."""
        if self._cancelled.is_set():
            raise _CancelledError

    def classify(self, predictor: Predictor) -> Result:
        """Classify the scene; raises what `classify_scene` raises."""
        prepared = prepare_scene(self.path, self.output, predictor, self.options)
        assert not isinstance(prepared, Result)  # its folder is new
        try:
            self.stop_if_cancelled()
            computed = compute_map(prepared, predictor, self.advance)
        finally:
            prepared.close()
        self.state = RunState.WRITING
        return write_map(computed)


class RunQueue:
    """Runs in the order in which they came, and the one thread that does them."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._waiting: deque[Run] = deque()
        self._changed = threading.Condition()
        self._current: Run | None = None
        self._closed = False
        self._worker = threading.Thread(target=self._work, name="classify", daemon=True)
        self._worker.start()

    def add(self, run: Run) -> None:
        """Put a run at the end of the queue."""
        with self._changed:
            self._waiting.append(run)
            self._changed.notify()

    def cancel(self, run: Run) -> None:
        """Cancel a run, whether it is waiting or running."""
        run.cancel()
        with self._changed:
            if run in self._waiting:
                self._waiting.remove(run)
                run.state = RunState.CANCELLED

    def status(self, run: Run) -> dict[str, Any]:
        """Return the progress of a run as plain values; `ahead` is the number of runs before it."""
        with self._changed:
            ahead = 0
            if run in self._waiting:
                ahead = self._waiting.index(run) + (self._current is not None)
        return {
            "state": run.state,
            "ahead": ahead,
            "done": run.tiles_done,
            "total": run.tiles_total,
            "seconds": time.monotonic() - run.started if run.started else 0.0,
            "message": run.message,
            "label": run.label,
        }

    def close(self) -> None:
        """Cancel all runs and stop the worker thread."""
        with self._changed:
            self._closed = True
            for run in self._waiting:
                run.state = RunState.CANCELLED
            self._waiting.clear()
            if self._current:
                self._current.cancel()
            self._changed.notify()
        self._worker.join(SHUTDOWN_SECONDS)

    def _work(self) -> None:
        while run := self._next():
            try:
                self._execute(run)
            finally:
                with self._changed:
                    self._current = None

    def _next(self) -> Run | None:
        """Wait for a run and return it; None once the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            self._current = self._waiting.popleft()
            self._current.state = RunState.RUNNING
            self._current.started = time.monotonic()
            return self._current

    def _execute(self, run: Run) -> None:
        try:
            run.stop_if_cancelled()
            result = run.classify(self._models.predictor(run.model, "scenes"))
            run.record = result.files["run"]
            _rename_scene(run.record, run.label)
            run.state = RunState.DONE
        except _CancelledError:
            run.state = RunState.CANCELLED
        except Exception as error:
            if not isinstance(error, LandcoverError):
                log.exception("%s could not be classified.", run.label)
            run.message = str(error) or type(error).__name__
            run.state = RunState.FAILED
        if run.state != RunState.DONE:
            shutil.rmtree(run.output, ignore_errors=True)


def _rename_scene(record: Path, label: str) -> None:
    """Replace the scene's path on the server, in a map's record, by what the page calls the scene."""
    content = json.loads(record.read_text(encoding="utf-8"))
    content["scene"] = label
    record.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
