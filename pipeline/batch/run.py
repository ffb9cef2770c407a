"""The story of a batch: find the scenes, have an executor's workers classify them, write the report.

The batch itself opens no scene and loads no network: a scene can harm only the worker that has it.
"""

import logging
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from tqdm import tqdm

from pipeline.addresses import is_address
from pipeline.batch.claims import claim, remove_leftovers
from pipeline.batch.executor import Event, Executor, StartExecutor, WorkerLost
from pipeline.batch.inputs import SceneInput, find_scenes
from pipeline.batch.messages import FAILED, Idle, Outcome, Ready, Setup, Task, Tiles
from pipeline.batch.report import LOGS, Report, write_report
from pipeline.batch.scheduler import Scheduler
from pipeline.errors import OutputError
from pipeline.files import make_folder
from pipeline.options import BatchOptions

log = logging.getLogger(__name__)

Progress = Ready | Tiles | Outcome


def run_batch(
    sources: Sequence[str],
    output: Path,
    setup: Setup,
    start_executor: StartExecutor,
    options: BatchOptions = BatchOptions(),
    on_outcome: Callable[[SceneInput, Outcome], None] = lambda scene, outcome: None,
) -> Report:
    """Classify all scenes of `sources` (see `find_scenes`) into the folder `output`, and write the report.

    A scene whose `run.json` matches is left as it is; any other is classified again if `setup.options` has
    `refresh`. `on_outcome` is called for each scene as it ends. SIGINT, SIGTERM and SIGHUP end the batch at
    once; the report then says which scenes were interrupted.

    Raises:
        UsageError: there is nothing to do.
        OutputError: `output` cannot be written to, or another batch is working in it.
        LandcoverError: the workers cannot be started or cannot load the model.
    """
    scenes = find_scenes(sources, output, _masks(setup))
    make_folder(output)
    with claim(output), _StopSignals() as signals:
        report = Report(output, scenes)
        tasks = _tasks(report)
        folders = [output, *(task.output for task in tasks)]
        remove_leftovers(folders)
        try:
            executor = start_executor(setup, options.timeout, output / LOGS)
            with _progress_bars(len(scenes)) as advance, closing(run_tasks(tasks, executor)) as news:
                for event in news:
                    report.add(event)
                    advance(event)
                    if isinstance(event, Outcome):
                        on_outcome(scenes[event.index], event)
                    failed = isinstance(event, Outcome) and event.status == FAILED
                    if signals.received or (failed and options.fail_fast):
                        break
        finally:  # also when no worker can be started
            remove_leftovers(folders)
            report.close(signals.received)
            if report.model is not None:
                write_report(report)
        return report


def look_at_scenes(
    sources: Sequence[str], output: Path, setup: Setup, start_executor: StartExecutor
) -> Iterator[tuple[SceneInput, Outcome]]:
    """Yield each scene with what `run_batch` would do with it, and why; this writes nothing.

    Raises:
        UsageError: there is no scene.
        LandcoverError: the workers cannot be started or cannot load the model's card.
    """
    scenes = find_scenes(sources, output, _masks(setup))
    tasks = [Task(i, scene.path, output / scene.folder) for i, scene in enumerate(scenes)]
    executor = start_executor(replace(setup, look_only=True), BatchOptions.timeout, None)
    with closing(run_tasks(tasks, executor)) as news:
        for event in news:
            if isinstance(event, Outcome):
                yield scenes[event.index], event


def run_tasks(tasks: Iterable[Task], executor: Executor) -> Generator[Progress | None]:
    """Have the executor's workers do all tasks, and stop it in the end.

    Yields progress and one final outcome for each task, and None at least twice a second, so that the caller
    can look at other things. Closing the generator early stops the workers. Raises what the executor raises.
    """
    scheduler = Scheduler(tasks)
    try:
        while not scheduler.finished:
            for worker in scheduler.take_spent_workers():
                executor.end_worker(worker)
            executor.ensure_workers(scheduler.useful_workers)
            for worker, task in scheduler.assign():
                executor.submit(worker, task)
            for event in executor.events():
                yield from _schedule(scheduler, event)
            yield None
    finally:
        executor.stop()


def _schedule(scheduler: Scheduler, event: Event) -> Sequence[Progress]:
    """Tell the scheduler what happened; returns what the batch should know of it."""
    match event:
        case Idle():
            scheduler.worker_idle(event.worker)
            return []
        case Outcome():
            return scheduler.scene_ended(event)
        case WorkerLost():
            return scheduler.worker_lost(event)
    return [event]


def _masks(setup: Setup) -> list[str]:
    mask = setup.options.scene.mask
    return [str(mask)] if mask else []


def _tasks(report: Report) -> list[Task]:
    """Return a task for each scene, and make the folders of their logs; a scene may do without one."""
    logs = [report.log_of(i) for i in range(len(report.scenes))]
    made = {folder for folder in {path.parent for path in logs} if _can_make(folder)}
    return [
        Task(
            i,
            scene.path,
            report.output / scene.folder,
            logs[i] if logs[i].parent in made else None,
            retry=is_address(scene.path),
        )
        for i, scene in enumerate(report.scenes)
    ]


def _can_make(folder: Path) -> bool:
    """Make a folder for logs; returns whether that went well, and warns if not."""
    try:
        make_folder(folder)
    except OutputError as error:
        log.warning("There will be no logs in it: %s", error)
        return False
    return True


@contextmanager
def _progress_bars(scenes: int) -> Iterator[Callable[[Progress | None], None]]:
    """Show how far the batch is, if there is a terminal; gives a function to call with each event."""
    with (
        tqdm(total=scenes, desc="scenes", unit=" scenes", disable=None) as scene_bar,
        tqdm(desc="tiles", unit=" tiles", disable=None) as tile_bar,
    ):

        def advance(event: Progress | None) -> None:
            if isinstance(event, Outcome):
                scene_bar.update()
            elif isinstance(event, Tiles):
                tile_bar.update(event.count)
            elif isinstance(event, Ready):  # the time to load the model must not count as a scene's
                scene_bar.unpause()
                tile_bar.unpause()

        yield advance


class _StopSignals:
    """Records Ctrl-C and requests to end, so that the batch ends in order; a second one ends it at once."""

    NAMES = ("SIGINT", "SIGTERM", "SIGHUP")

    def __init__(self) -> None:
        self.received = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "_StopSignals":
        if threading.current_thread() is threading.main_thread():  # no other thread may set handlers
            numbers = [getattr(signal, name) for name in self.NAMES if hasattr(signal, name)]
            self._previous = {number: signal.signal(number, self._record) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _record(self, number: int, _: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = number
