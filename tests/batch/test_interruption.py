"""Batches and workers that are stopped, killed or suspended at any moment, and continued."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.batch_runner import ROOT
from tests.support.batches import children, half_written, make_scene, report_of, snapshot, wait_for


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_batch_in_order(runner, scenes, tmp_path, number):
    shutil.copy(scenes / "good_0.tif", scenes / "hang.tif")
    output = tmp_path / "maps"
    batch = runner.start(scenes, "-o", output, poison=True)
    wait_for((output / "good_2_run.json").exists)
    workers = children(batch)
    batch.kill(number)
    assert batch.wait() == 128 + number
    assert not any(worker.is_running() for worker in workers)
    assert report_of(output)["counts"] == {"done": 3, "skipped": 0, "failed": 0, "interrupted": 1}
    assert "same command" in batch.output
    assert not half_written(output)
    assert runner.run(scenes, "-o", output)[0] == 0
    assert report_of(output)["counts"] == {"done": 1, "skipped": 3, "failed": 0, "interrupted": 0}


@pytest.fixture(scope="module")
def many_scenes(tmp_path_factory, runner) -> tuple[Path, dict[str, bytes], float]:
    """Return a folder of scenes, the files that an uninterrupted run writes, and how long that takes."""
    folder = tmp_path_factory.mktemp("many")
    make_scene(folder / "in" / "long.tif", 64 * 40, 128, seed=99)
    for i in range(5):
        make_scene(folder / "in" / f"x{i % 2}" / f"{i}.tif", seed=i)
    started = time.monotonic()
    assert runner.run(folder / "in", "-o", folder / "uninterrupted")[0] == 0
    return folder / "in", snapshot(folder / "uninterrupted"), time.monotonic() - started


def test_the_batch_killed_at_any_moment_is_continued(runner, many_scenes, tmp_path):
    scenes, uninterrupted, seconds = many_scenes
    rng = random.Random(1)
    kills = attempts = resumed = 0
    while kills < 12:
        output = tmp_path / f"maps-{attempts}"
        attempts += 1
        while True:
            batch = runner.start(scenes, "-o", output, "--workers", "2", keep_journals=True)
            time.sleep(rng.uniform(0.1, 1.1) * seconds)
            workers = children(batch)
            batch.kill()
            status = batch.wait()
            wait_for(lambda workers=workers: not any(w.is_running() for w in workers), 20)
            written = snapshot(output)
            for name in written:  # a scene with a run.json is complete
                if name.endswith("_run.json"):
                    scene = name.removesuffix("_run.json")
                    assert all(
                        written[n] == uninterrupted[n] for n in uninterrupted if n.startswith(f"{scene}_")
                    )
            resumed += any("journal" in name for name in written)
            if status == 0:
                break
            assert status == -signal.SIGKILL
            kills += 1
            if kills % 4 == 0:  # enough for this folder
                assert runner.run(scenes, "-o", output)[0] == 0
                break
        assert snapshot(output) == uninterrupted
        assert not half_written(output)
    assert resumed


def test_workers_killed_at_any_moment_are_replaced(runner, many_scenes, tmp_path):
    scenes, uninterrupted, seconds = many_scenes
    rng = random.Random(2)
    kills = attempts = 0
    while kills < 12:
        output = tmp_path / f"maps-{attempts}"
        attempts += 1
        batch = runner.start(scenes, "-o", output)
        for _ in range(2):
            time.sleep(rng.uniform(0.05, 0.5) * seconds)
            for worker in children(batch)[:1]:
                worker.kill()
                kills += 1
        status = batch.wait()
        if status:  # both kills hit the same scene
            assert "second time" in batch.output
            assert runner.run(scenes, "-o", output)[0] == 0
        assert snapshot(output) == uninterrupted
        assert not half_written(output)


def test_suspending_the_whole_machine_causes_no_timeout(runner, many_scenes, tmp_path):
    scenes, uninterrupted, _ = many_scenes
    batch = runner.start(scenes, "-o", tmp_path / "maps", "--timeout", "8")
    wait_for((tmp_path / "maps" / "x0" / "0_run.json").exists)
    processes = [*children(batch), psutil.Process(batch.pid)]
    for process in processes:
        process.suspend()
    time.sleep(9)  # longer than the timeout
    for process in processes:
        process.resume()
    assert batch.wait() == 0, batch.output
    assert snapshot(tmp_path / "maps") == uninterrupted
    assert all(process not in psutil.process_iter() for process in processes)


@pytest.mark.slow
def test_a_killed_command_leaves_no_process_behind(scenes, tmp_path):
    make_scene(scenes / "long.tif", 64 * 100, 256)
    command = [sys.executable, "-m", "cli", "batch", str(scenes), "-o", str(tmp_path / "maps")]
    command += ["--model", "eurosat-rgb-mobilenetv2"]
    with subprocess.Popen(command, cwd=ROOT) as batch:
        wait_for(lambda: list((tmp_path / "maps").glob("*_run.json")), 300)
        processes = psutil.Process(batch.pid).children(recursive=True)
        assert processes
        batch.kill()
    wait_for(lambda: not any(process.is_running() for process in processes), 30)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = done.stderr.splitlines()  # without a terminal, one line per scene
    assert len(told) == 4
    assert all(re.search(r"^(done {4} .*: \d+ tiles in|skipped .*: done already)", line) for line in told)
    assert re.search(r"4 scenes: \d done, \d done before", done.stdout)
    assert not half_written(tmp_path / "maps")


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [1, 3])
def test_ctrl_c_while_workers_are_starting(scenes, tmp_path, seconds):
    command = [sys.executable, "-m", "cli", "batch", str(scenes), "-o", str(tmp_path / "maps")]
    with subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as batch:
        wait_for(lambda: (tmp_path / "maps" / ".batch.lock").exists(), 60)
        time.sleep(seconds)
        os.killpg(batch.pid, signal.SIGINT)
        printed, _ = batch.communicate(timeout=120)
    assert "Traceback" not in printed
    assert "same command" in printed
    assert batch.returncode == 130
