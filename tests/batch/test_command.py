"""What `landcover batch` writes, skips and refuses, in real processes."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.batches import (
    half_written,
    make_scene,
    outcomes,
    report_of,
)


def test_maps_reports_and_logs(runner, tmp_path):
    make_scene(tmp_path / "in" / "a.tif", 128, 192)
    make_scene(tmp_path / "in" / "x" / "a.tif", seed=1)
    output = tmp_path / "maps"
    status, printed = runner.run(tmp_path / "in", "-o", output)
    assert status == 0
    assert "2 scenes: 2 done" in printed
    assert f"report: {output / 'batch_report.html'}" in printed
    for place in (output / "a", output / "x" / "a"):
        assert Path(f"{place}_landcover.tif").is_file()
        assert Path(f"{place}_run.json").is_file()
    assert "6 tiles" in (output / "logs" / "a.log").read_text()
    report = report_of(output)
    assert report["counts"] == {"done": 2, "skipped": 0, "failed": 0, "interrupted": 0}
    assert report["tiles"] == 6 + 4
    assert sum(area["hectares"] for area in report["areas"]) == pytest.approx(10 * 64 * 64 / 100, rel=1e-3)
    assert sum(area["share_percent"] for area in report["areas"]) == pytest.approx(100)
    first = outcomes(output)
    assert (output / report["scenes"][0]["files"]["landcover"]).is_file()
    assert first["a.tif"]["output"] == "x"  # the later of the two scenes with this name


def test_finished_scenes_are_kept_and_changed_ones_are_classified_again(runner, scenes, tmp_path):
    output = tmp_path / "maps"
    assert runner.run(scenes, "-o", output)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in output.glob("*_landcover.tif")}
    make_scene(scenes / "good_1.tif", seed=9)
    (output / "good_2_run.json").unlink()
    status, plan = runner.run(scenes, "-o", output, "--dry-run")
    assert status == 0
    assert re.search(r"skipped .*good_0", plan)
    assert re.search(r"to do .*good_1.*another input", plan)
    assert re.search(r"to do .*good_2.*new", plan)

    assert runner.run(scenes, "-o", output)[0] == 0
    status = {name: scene["status"] for name, scene in outcomes(output).items()}
    assert status == {"good_0.tif": "skipped", "good_1.tif": "done", "good_2.tif": "done"}
    after = {path: path.stat().st_mtime_ns for path in output.glob("*_landcover.tif")}
    assert {path.name for path in before if after[path] == before[path]} == {"good_0_landcover.tif"}
    hectares = sum(area["hectares"] for area in report_of(output)["areas"])
    assert hectares == pytest.approx(12 * 64 * 64 / 100, rel=1e-3)

    assert runner.run(scenes, "-o", output, "--overwrite")[0] == 0
    assert report_of(output)["counts"]["done"] == 3


def test_a_dry_run_writes_nothing_and_names_what_will_fail(runner, scenes, tmp_path):
    (scenes / "bad.tif").write_bytes(b"no image")
    status, plan = runner.run(scenes, "-o", tmp_path / "maps", "--dry-run")
    assert status == 1
    assert len(re.findall(r"^to do ", plan, re.MULTILINE)) == 3
    assert re.search(r"^failed .*bad\.tif.*cannot be opened", plan, re.MULTILINE)
    assert not (tmp_path / "maps").exists()


def test_errors_are_not_colored_without_a_terminal(runner, scenes, tmp_path):
    (scenes / "bad.tif").write_bytes(b"no image")
    status, printed = runner.run(scenes, "-o", tmp_path / "maps")
    assert status == 1
    assert "error: " in printed
    assert "\x1b" not in printed


@pytest.mark.parametrize("arguments", [["--model", "nothing"], ["--stride", "65"], ["--device", "cuda"]])
def test_wrong_use_starts_nothing(runner, scenes, tmp_path, arguments):
    environment = {"CUDA_VISIBLE_DEVICES": ""}
    status, printed = runner.run(scenes, "-o", tmp_path / "maps", *arguments, environment=environment)
    assert status == 2
    assert len(printed.splitlines()) == 1
    assert arguments[1] in printed
    assert not (tmp_path / "maps" / "batch_report.json").exists()


def test_fail_fast_ends_at_the_first_failure(runner, scenes, tmp_path):
    (scenes / "a_bad.tif").write_bytes(b"no image")
    status, printed = runner.run(scenes, "-o", tmp_path / "maps", "--fail-fast")
    assert status == 1
    counts = report_of(tmp_path / "maps")["counts"]
    assert counts["failed"] == 1
    assert counts["interrupted"] >= 1
    assert "same command" in printed
    assert not half_written(tmp_path / "maps")


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small tmpfs")
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(runner, scenes, tmp_path):
    make_scene(scenes / "a_large.tif", 64 * 200, 64 * 4, seed=7)
    small = tmp_path / "small"
    with mounted(small, "size=160k"):
        status, printed = runner.run(scenes, "-o", small, "--probabilities", "--stride", "32")
        assert status == 1
        assert "no space left" in printed
        assert (small / "good_0_run.json").is_file()
        assert not (small / "a_large_run.json").exists()
        assert not half_written(small)


def test_a_read_only_output(runner, scenes, tmp_path):
    with mounted(tmp_path / "maps", "ro"):
        status, printed = runner.run(scenes, "-o", tmp_path / "maps")
        assert status == 1
        assert "read-only" in printed
        assert len(printed.splitlines()) == 1
