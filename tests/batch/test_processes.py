"""Workers that crash, hang, break or do not start, and how the batch goes on."""

import os
import shutil
import subprocess
import sys
import time

import psutil
import pytest

from tests.support.batch_runner import ROOT
from tests.support.batches import assert_only_failed, children, make_scene, snapshot


def test_several_workers_share_the_work(runner, tmp_path):
    for i in range(6):
        make_scene(tmp_path / "in" / f"{i}.tif", seed=i)
    assert runner.run(tmp_path / "in", "-o", tmp_path / "one")[0] == 0
    batch = runner.start(tmp_path / "in", "-o", tmp_path / "two", "--workers", "2")
    seen: set[int] = set()
    while len(seen) < 2 and psutil.Process(batch.pid).status() != psutil.STATUS_ZOMBIE:
        seen |= {child.pid for child in children(batch)}
        time.sleep(0.01)
    assert batch.wait() == 0
    assert len(seen) == 2
    assert snapshot(tmp_path / "two") == snapshot(tmp_path / "one")


def test_what_is_preloaded_is_all_that_a_worker_loads(scenes, tmp_path):
    """A worker that is forked then starts in a moment, and one that is replaced does too."""
    script = (
        "import sys\n"
        "from importlib import import_module\n"
        "from pathlib import Path\n"
        "from pipeline.batch.processes import PRELOADED\n"
        "for module in PRELOADED: import_module(module)\n"
        "before = set(sys.modules)\n"
        "from pipeline import Predictor, classify_scene, load_bundle, load_network\n"
        "bundle = load_bundle('eurosat-rgb-mobilenetv2')\n"
        "predictor = Predictor(load_network(bundle), bundle.card)\n"
        "classify_scene(sys.argv[1], Path(sys.argv[2]), predictor)\n"
        "late = set(sys.modules) - before\n"
        "late = {name for name in late if '.' not in name or name.startswith('pipeline')}\n"
        "print(*sorted(late - set(sys.builtin_module_names) - set(sys.stdlib_module_names)))\n"
    )
    command = [sys.executable, "-c", script, scenes / "good_0.tif", tmp_path / "maps"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_scenes_that_kill_their_worker_fail_alone(runner, scenes, tmp_path, workers):
    for name in ("crash.tif", "memory.tif", "bug.tif"):
        shutil.copy(scenes / "good_0.tif", scenes / name)
    output = tmp_path / "maps"
    status, printed = runner.run(scenes, "-o", output, "--workers", workers, poison=True)
    assert status == 1
    reasons = assert_only_failed(output, "crash.tif", "memory.tif", "bug.tif")
    assert "SIGSEGV" in reasons["crash.tif"]
    assert "ran out of memory" in reasons["memory.tif"]
    assert "ZeroDivisionError" in reasons["bug.tif"]
    assert "Fatal Python error: Segmentation fault" in (output / "logs" / "crash.log").read_text()
    assert "prepare_or_die" in (output / "logs" / "bug.log").read_text()
    assert all(name in printed for name in reasons)


@pytest.mark.parametrize("kind", ["hang", "stop"])
def test_a_scene_that_hangs_fails_alone(runner, scenes, tmp_path, kind):
    shutil.copy(scenes / "good_0.tif", scenes / f"{kind}.tif")
    output = tmp_path / "maps"
    status, printed = runner.run(scenes, "-o", output, "--timeout", "4", poison=True)
    assert status == 1
    reason = assert_only_failed(output, f"{kind}.tif")[f"{kind}.tif"]
    assert "`timeout`" in reason
    assert "--timeout" in printed
    if kind == "hang":
        assert "time.sleep" in reason or "prepare_or_die" in (output / "logs" / "hang.log").read_text()


def test_workers_that_cannot_start_end_the_batch(runner, scenes, tmp_path):
    status, printed = runner.run(scenes, "-o", tmp_path / "maps", die_at_start=True)
    assert status == 1
    assert "cannot be started" in printed
    assert "status 3" in printed


def test_a_broken_device_is_not_used(runner, scenes, tmp_path):
    output = tmp_path / "maps"
    status, printed = runner.run(scenes, "-o", output, "--workers", "2", lose_first_device=True)
    assert status == 0
    assert "no kernel image is available" in printed
    assert_only_failed(output)


def test_a_scene_that_ran_out_of_device_memory_is_tried_by_a_fresh_worker(runner, scenes, tmp_path):
    assert runner.run(scenes, "-o", tmp_path / "maps", lose_memory=True)[0] == 0
    assert_only_failed(tmp_path / "maps")
    assert "doesn't hold the network" in "".join(
        log.read_text() for log in (tmp_path / "maps" / "logs").iterdir()
    )


def test_the_log_of_a_crash_replaces_that_of_an_earlier_run(runner, scenes, tmp_path):
    shutil.copy(scenes / "good_0.tif", scenes / "crash.tif")
    assert runner.run(scenes, "-o", tmp_path / "maps")[0] == 0
    log_file = tmp_path / "maps" / "logs" / "crash.log"
    assert "4 tiles" in log_file.read_text()
    os.utime(log_file, (0, 0))
    assert runner.run(scenes, "-o", tmp_path / "maps", "--overwrite", poison=True)[0] == 1
    assert "4 tiles" not in log_file.read_text()
    assert log_file.read_text().count("SIGSEGV") == 2  # among others, and alone


def test_the_batch_itself_loads_neither_torch_nor_gdal():
    script = "import sys, pipeline.batch.run, pipeline.batch.processes; "
    script += "print([m for m in ('torch', 'rasterio', 'geopandas') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
