"""Scenes being classified: one after the other, watched, and ended when nobody wants them any more."""

import json
import logging
import shutil
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.app.models import Models
from pipeline.classify import Result, compute_map, prepare_scene, write_map
from pipeline.errors import LandcoverError
from pipeline.model.predictor import Predictor
from pipeline.options import ClassifyOptions

log = logging.getLogger(__name__)

WAITING, RUNNING, WRITING, DONE, FAILED, CANCELLED = (
    *("waiting", "running", "writing"),
    *("done", "failed", "cancelled"),
)
LAST_BLOCK = 20.0  # seconds that a run gets, when the app ends, to notice that it is cancelled


class _CancelledError(Exception):
    """The run is not wanted any more."""


@dataclass(eq=False)
class Run:
    """A scene to be classified into the folder `output`; `label` is what its visitor calls it.

    States follow one another as above. `record` is the map's `run.json` once it is done. Written by the
    worker alone, but for `cancel`.
    """

    path: str
    label: str
    model: str
    options: ClassifyOptions
    output: Path
    state: str = WAITING
    done: int = 0
    total: int = 0
    message: str = ""
    record: Path | None = None
    started: float = 0.0  # by time.monotonic
    _cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def finished(self) -> bool:
        """Tell whether nothing more will happen."""
        return self.state in (DONE, FAILED, CANCELLED)

    def cancel(self) -> None:
        """Ask for the end: at once if it waits, else after the block of tiles that is being classified."""
        self._cancelled.set()

    def advance(self, tiles: int, total: int) -> None:
        """Count tiles; ends the run if it was cancelled."""
        self.done, self.total = self.done + tiles, total
        self.check()

    def check(self) -> None:
        """End the run, by an exception, if it was cancelled."""
        if self._cancelled.is_set():
            raise _CancelledError

    def classify(self, predictor: Predictor) -> Result:
        """Classify the scene; raises as `classify_scene` does."""
        prepared = prepare_scene(self.path, self.output, predictor, self.options)
        assert not isinstance(prepared, Result)  # its folder is new
        try:
            self.check()
            computed = compute_map(prepared, predictor, self.advance)
        finally:
            prepared.close()
        self.state = WRITING
        return write_map(computed)


class RunQueue:
    """One worker and the runs that wait for it."""

    def __init__(self, models: Models):
        self._models = models
        self._waiting: deque[Run] = deque()
        self._news = threading.Condition()
        self._current: Run | None = None
        self._closed = False
        self._worker = threading.Thread(target=self._work, name="classify", daemon=True)
        self._worker.start()

    def add(self, run: Run) -> None:
        """Put a run at the end of the queue."""
        with self._news:
            self._waiting.append(run)
            self._news.notify()

    def cancel(self, run: Run) -> None:
        """End a run, wherever it stands."""
        run.cancel()
        with self._news:
            if run in self._waiting:
                self._waiting.remove(run)
                run.state = CANCELLED

    def status(self, run: Run) -> dict[str, Any]:
        """Return how far a run is, as plain values; `before` is how many come before it."""
        with self._news:
            before = (
                list(self._waiting).index(run) + (self._current is not None) if run in self._waiting else 0
            )
        return {
            "state": run.state,
            "before": before,
            "done": run.done,
            "total": run.total,
            "seconds": time.monotonic() - run.started if run.started else 0.0,
            "message": run.message,
            "label": run.label,
        }

    def close(self) -> None:
        """End all runs, and the worker."""
        with self._news:
            self._closed = True
            for run in self._waiting:
                run.state = CANCELLED
            self._waiting.clear()
            if self._current:
                self._current.cancel()
            self._news.notify()
        self._worker.join(LAST_BLOCK)

    def _work(self) -> None:
        while run := self._next():
            try:
                self._do(run)
            finally:
                with self._news:
                    self._current = None

    def _next(self) -> Run | None:
        with self._news:
            self._news.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            self._current = self._waiting.popleft()
            self._current.state = RUNNING
            self._current.started = time.monotonic()
            return self._current

    def _do(self, run: Run) -> None:
        try:
            run.check()
            result = run.classify(self._models.predictor(run.model, "scenes"))
            run.record = result.files["run"]
            _rename_scene(run.record, run.label)
            run.state = DONE
        except _CancelledError:
            run.state = CANCELLED
        except Exception as error:
            if not isinstance(error, LandcoverError):
                log.exception("%s could not be classified.", run.label)
            run.message = str(error) or type(error).__name__
            run.state = FAILED
        if run.state != DONE:
            shutil.rmtree(run.output, ignore_errors=True)


def _rename_scene(record: Path, label: str) -> None:
    """Say in a record what the visitor calls the scene, instead of where it lay on the server."""
    content = json.loads(record.read_text(encoding="utf-8"))
    content["scene"] = label
    record.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
