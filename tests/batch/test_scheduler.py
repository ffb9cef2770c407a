"""Which worker gets which scene, and what is tried again, without any process."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.batch.executor import WorkerLost
from pipeline.batch.messages import DONE, FAILED, Outcome, Task
from pipeline.batch.scheduler import Scheduler


def tasks(*names: str, retry: str = "") -> list[Task]:
    return [Task(i, name, Path("maps"), retry=name in retry.split()) for i, name in enumerate(names)]


def assigned(scheduler: Scheduler) -> list[tuple[int, str]]:
    return [(worker, task.path) for worker, task in scheduler.assign()]


def done(index: int) -> Outcome:
    return Outcome(index, DONE)


def failed(index: int, unexpected: bool = False) -> Outcome:
    return Outcome(index, FAILED, "It failed.", unexpected=unexpected)


def make_idle(scheduler: Scheduler, *workers: int) -> None:
    for worker in workers:
        scheduler.worker_idle(worker)


def died(worker: int, *indexes: int) -> WorkerLost:
    return WorkerLost(worker, dict.fromkeys(indexes, "The worker process crashed"))


def test_idle_workers_get_scenes_in_order():
    scheduler = Scheduler(tasks("a", "b", "c"))
    assert assigned(scheduler) == []
    make_idle(scheduler, 1, 0, 1)
    assert assigned(scheduler) == [(1, "a"), (0, "b"), (1, "c")]
    make_idle(scheduler, 0)
    assert assigned(scheduler) == []
    assert not scheduler.finished
    assert [scheduler.scene_ended(done(i)) for i in range(3)] == [[done(i)] for i in range(3)]
    assert scheduler.finished


def test_no_more_workers_than_scenes_are_useful():
    scheduler = Scheduler(tasks("a", "b"))
    assert scheduler.useful_workers == 2
    make_idle(scheduler, 0)
    scheduler.assign()
    assert scheduler.useful_workers == 2
    scheduler.scene_ended(done(0))
    assert scheduler.useful_workers == 1


def test_a_batch_without_scenes_is_finished():
    assert Scheduler([]).finished


def test_a_local_scene_that_fails_is_not_tried_again():
    scheduler = Scheduler(tasks("a"))
    make_idle(scheduler, 0)
    scheduler.assign()
    assert scheduler.scene_ended(failed(0)) == [failed(0)]
    assert scheduler.finished


def test_scenes_of_a_dead_worker_are_tried_again_alone_after_all_others():
    scheduler = Scheduler(tasks("a", "b", "c", "d"))
    make_idle(scheduler, 0, 0, 1)
    assert assigned(scheduler) == [(0, "a"), (0, "b"), (1, "c")]
    assert scheduler.worker_lost(died(0, 0, 1)) == []
    make_idle(scheduler, 0, 1, 2)
    assert assigned(scheduler) == [(0, "d")]  # the suspects wait, although two workers are idle
    scheduler.scene_ended(done(2))
    assert assigned(scheduler) == []
    scheduler.scene_ended(done(3))
    make_idle(scheduler, 0)
    assert assigned(scheduler) == [(1, "a")]  # and nothing beside it
    assert scheduler.useful_workers == 2
    assert scheduler.scene_ended(done(0)) == [done(0)]
    assert assigned(scheduler) == [(2, "b")]


def test_a_suspect_that_loses_its_worker_again_fails():
    scheduler = Scheduler(tasks("a"))
    make_idle(scheduler, 0)
    scheduler.assign()
    scheduler.worker_lost(died(0, 0))
    make_idle(scheduler, 0)
    ((_, task),) = scheduler.assign()
    assert task == replace(tasks("a")[0], tries=1, alone=True)
    (outcome,) = scheduler.worker_lost(died(0, 0))
    assert outcome.status == FAILED
    assert outcome.reason == (
        "The worker process crashed, the second time and with no other scene beside it."
    )
    assert scheduler.finished


def test_a_suspect_that_only_fails_has_its_own_reason():
    scheduler = Scheduler(tasks("a", retry="a"))
    make_idle(scheduler, 0)
    scheduler.assign()
    scheduler.worker_lost(died(0, 0))
    make_idle(scheduler, 0)
    scheduler.assign()
    assert scheduler.scene_ended(failed(0)) == [failed(0)]  # it has had its second try


def test_a_stuck_scene_fails_and_its_neighbors_go_on():
    scheduler = Scheduler(tasks("a", "stuck", "c", "d"))
    make_idle(scheduler, 0, 0, 0)
    scheduler.assign()
    lost = WorkerLost(0, {1: "stuck made no progress"}, certain=True)
    assert scheduler.worker_lost(lost) == [Outcome(1, FAILED, "stuck made no progress.")]
    make_idle(scheduler, 1, 1, 1)
    assert assigned(scheduler) == [(1, "a"), (1, "c"), (1, "d")]  # first in the queue, in their order


def test_a_stuck_remote_scene_is_not_tried_again():
    scheduler = Scheduler(tasks("a", retry="a"))
    make_idle(scheduler, 0)
    scheduler.assign()
    (outcome,) = scheduler.worker_lost(WorkerLost(0, {0: "no progress"}, certain=True))
    assert outcome.status == FAILED
    assert scheduler.finished


def test_a_suspect_whose_worker_is_lost_for_another_reason_stays_alone():
    scheduler = Scheduler(tasks("a"))
    make_idle(scheduler, 0)
    scheduler.assign()
    scheduler.worker_lost(died(0, 0))
    make_idle(scheduler, 0)
    scheduler.assign()
    assert scheduler.worker_lost(WorkerLost(0, {}, certain=True)) == []
    make_idle(scheduler, 0)
    ((_, task),) = scheduler.assign()
    assert task.alone


def test_a_lost_worker_gets_nothing_more():
    scheduler = Scheduler(tasks("a"))
    make_idle(scheduler, 0)
    assert scheduler.worker_lost(WorkerLost(0, {})) == []
    assert assigned(scheduler) == []


def test_remote_scenes_that_fail_are_tried_again_by_fresh_workers():
    scheduler = Scheduler(tasks("remote", "b", retry="remote"))
    make_idle(scheduler, 0, 1)
    scheduler.assign()
    assert scheduler.scene_ended(failed(0)) == []
    make_idle(scheduler, 0)
    assert scheduler.take_spent_workers() == []  # the second round begins after everything else
    assert assigned(scheduler) == []
    scheduler.scene_ended(done(1))
    make_idle(scheduler, 1)
    assert scheduler.take_spent_workers() == [0, 1]
    assert scheduler.useful_workers == 1
    assert assigned(scheduler) == []  # both have been ended
    make_idle(scheduler, 0)
    assert assigned(scheduler) == [(0, "remote")]
    assert scheduler.take_spent_workers() == []
    assert scheduler.scene_ended(failed(0)) == [failed(0)]
    assert scheduler.finished


def test_suspects_come_after_the_second_round():
    scheduler = Scheduler(tasks("crash", "remote", retry="remote"))
    make_idle(scheduler, 0, 1)
    scheduler.assign()
    scheduler.worker_lost(died(0, 0))
    scheduler.scene_ended(failed(1))
    scheduler.take_spent_workers()
    make_idle(scheduler, 2, 2)
    assert assigned(scheduler) == [(2, "remote")]
    scheduler.scene_ended(done(1))
    assert assigned(scheduler) == [(2, "crash")]


def test_a_worker_is_ended_after_an_unexpected_error_once_its_other_scenes_are_done():
    scheduler = Scheduler(tasks("bug", "b", "c"))
    make_idle(scheduler, 0, 0, 0)
    assert len(assigned(scheduler)) == 3
    assert scheduler.scene_ended(failed(0, unexpected=True)) == []
    make_idle(scheduler, 0)
    assert scheduler.take_spent_workers() == []
    scheduler.scene_ended(done(1))
    scheduler.scene_ended(done(2))
    assert assigned(scheduler) == []  # not to this worker
    assert scheduler.take_spent_workers() == [0]
    make_idle(scheduler, 0)  # a new one with the same number
    assert assigned(scheduler) == [(0, "bug")]
    again = failed(0, unexpected=True)
    assert scheduler.scene_ended(again) == [again]
    assert scheduler.finished


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_each_scene_gets_exactly_one_outcome_whatever_happens(workers):
    scheduler = Scheduler(tasks(*"abcdefghij", retry="c d"))
    outcomes: list[Outcome] = []
    for step in range(200):
        if scheduler.finished:
            break
        scheduler.take_spent_workers()
        make_idle(scheduler, *range(workers))
        for worker, task in scheduler.assign():
            if task.path in "af" and (step % 2 or task.path == "f"):
                outcomes += scheduler.worker_lost(died(worker, task.index))
            else:
                unexpected = task.path == "h"
                failing = task.path in "bcdh"
                outcomes += scheduler.scene_ended(
                    failed(task.index, unexpected) if failing else done(task.index)
                )
    assert scheduler.finished
    assert sorted(outcome.index for outcome in outcomes) == list(range(10))
