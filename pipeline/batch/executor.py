"""The `Executor` protocol: what a batch needs from whatever runs its workers, and nothing of how it does so.

An executor starts workers, gives them the scenes that the scheduler chose, and reports what happens. It
decides nothing about scenes: which worker gets one, and what is tried again, is up to `scheduler.py`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.batch.messages import Idle, Outcome, Ready, Setup, Task, Tiles


@dataclass(frozen=True)
class WorkerLost:
    """A worker is gone, and every scene that it had needs another one."""

    worker: int
    """The worker's number. It may be used again for a new worker."""

    causes: dict[int, str]
    """Scenes that may have ended the worker, by index, each with what happened, without a full stop.

    The worker's other scenes are known to be innocent.
    """

    certain: bool = False
    """Whether these scenes did end the worker, so that trying them again is pointless."""


Event = Ready | Idle | Tiles | Outcome | WorkerLost


class Executor(Protocol):
    """Runs scenes in workers, which it identifies by numbers."""

    def ensure_workers(self, useful: int) -> None:
        """Start workers, without waiting for them, until there are `useful` or as many as the setup allows.

        Raises:
            LandcoverError: no worker can be started any more.
        """

    def submit(self, worker: int, task: Task) -> None:
        """Give a scene to a worker that has reported `Idle`; the worker may be lost already."""

    def events(self) -> Iterable[Event]:
        """Wait for events for at most about half a second, and yield them in order.

        - `Ready` for each worker that has loaded the model, with the facts for the report.
        - `Idle` each time a worker can take a scene. It gets one scene for each.
        - `Tiles` as a scene makes progress.
        - `Outcome` once for each scene that ends; it is the last event about the scene.
        - `WorkerLost` when a worker ended by itself, or was ended because it or a scene made no progress.

        Raises:
            LandcoverError: the workers cannot use their setup, for example because there is no such model.
        """

    def end_worker(self, worker: int) -> None:
        """End a worker that has no scene, without reporting it as lost."""

    def stop(self) -> None:
        """End all workers at once, whatever they are doing, and remove temporary files.

        There is nothing to wait for: a map's files appear whole or not at all.
        """


StartExecutor = Callable[[Setup, float, Path | None], Executor]
"""Makes an executor from the workers' setup, the timeout and a folder for temporary files.

The timeout is in seconds: a scene or worker that makes no progress for so long is ended. The folder may hold
what workers print until it is copied to a scene's log; None to drop it.
"""
