"""The story of a batch with an executor in this very process: the batch does not care who does the work."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from pipeline.batch.executor import Event, WorkerLost
from pipeline.batch.messages import DONE, FAILED, Outcome, Setup, Task, Tiles
from pipeline.batch.run import look_at_scenes, run_batch
from pipeline.errors import LandcoverError, UsageError
from pipeline.options import BatchOptions, ClassifyOptions
from tests.support.batches import make_scene
from tests.support.in_process_executor import InProcessExecutor

SETUP = Setup("fake")


def make_list(folder: Path, *names: str) -> list[str]:
    """Return a list file of scenes that nobody opens."""
    (folder / "list.txt").write_text("\n".join(names))
    return [str(folder / "list.txt")]


def succeed(worker: int, task: Task) -> list[Event]:
    return [Tiles(task.index, 4), Outcome(task.index, DONE, name=Path(task.path).stem, tiles=4)]


def test_a_batch_without_any_process(tmp_path):
    told: list[tuple[str, str]] = []
    executor = InProcessExecutor(succeed)
    report = run_batch(
        make_list(tmp_path, "a.tif", "b.tif"),
        tmp_path / "maps",
        SETUP,
        executor.start,
        on_outcome=lambda scene, outcome: told.append((scene.name, outcome.status)),
    )
    assert told == [("a", DONE), ("b", DONE)]
    assert (report.count(DONE), report.tiles, report.signal) == (2, 8, 0)
    assert json.loads((tmp_path / "maps" / "batch_report.json").read_text())["counts"]["done"] == 2
    assert executor.stopped


def test_a_worker_that_is_lost_is_replaced_and_the_scene_is_tried_once_more(tmp_path):
    tried: list[tuple[str, int, bool]] = []

    def lose_worker_at_crash(worker: int, task: Task) -> list[Event]:
        name = Path(task.path).name
        tried.append((name, worker, task.alone))
        if name != "crash.tif":
            return succeed(worker, task)
        executor.lose_worker()
        return [WorkerLost(worker, {task.index: "The node went away"})]

    executor = InProcessExecutor(lose_worker_at_crash)
    sources = make_list(tmp_path, "crash.tif", "b.tif")
    report = run_batch(sources, tmp_path / "maps", SETUP, executor.start)
    assert tried == [("crash.tif", 0, False), ("b.tif", 1, False), ("crash.tif", 1, True)]
    assert report.outcomes[0].status == FAILED
    assert report.outcomes[0].reason.startswith("The node went away, the second time")
    assert report.outcomes[1].status == DONE


def test_a_remote_scene_that_fails_is_tried_again_by_a_fresh_worker(tmp_path):
    tried: list[tuple[str, int]] = []

    def fail_once(worker: int, task: Task) -> list[Event]:
        tried.append((Path(task.path).name, worker))
        if task.tries or not task.retry:
            return succeed(worker, task)
        return [Outcome(task.index, FAILED, "The server is down.")]

    executor = InProcessExecutor(fail_once)
    sources = make_list(tmp_path, "https://host.org/far.tif", "near.tif")
    report = run_batch(sources, tmp_path / "maps", SETUP, executor.start)
    assert tried == [("far.tif", 0), ("near.tif", 0), ("far.tif", 1)]
    assert report.count(DONE) == 2


def test_fail_fast_interrupts_the_other_scenes(tmp_path):
    executor = InProcessExecutor(lambda worker, task: [Outcome(task.index, FAILED, "It failed.")])
    sources = make_list(tmp_path, "a.tif", "b.tif", "c.tif")
    report = run_batch(sources, tmp_path / "maps", SETUP, executor.start, BatchOptions(fail_fast=True))
    assert [report.count(status) for status in ("failed", "interrupted")] == [1, 2]
    assert executor.stopped


def test_workers_that_cannot_be_started_end_the_batch(tmp_path):
    class Broken(InProcessExecutor):
        def ensure_workers(self, useful: int) -> None:
            raise LandcoverError("Workers cannot be started: there is no cluster.")

    executor = Broken(succeed)
    with pytest.raises(LandcoverError, match="no cluster"):
        run_batch(make_list(tmp_path, "a.tif"), tmp_path / "maps", SETUP, executor.start)
    assert executor.stopped
    assert not (tmp_path / "maps" / "batch_report.json").exists()


def test_a_look_at_the_scenes_writes_nothing_and_asks_workers_only_to_look(tmp_path):
    executor = InProcessExecutor(lambda worker, task: [Outcome(task.index, "to do", "new")])
    plan = list(look_at_scenes(make_list(tmp_path, "a.tif"), tmp_path / "maps", SETUP, executor.start))
    assert [(scene.name, outcome.reason) for scene, outcome in plan] == [("a", "new")]
    assert executor.setup.look_only
    assert executor.stopped
    assert not (tmp_path / "maps").exists()


def test_nothing_is_started_without_scenes(tmp_path):
    executor = InProcessExecutor(succeed)
    with pytest.raises(UsageError, match="no scenes"):
        run_batch([str(tmp_path)], tmp_path / "maps", SETUP, executor.start)
    assert not executor.started
    assert not (tmp_path / "maps").exists()


def test_real_maps_from_another_executor(tmp_path, light_predictor):
    from pipeline.classify import classify_scene

    make_scene(tmp_path / "in" / "a.tif")
    card = light_predictor.card

    def classify(worker: int, task: Task) -> list[Event]:
        result = classify_scene(task.path, task.output, light_predictor, ClassifyOptions())
        files = {kind: str(path) for kind, path in result.files.items()}
        areas = tuple(asdict(area) for area in result.areas)
        return [Outcome(task.index, DONE, name=result.scene, tiles=result.tiles, files=files, areas=areas)]

    model = {"name": card.name, "digest": card.digest, "classes": [asdict(entry) for entry in card.classes]}
    executor = InProcessExecutor(classify, model)
    report = run_batch([str(tmp_path / "in")], tmp_path / "maps", SETUP, executor.start)
    assert report.tiles == 4
    assert (tmp_path / "maps" / "a_landcover.tif").is_file()
    assert sum(area["hectares"] for area in report.areas()) == pytest.approx(4 * 64 * 64 / 100, rel=1e-3)
    assert "data:image/png" in (tmp_path / "maps" / "batch_report.html").read_text()
