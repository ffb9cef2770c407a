"""`landcover batch` in real processes: what it writes, and what it survives."""

import http.server
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
import rasterio
from rasterio.transform import from_origin

from tests.support.batch_runner import ROOT, Batch, Runner

WORKER_MEMORY_MIB = 1500  # what a worker takes for a small scene, and some room


@pytest.fixture(scope="module")
def runner(tmp_path_factory) -> Iterator[Runner]:
    runner = Runner(tmp_path_factory.mktemp("consoles"))
    yield runner
    runner.close()


def make_scene(path: Path, height: int = 128, width: int = 128, seed: int = 0, **profile: object) -> Path:
    """Write an L1C scene of noise that differs from tile to tile, in strips of a tile's height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    levels = rng.integers(300, 2200, (3, -(-height // 64), -(-width // 64))).repeat(64, 1).repeat(64, 2)
    pixels = levels[:, :height, :width] + rng.integers(0, 300, (3, height, width))
    profile = {"blockysize": 64, "compress": "deflate", **profile}
    transform = from_origin(400_000 + 1_000 * seed, 5_300_000, 10, 10)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=3,
        height=height,
        width=width,
        dtype="uint16",
        crs="EPSG:32633",
        transform=transform,
        **profile,
    ) as raster:
        raster.descriptions = ("B04", "B03", "B02")
        raster.update_tags(PROCESSING_LEVEL="Level-1C")
        raster.write(pixels.astype(np.uint16))  # after what the header holds, which is in front then
    return path


@pytest.fixture
def scenes(tmp_path) -> Path:
    """Return a folder of three good scenes."""
    for i in range(3):
        make_scene(tmp_path / "in" / f"good_{i}.tif", seed=i)
    return tmp_path / "in"


def report_of(output: Path) -> dict:
    return json.loads((output / "batch_report.json").read_text())


def outcomes(output: Path) -> dict[str, dict]:
    """Return the report's scenes by file name."""
    return {Path(scene["scene"]).name: scene for scene in report_of(output)["scenes"]}


def assert_only_failed(output: Path, *failed: str) -> dict[str, str]:
    """Check that these scenes failed and all others are mapped, whole; returns the reasons."""
    by_name = outcomes(output)
    assert {name for name, scene in by_name.items() if scene["status"] == "failed"} == set(failed)
    for scene in by_name.values():
        if scene["status"] != "failed":
            assert scene["status"] == "done", scene
            assert all((output / file).is_file() for file in scene["files"].values())
    assert not half_written(output)
    return {name: by_name[name]["reason"] for name in failed}


def half_written(output: Path) -> list[Path]:
    """Return what a run left unfinished: temporary files, and maps without the record that closes them."""
    unfinished = [path for path in output.rglob(".*") if path.name != ".batch.lock"]
    maps = output.rglob("*_landcover.tif")
    return unfinished + [m for m in maps if not Path(str(m).replace("_landcover.tif", "_run.json")).is_file()]


def snapshot(output: Path) -> dict[str, bytes]:
    """Return the maps' files: what a batch gives but for logs, report and timings."""
    files = {}
    for path in output.rglob("*"):
        name = path.relative_to(output).as_posix()
        if path.is_dir() or name.startswith(("logs/", "batch_report.")) or name == ".batch.lock":
            continue
        content = path.read_bytes()
        if name.endswith("_run.json"):
            record = json.loads(content)
            del record["seconds"]
            content = json.dumps(record).encode()
        files[name] = content
    return files


def children(batch: Batch) -> list[psutil.Process]:
    try:
        return psutil.Process(batch.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


# What it writes


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
    assert sum(area["hectares"] for area in report["areas"]) == pytest.approx(10 * 64 * 64 / 100)
    assert sum(area["share_percent"] for area in report["areas"]) == pytest.approx(100)
    first = outcomes(output)
    assert (output / report["scenes"][0]["files"]["landcover"]).is_file()
    assert first["a.tif"]["output"] == "x"  # the later of the two


def test_what_is_done_is_left_as_it_is_and_what_changed_is_not(runner, scenes, tmp_path):
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
    assert sum(a["hectares"] for a in report_of(output)["areas"]) == pytest.approx(12 * 64 * 64 / 100)

    assert runner.run(scenes, "-o", output, "--overwrite")[0] == 0
    assert report_of(output)["counts"]["done"] == 3


def test_what_an_earlier_run_warned_of_is_still_told(runner, scenes, tmp_path):
    with rasterio.open(scenes / "good_1.tif", "r+") as raster:
        raster.update_tags(PROCESSING_LEVEL="")
    warned = []
    for _ in range(2):
        status, printed = runner.run(scenes, "-o", tmp_path / "maps")
        assert status == 0
        assert "1 of them with warnings" in printed
        warned.append({name: scene["warnings"] for name, scene in outcomes(tmp_path / "maps").items()})
    assert warned[0] == warned[1]
    assert "Nothing names the product level" in warned[1]["good_1.tif"][0]


def test_errors_in_a_file_have_no_colours(runner, scenes, tmp_path):
    (scenes / "bad.tif").write_bytes(b"no image")
    status, printed = runner.run(scenes, "-o", tmp_path / "maps")
    assert status == 1
    assert "error: " in printed
    assert "\x1b" not in printed


def test_a_dry_run_writes_nothing_and_names_what_will_fail(runner, scenes, tmp_path):
    (scenes / "bad.tif").write_bytes(b"no image")
    status, plan = runner.run(scenes, "-o", tmp_path / "maps", "--dry-run")
    assert status == 1
    assert len(re.findall(r"^to do ", plan, re.MULTILINE)) == 3
    assert re.search(r"^failed .*bad\.tif.*cannot be opened", plan, re.MULTILINE)
    assert not (tmp_path / "maps").exists()


def test_the_report_shows_what_it_is_given_as_text(runner, scenes, tmp_path):
    (scenes / "<script>alert(1)<").mkdir()
    (scenes / "<script>alert(1)<" / "&.tif").write_bytes(b"no image")
    assert runner.run(scenes, "-o", tmp_path / "maps")[0] == 1
    page = (tmp_path / "maps" / "batch_report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;" in page
    assert page.count('<img src="data:image/png;base64,') == 3
    assert not re.search(r'(src|href)="(http|//|/)', page)  # nothing is fetched, all links are relative
    assert page.index("alert(1)") < page.index("good_0")  # failures first


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


@pytest.mark.parametrize("arguments", [["--model", "nothing"], ["--stride", "65"], ["--device", "cuda"]])
def test_wrong_use_starts_nothing(runner, scenes, tmp_path, arguments):
    environment = {"CUDA_VISIBLE_DEVICES": ""}
    status, printed = runner.run(scenes, "-o", tmp_path / "maps", *arguments, environment=environment)
    assert status == 2
    assert len(printed.splitlines()) == 1
    assert arguments[1] in printed
    assert not (tmp_path / "maps" / "batch_report.json").exists()


def test_the_batch_itself_loads_neither_network_nor_gdal():
    script = "import sys, pipeline.batch.run, pipeline.batch.processes; "
    script += "print([m for m in ('torch', 'rasterio', 'geopandas') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


# What one scene does to the others


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


def test_fail_fast_ends_at_the_first_failure(runner, scenes, tmp_path):
    (scenes / "a_bad.tif").write_bytes(b"no image")
    status, printed = runner.run(scenes, "-o", tmp_path / "maps", "--fail-fast")
    assert status == 1
    counts = report_of(tmp_path / "maps")["counts"]
    assert counts["failed"] == 1
    assert counts["interrupted"] >= 1
    assert "same command" in printed
    assert not half_written(tmp_path / "maps")


def test_workers_that_cannot_start_end_the_batch(runner, scenes, tmp_path):
    status, printed = runner.run(scenes, "-o", tmp_path / "maps", die_at_start=True)
    assert status == 1
    assert "cannot be started" in printed
    assert "status 3" in printed


def test_a_device_that_is_out_of_order_is_done_without(runner, scenes, tmp_path):
    output = tmp_path / "maps"
    status, printed = runner.run(scenes, "-o", output, "--workers", "2", lose_first_device=True)
    assert status == 0
    assert "no kernel image is available" in printed
    assert_only_failed(output)


def test_want_of_memory_on_the_device_is_over_for_a_fresh_worker(runner, scenes, tmp_path):
    assert runner.run(scenes, "-o", tmp_path / "maps", lose_memory=True)[0] == 0
    assert_only_failed(tmp_path / "maps")
    assert "doesn't hold the network" in "".join(
        log.read_text() for log in (tmp_path / "maps" / "logs").iterdir()
    )


def test_the_log_of_a_crash_is_not_that_of_an_earlier_run(runner, scenes, tmp_path):
    shutil.copy(scenes / "good_0.tif", scenes / "crash.tif")
    assert runner.run(scenes, "-o", tmp_path / "maps")[0] == 0
    log_file = tmp_path / "maps" / "logs" / "crash.log"
    assert "4 tiles" in log_file.read_text()
    os.utime(log_file, (0, 0))
    assert runner.run(scenes, "-o", tmp_path / "maps", "--overwrite", poison=True)[0] == 1
    assert "4 tiles" not in log_file.read_text()
    assert log_file.read_text().count("SIGSEGV") == 2  # among others, and alone


# Damaged files


def write_vrt(path: Path, size: int = 64, source: str = "") -> None:
    """Write a VRT of a red, a green and a blue band, all from the same source or from none."""
    inside = f"<SimpleSource><SourceFilename relativeToVRT='1'>{source}</SourceFilename></SimpleSource>"
    bands = "".join(
        f"<VRTRasterBand dataType='UInt16' band='{i}'><ColorInterp>{color}</ColorInterp>"
        f"{inside if source else ''}</VRTRasterBand>"
        for i, color in ((1, "Red"), (2, "Green"), (3, "Blue"))
    )
    path.write_text(
        f"<VRTDataset rasterXSize='{size}' rasterYSize='{size}'><SRS>EPSG:32633</SRS>"
        f"<GeoTransform>4e5,10,0,9e6,0,-10</GeoTransform>{bands}</VRTDataset>"
    )


def test_damaged_files_fail_alone(runner, scenes, tmp_path):
    whole = make_scene(tmp_path / "whole.tif", 640, 640, seed=5).read_bytes()
    (scenes / "truncated.tif").write_bytes(whole[: len(whole) // 2])
    plain = make_scene(tmp_path / "plain.tif", 640, 640, compress=None).read_bytes()
    (scenes / "cut.tif").write_bytes(plain[: len(plain) // 2])
    middle = len(whole) // 2
    (scenes / "bad_strip.tif").write_bytes(whole[:middle] + bytes(4000) + whole[middle + 4000 :])
    (scenes / "empty.tif").touch()
    write_vrt(scenes / "itself.vrt", source="itself.vrt")
    write_vrt(scenes / "outside.vrt", source="../../../../../../../../etc/passwd")
    write_vrt(scenes / "huge.vrt", size=1_000_000)
    (scenes / os.fsdecode(b"no_text_\xe9.tif")).write_bytes(b"")
    output = tmp_path / "maps"
    assert runner.run(scenes, "-o", output)[0] == 1
    tifs = [f"{name}.tif" for name in ("truncated", "cut", "bad_strip", "empty", r"no_text_\udce9")]
    reasons = assert_only_failed(output, *tifs, "itself.vrt", "outside.vrt", "huge.vrt")
    del reasons[r"no_text_\udce9.tif"]  # GDAL's binding has no word for it either
    for name, reason in reasons.items():
        assert "nexpected" not in reason, reason
        assert Path(name).stem in reason
    assert report_of(output)["worker_memory_mib"] < WORKER_MEMORY_MIB


def test_a_zip_bomb_fails_alone(runner, scenes, tmp_path):
    with (
        zipfile.ZipFile(
            scenes / "S2A_MSIL1C_20230601.SAFE.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1
        ) as z,
        z.open("S2A_MSIL1C_20230601.SAFE/MTD_MSIL1C.xml", "w", force_zip64=True) as member,
    ):
        member.write(b"<?xml version='1.0'?><x>")
        for _ in range(2000):
            member.write(bytes(2**20))
    output = tmp_path / "maps"
    assert runner.run(scenes, "-o", output)[0] == 1
    reasons = assert_only_failed(output, "S2A_MSIL1C_20230601.SAFE.zip")
    assert "nexpected" not in reasons["S2A_MSIL1C_20230601.SAFE.zip"]
    assert report_of(output)["worker_memory_mib"] < WORKER_MEMORY_MIB


@pytest.mark.slow
def test_five_hundred_damaged_headers(runner, scenes, tmp_path):
    whole = make_scene(tmp_path / "whole.tif", 64, 64, compress=None).read_bytes()
    header = len(whole) - 3 * 64 * 64 * 2  # GDAL writes it first
    assert 100 < header < 2000
    for i in range(500):
        rng = random.Random(i)
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            damaged[rng.randrange(header)] = rng.choice((0, 1, 127, 255, rng.randrange(256)))
        (scenes / f"fuzzed_{i:03}.tif").write_bytes(damaged)
    output = tmp_path / "maps"
    assert runner.run(scenes, "-o", output, "--polygons", "none")[0] == 1
    by_name = outcomes(output)
    assert len(by_name) == 503
    assert all(by_name[f"good_{i}.tif"]["status"] == "done" for i in range(3))
    assert {scene["status"] for scene in by_name.values()} == {"done", "failed"}
    assert not half_written(output)
    assert not [s["reason"] for s in by_name.values() if "nexpected" in (s["reason"] or "")]
    assert report_of(output)["worker_memory_mib"] < WORKER_MEMORY_MIB


def test_scenes_deleted_and_changed_meanwhile_fail_alone(runner, scenes, tmp_path):
    changed = make_scene(scenes / "a_changed.tif", 64 * 100, 256)
    gone = make_scene(scenes / "z_gone.tif")
    output = tmp_path / "maps"
    batch = runner.start(scenes, "-o", output)
    log = output / "logs" / "a_changed.log"
    wait_for(lambda: log.is_file() and "Level-1C" in log.read_text())
    os.utime(changed)
    gone.unlink()
    assert batch.wait() == 1
    reasons = assert_only_failed(output, "a_changed.tif", "z_gone.tif")
    assert "changed" in reasons["a_changed.tif"]
    assert "no file" in reasons["z_gone.tif"]


# Damaged surroundings


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


def test_a_disk_that_fills_up(runner, scenes, tmp_path):
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


def test_two_batches_on_one_folder(runner, scenes, tmp_path):
    shutil.copy(scenes / "good_0.tif", scenes / "hang.tif")
    first = runner.start(scenes, "-o", tmp_path / "maps", poison=True)
    wait_for((tmp_path / "maps" / "good_2_run.json").exists)
    status, printed = runner.run(scenes, "-o", tmp_path / "maps")
    assert status == 1
    assert f"process {first.pid} " in printed
    first.kill()
    first.wait()
    (scenes / "hang.tif").unlink()
    assert runner.run(scenes, "-o", tmp_path / "maps")[0] == 0


# Interruptions


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_end(runner, scenes, tmp_path, number):
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
def many(tmp_path_factory, runner) -> tuple[Path, dict[str, bytes], float]:
    """Return scenes, a long one among them, what an unbroken run writes, and how long that takes."""
    folder = tmp_path_factory.mktemp("many")
    make_scene(folder / "in" / "long.tif", 64 * 40, 128, seed=99)
    for i in range(5):
        make_scene(folder / "in" / f"x{i % 2}" / f"{i}.tif", seed=i)
    started = time.monotonic()
    assert runner.run(folder / "in", "-o", folder / "unbroken")[0] == 0
    return folder / "in", snapshot(folder / "unbroken"), time.monotonic() - started


def test_the_batch_killed_at_any_moment_is_continued(runner, many, tmp_path):
    scenes, unbroken, seconds = many
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
            for name in written:  # what says that it is done, is
                if name.endswith("_run.json"):
                    scene = name.removesuffix("_run.json")
                    assert all(written[n] == unbroken[n] for n in unbroken if n.startswith(f"{scene}_"))
            resumed += any("journal" in name for name in written)
            if status == 0:
                break
            assert status == -signal.SIGKILL
            kills += 1
            if kills % 4 == 0:  # enough for this one
                assert runner.run(scenes, "-o", output)[0] == 0
                break
        assert snapshot(output) == unbroken
        assert not half_written(output)
    assert resumed


def test_workers_killed_at_any_moment_are_replaced(runner, many, tmp_path):
    scenes, unbroken, seconds = many
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
        if status:  # both kills met the same scene
            assert "second time" in batch.output
            assert runner.run(scenes, "-o", output)[0] == 0
        assert snapshot(output) == unbroken
        assert not half_written(output)


def test_a_pause_of_the_whole_machine_is_no_hang(runner, many, tmp_path):
    scenes, unbroken, _ = many
    batch = runner.start(scenes, "-o", tmp_path / "maps", "--timeout", "4")
    wait_for((tmp_path / "maps" / "x0" / "0_run.json").exists)
    processes = [*children(batch), psutil.Process(batch.pid)]
    for process in processes:
        process.suspend()
    time.sleep(6)
    for process in processes:
        process.resume()
    assert batch.wait() == 0, batch.output
    assert snapshot(tmp_path / "maps") == unbroken
    assert all(process not in psutil.process_iter() for process in processes)


@pytest.mark.slow
def test_the_command_itself_killed_leaves_no_process_behind(scenes, tmp_path):
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
    told = done.stderr.splitlines()  # no terminal: a line a scene
    assert len(told) == 4
    assert all(re.search(r"^(done {4} .*: \d+ tiles in|skipped .*: done already)", line) for line in told)
    assert re.search(r"4 scenes: \d done, \d done before", done.stdout)
    assert not half_written(tmp_path / "maps")


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [1, 3])
def test_ctrl_c_while_the_workers_are_being_started(scenes, tmp_path, seconds):
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


# The network


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder on loopback; what the address begins with says how it fails."""

    daemon_threads = True

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.requests: list[str] = []

    def handle_error(self, request, client_address):
        """Say nothing: that the other side goes away is what is tried here, and stderr is other tests'."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.respond(body=False)

    def do_GET(self) -> None:
        self.respond(body=True)

    def respond(self, body: bool) -> None:
        behaviour, _, name = self.path.lstrip("/").partition("/")
        self.server.requests.append(self.path)
        path = self.server.folder / name
        if not path.is_file():
            return self.fail(404)
        content = path.read_bytes()
        first, last = 0, len(content) - 1
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(asked[1]), min(last, int(asked[2] or last))
        far = first > 0  # beyond the header
        if behaviour == "down" or (behaviour == "flaky" and self.server.requests.count(self.path) % 3):
            return self.fail(503)
        if behaviour == "shaky":  # its first three answers break off
            behaviour = "breaking" if self.server.requests.count(self.path) <= 3 else "fine"
        if behaviour == "silent" and far:
            time.sleep(60)
        if behaviour == "slow":
            time.sleep(0.05)
        part = content[first : last + 1]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()
        if body:
            breaks = behaviour == "breaking" and far
            self.wfile.write(part[: len(part) // 2] if breaks else part)
            self.close_connection = breaks
        return None

    def fail(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def server(tmp_path) -> Iterator[Server]:
    server = Server(tmp_path)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_servers_that_are_slow_or_fail_or_fall_silent(runner, server, tmp_path):
    make_scene(tmp_path / "served.tif", 640, 640, compress=None)
    make_scene(tmp_path / "good_0.tif")
    kinds = ("fine", "slow", "flaky", "shaky", "down", "breaking", "silent")
    addresses = [f"{server.address}/{kind}/served.tif" for kind in kinds]
    addresses += [f"{server.address}/fine/none.tif"]
    (tmp_path / "list.txt").write_text("\n".join([*addresses, str(tmp_path / "good_0.tif")]))
    quick = {"GDAL_HTTP_RETRY_DELAY": "0.01", "GDAL_HTTP_LOW_SPEED_TIME": "2"}
    output = tmp_path / "maps"
    assert runner.run(tmp_path / "list.txt", "-o", output, environment=quick)[0] == 1
    status = {scene["scene"]: scene["status"] for scene in report_of(output)["scenes"]}
    good = {f"{server.address}/{kind}/served.tif" for kind in ("fine", "slow", "flaky", "shaky")}
    assert {scene for scene, how in status.items() if how == "done"} == good | {str(tmp_path / "good_0.tif")}
    assert not half_written(output)
    maps = [path.read_bytes() for path in output.rglob("served_landcover.tif")]
    assert len(maps) == 4
    assert len(set(maps)) == 1
    for kind in kinds:
        assert server.requests.count(f"/{kind}/served.tif") < 200
    # What went wrong with a scene stands in its own log.
    logs = {log.parent.name: log.read_text() for log in (output / "logs").rglob("served.log")}
    assert {kind for kind, text in logs.items() if "503" in text} == {"flaky", "down"}


def test_a_server_that_never_answers_is_given_up(runner, server, tmp_path):
    make_scene(tmp_path / "served.tif", 640, 640, compress=None)
    (tmp_path / "list.txt").write_text(f"{server.address}/silent/served.tif")
    assert runner.run(tmp_path / "list.txt", "-o", tmp_path / "maps", "--timeout", "4")[0] == 1
    (scene,) = report_of(tmp_path / "maps")["scenes"]
    assert "`timeout`" in scene["reason"]
