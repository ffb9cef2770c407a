"""Scenes that are damaged, huge or deleted meanwhile fail alone, each with its reason."""

import os
import random
import shutil
import zipfile
from pathlib import Path

import pytest

from tests.support.batches import (
    WORKER_MEMORY_MIB,
    assert_only_failed,
    half_written,
    make_scene,
    outcomes,
    report_of,
    wait_for,
)


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
    del reasons[r"no_text_\udce9.tif"]  # GDAL's Python binding cannot print such a name
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


def test_scenes_that_are_deleted_or_changed_meanwhile_fail_alone(runner, scenes, tmp_path):
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


def test_paths_that_are_too_long_fail_alone(runner, scenes, tmp_path):
    long, name = scenes / ("x" * 270) / "c.tif", scenes / f"{'n' * 247}.tif"
    shutil.copy(scenes / "good_0.tif", name)
    address = f"http://127.0.0.1:9/{'y' * 270}/{'z' * 270}.tif"
    paths = [scenes / "good_1.tif", long, name, address]
    (tmp_path / "list.txt").write_text("\n".join(map(str, paths)))
    status, printed = runner.run(tmp_path / "list.txt", "-o", tmp_path / "maps")
    assert status == 1
    assert "bug of ours" not in printed
    reasons = assert_only_failed(tmp_path / "maps", "c.tif", name.name, f"{'z' * 270}.tif")
    assert "rename it" in reasons[name.name]
    assert "File name too long" in reasons["c.tif"]
