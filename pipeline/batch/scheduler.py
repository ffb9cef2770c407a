"""Which worker gets which scene, and which scenes are tried again: no processes, no clock, no files.

The order of a batch:

1. All scenes in the order given.
2. The second round: scenes that failed but may succeed later (`Task.retry`, remote ones) are tried once more
   by fresh workers, since GDAL caches failed requests.
3. The suspects: scenes that were with a worker when it died, or that ended in an unexpected error. Each is
   tried once more with nothing else running, so that a scene that does it again is known to be the cause.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from pipeline.batch.executor import WorkerLost
from pipeline.batch.messages import FAILED, Outcome, Task


@dataclass(frozen=True)
class _Assignment:
    worker: int
    task: Task


class Scheduler:
    """Keeps the queue of a batch: hears what happens to workers and scenes, and decides what comes next."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        self._queue = deque(tasks)
        self._second_round: deque[Task] = deque()
        self._suspects: deque[Task] = deque()
        self._assigned: dict[int, _Assignment] = {}  # by the scene's index
        self._idle: deque[int] = deque()
        self._workers: set[int] = set()  # all that have asked for a scene
        self._retired: set[int] = set()  # get no more scenes

    @property
    def finished(self) -> bool:
        """Whether every scene has its final outcome."""
        return not (self._queue or self._second_round or self._suspects or self._assigned)

    @property
    def useful_workers(self) -> int:
        """How many workers would have something to do. One is enough for all suspects."""
        return len(self._queue) + len(self._assigned) + bool(self._suspects)

    def worker_idle(self, worker: int) -> None:
        """Note that a worker can take a scene."""
        self._workers.add(worker)
        if worker not in self._retired:
            self._idle.append(worker)

    def assign(self) -> list[tuple[int, Task]]:
        """Give the next scenes to idle workers; returns pairs of a worker and its task."""
        pairs = []
        while self._idle and (task := self._next_task()):
            worker = self._idle.popleft()
            self._assigned[task.index] = _Assignment(worker, task)
            pairs.append((worker, task))
        return pairs

    def scene_ended(self, outcome: Outcome) -> list[Outcome]:
        """Note how a scene ended; returns its outcome if that is final, nothing if it will be tried again.

        After an unexpected error the worker gets no more scenes: a CUDA device that has failed once fails
        every scene after it.
        """
        assignment = self._assigned.pop(outcome.index)
        task = assignment.task
        if outcome.unexpected:
            self._retire(assignment.worker)
        if outcome.unexpected and not task.alone:
            self._suspect(task)
        elif outcome.status == FAILED and task.retry and not task.tries:
            self._second_round.append(replace(task, tries=1))
        else:
            return [outcome]
        return []

    def worker_lost(self, lost: WorkerLost) -> list[Outcome]:
        """Note that a worker is gone; returns the outcomes of those of its scenes that fail for good.

        Scenes that cannot have caused it go back to where they came from.
        """
        self._forget(lost.worker)
        tasks = [a.task for a in self._assigned.values() if a.worker == lost.worker]
        failed, innocent = [], []
        for task in tasks:
            del self._assigned[task.index]
            cause = lost.causes.get(task.index)
            if cause is None:
                innocent.append(task)
            elif lost.certain:
                failed.append(Outcome(task.index, FAILED, f"{cause}."))
            elif task.alone:
                reason = f"{cause}, the second time and with no other scene beside it."
                failed.append(Outcome(task.index, FAILED, reason))
            else:
                self._suspect(task)
        for task in reversed(innocent):
            (self._suspects if task.alone else self._queue).appendleft(task)
        return failed

    def take_spent_workers(self) -> list[int]:
        """Return the workers to end now, and forget them: retired ones that have no scene any more.

        Call this before `assign`: it begins the second round when that is due, which retires all workers.
        """
        if self._second_round and not self._queue and not self._assigned:
            self._queue, self._second_round = self._second_round, deque()
            for worker in self._workers:
                self._retire(worker)
        busy = {assignment.worker for assignment in self._assigned.values()}
        spent = sorted(self._retired - busy)
        for worker in spent:
            self._forget(worker)
        return spent

    def _next_task(self) -> Task | None:
        if any(assignment.task.alone for assignment in self._assigned.values()):
            return None  # nothing runs beside a suspect
        if self._queue:
            return self._queue.popleft()
        return self._suspects.popleft() if self._suspects and not self._assigned else None

    def _suspect(self, task: Task) -> None:
        self._suspects.append(replace(task, tries=task.tries + 1, alone=True))

    def _retire(self, worker: int) -> None:
        self._retired.add(worker)
        self._idle = deque(other for other in self._idle if other != worker)

    def _forget(self, worker: int) -> None:
        self._retire(worker)
        self._retired.discard(worker)
        self._workers.discard(worker)
