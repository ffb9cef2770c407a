"""Many scenes, start to finish: found, classified in worker processes, and reported on.

The batch itself opens no scene and loads no network, so that whatever a scene does, it does to a worker.
"""

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from tqdm import tqdm

from pipeline.batch.claims import held, remove_leftovers
from pipeline.batch.inputs import SceneInput, find_scenes
from pipeline.batch.messages import FAILED, Outcome, Ready, Setup, Task, Tiles
from pipeline.batch.pool import Pool
from pipeline.batch.report import LOGS, Report, write_report
from pipeline.files import make_folder
from pipeline.options import BatchOptions

log = logging.getLogger(__name__)


def run_batch(
    sources: Sequence[str],
    output: Path,
    setup: Setup,
    options: BatchOptions = BatchOptions(),
    on_outcome: Callable[[SceneInput, Outcome], None] = lambda scene, outcome: None,
) -> Report:
    """Classify all scenes of `sources` (see `find_scenes`) into the folder `output`, and write the report.

    A scene whose `run.json` matches is left as it is, any other is done again if `setup.options` has
    `refresh`; `on_outcome` is told how each one ended, as it ends. SIGINT, SIGTERM and SIGHUP end the batch
    at once; the report then says which scenes were interrupted. Raises UsageError if there is nothing to do,
    OutputError if `output` cannot be written to or another batch is at it, and what the workers raise if the
    model cannot be loaded.
    """
    scenes = find_scenes(sources, output, _masks(setup))
    make_folder(output)
    with held(output), _Signals() as signals:
        report = Report(output, scenes)
        tasks = _tasks(report)
        folders = [output, *(task.output for task in tasks)]
        remove_leftovers(folders)
        pool = Pool(setup, options.timeout, consoles=output / LOGS)
        try:
            with _bars(len(scenes)) as advance, closing(pool.run(tasks)) as news:
                for event in news:
                    report.take(event)
                    advance(event)
                    if isinstance(event, Outcome):
                        on_outcome(scenes[event.index], event)
                    failed = isinstance(event, Outcome) and event.status == FAILED
                    if signals.received or (failed and options.fail_fast):
                        break
        finally:  # also when workers cannot be started any more
            remove_leftovers(folders)
            for console in (output / LOGS).glob(".worker-*.txt"):
                console.unlink(missing_ok=True)
            report.close(signals.received)
            if report.model is not None:
                write_report(report)
        return report


def look_at_scenes(
    sources: Sequence[str], output: Path, setup: Setup
) -> Iterator[tuple[SceneInput, Outcome]]:
    """Yield each scene with what `run_batch` would do with it, and why; nothing is written.

    Raises UsageError if there is no scene, and what a worker raises if there is no such model.
    """
    scenes = find_scenes(sources, output, _masks(setup))
    tasks = [Task(i, scene.path, output / scene.folder) for i, scene in enumerate(scenes)]
    with closing(Pool(replace(setup, look_only=True), BatchOptions.timeout).run(tasks)) as news:
        for event in news:
            if isinstance(event, Outcome):
                yield scenes[event.index], event


def _masks(setup: Setup) -> list[str]:
    mask = setup.options.scene.mask
    return [str(mask)] if mask else []


def _tasks(report: Report) -> list[Task]:
    """Return a task for each scene, with a folder for its log; OutputError if one cannot be made."""
    tasks = [
        Task(i, scene.path, report.output / scene.folder, report.log_of(i))
        for i, scene in enumerate(report.scenes)
    ]
    for folder in {task.log.parent for task in tasks if task.log}:
        make_folder(folder)
    return tasks


@contextmanager
def _bars(scenes: int) -> Iterator[Callable[[object], None]]:
    """Show how far the batch is, where there is a terminal; gives a function to tell all news to."""
    with (
        tqdm(total=scenes, desc="scenes", unit=" scenes", disable=None) as whole,
        tqdm(desc="tiles", unit=" tiles", disable=None) as tiles,
    ):

        def advance(event: object) -> None:
            if isinstance(event, Outcome):
                whole.update()
            elif isinstance(event, Tiles):
                tiles.update(event.count)
            elif isinstance(event, Ready):  # loading the model says nothing about how long scenes take
                whole.unpause()
                tiles.unpause()

        yield advance


class _Signals:
    """Takes note of Ctrl-C and requests to end, so that the batch ends in order; a second one ends it now."""

    NAMES = ("SIGINT", "SIGTERM", "SIGHUP")

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_Signals":
        if threading.current_thread() is threading.main_thread():  # others may not
            numbers = [getattr(signal, name) for name in self.NAMES if hasattr(signal, name)]
            self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = number
