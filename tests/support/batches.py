"""Small scenes for batches, and what a batch left in its output folder."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import rasterio
from rasterio.transform import from_origin

from tests.support.batch_runner import Batch

WORKER_MEMORY_MIB = 1500  # what a worker takes for a small scene, and some room


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
        raster.write(pixels.astype(np.uint16))  # last, so that the header comes first in the file
    return path


def report_of(output: Path) -> dict:
    return json.loads((output / "batch_report.json").read_text())


def outcomes(output: Path) -> dict[str, dict]:
    """Return the report's scenes by file name."""
    return {Path(scene["scene"]).name: scene for scene in report_of(output)["scenes"]}


def assert_only_failed(output: Path, *failed: str) -> dict[str, str]:
    """Check that these scenes failed and all others have complete maps; returns the reasons."""
    by_name = outcomes(output)
    assert {name for name, scene in by_name.items() if scene["status"] == "failed"} == set(failed)
    for scene in by_name.values():
        if scene["status"] != "failed":
            assert scene["status"] == "done", scene
            assert all((output / file).is_file() for file in scene["files"].values())
    assert not half_written(output)
    return {name: by_name[name]["reason"] for name in failed}


def half_written(output: Path) -> list[Path]:
    """Return what a run left unfinished: temporary files, and maps without their `run.json`."""
    unfinished = [path for path in output.rglob(".*") if path.name != ".batch.lock"]
    maps = output.rglob("*_landcover.tif")
    return unfinished + [m for m in maps if not Path(str(m).replace("_landcover.tif", "_run.json")).is_file()]


def snapshot(output: Path) -> dict[str, bytes]:
    """Return the contents of the maps' files, without logs, reports and timings."""
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
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
