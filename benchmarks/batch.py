"""The overhead of a batch of small scenes compared with one large scene: `python benchmarks/batch.py`.

Measures the tiles per second of `landcover batch` on many scenes of 1,000 x 1,000 pixels and on a single
scene with as many tiles, from when the workers have loaded the model until the last map is written. The two
take turns, since machines are noisy.
"""

import json
import math
import os
import shutil
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import median

import click
from throughput import make_scene

from pipeline.batch.inputs import find_scenes
from pipeline.batch.messages import DONE, Outcome, Ready, Setup, Task
from pipeline.batch.processes import LocalProcesses
from pipeline.batch.run import run_tasks
from pipeline.options import ClassifyOptions, PredictorOptions, SceneOptions
from pipeline.tiles import TileGrid

TILE = 64


def make_scenes(folder: Path, count: int, size: int) -> tuple[Path, Path]:
    """Write `count` copies of a scene, and one scene with as many tiles; returns their folders."""
    many, one = folder / "many", folder / "one"
    many.mkdir()
    one.mkdir()
    first = make_scene(many / "scene_0.tif", size)
    for i in range(1, count):
        shutil.copy(first, many / f"scene_{i}.tif")
    side = math.isqrt(count * TileGrid(size, size, TILE, TILE).tile_count)
    make_scene(one / "scene.tif", side * TILE)
    return many, one


def time_batch(scenes: Path, setup: Setup) -> float:
    """Return the tiles per second from when the first worker is ready until all maps are written."""
    tiles, started = 0, 0.0
    with tempfile.TemporaryDirectory() as output:
        found = find_scenes([str(scenes)], Path(output))
        tasks = [Task(i, scene.path, Path(output) / scene.folder) for i, scene in enumerate(found)]
        with closing(run_tasks(tasks, LocalProcesses(setup, timeout=3600, consoles=None))) as news:
            for event in news:
                if isinstance(event, Ready):
                    started = started or time.perf_counter()
                elif isinstance(event, Outcome):
                    if event.status != DONE:
                        raise click.ClickException(event.reason)
                    tiles += event.tiles
                    ended = time.perf_counter()
        return tiles / (ended - started)


@click.command()
@click.option("--scenes", default=200, show_default=True, help="Number of small scenes.")
@click.option("--size", default=1000, show_default=True, help="Their width and height in pixels.")
@click.option("--rounds", default=3, show_default=True, help="Times to measure each; the median counts.")
@click.option("--model", default="eurosat-rgb-resnet50", show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--workers", type=int, help="As for `landcover batch`.")
@click.option("--stated/--guessed", default=True, help="Whether level and offset are stated or detected.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(
    scenes: int,
    size: int,
    rounds: int,
    model: str,
    device: str,
    workers: int | None,
    stated: bool,
    as_json: bool,
) -> None:
    """Measure the overhead of many small scenes compared with one large scene."""
    meaning = SceneOptions(level="l1c", offset=0) if stated else SceneOptions()
    setup = Setup(model, ClassifyOptions(meaning, refresh=True), PredictorOptions(device), workers)
    alone, batch = [], []
    with tempfile.TemporaryDirectory() as folder:
        many, one = make_scenes(Path(folder), scenes, size)
        for _ in range(rounds):
            alone.append(time_batch(one, setup))
            batch.append(time_batch(many, setup))
    report = {
        "scenes": f"{scenes} of {size} x {size} pixels",
        "cores": os.cpu_count(),
        "one_scene_tiles_per_second": median(alone),
        "batch_tiles_per_second": median(batch),
        "ratio": median(b / a for a, b in zip(alone, batch, strict=True)),
    }
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    click.echo(f"{'scenes':<28}{report['scenes']}")
    click.echo(f"{'one scene':<28}{report['one_scene_tiles_per_second']:,.0f} tiles/s")
    click.echo(f"{'batch':<28}{report['batch_tiles_per_second']:,.0f} tiles/s")
    click.echo(f"{'ratio':<28}{report['ratio']:.3f}   (target: 0.9 for 200 scenes of 1,000 x 1,000 pixels)")


if __name__ == "__main__":
    main()
