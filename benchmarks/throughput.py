"""Measures speed, memory and agreement of prediction: `python benchmarks/throughput.py`.

- Speed: tiles per second of the network alone, of `landcover classify` from the scene's file to the map's
  files, and the ratio of the two. They are timed alternately, since machines are noisy.
- Memory: the peak when classifying a scene and one with four times as many pixels (with --full: sixteen
  times as many, a whole Sentinel-2 scene), each in a process of its own.
- Agreement: how many tiles get the same class in half precision, and compiled, as in single precision.
"""

import io
import json
import logging
import multiprocessing
import os
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from statistics import median

import click
import numpy as np
import rasterio
import torch
from PIL import Image
from rasterio.transform import from_origin
from rasterio.windows import Window

from pipeline.classify import classify_scene
from pipeline.errors import DeviceError
from pipeline.model.bundle import load_bundle
from pipeline.model.predictor import Predictor
from pipeline.model.weights import load_network
from pipeline.options import ClassifyOptions, PredictorOptions, SceneOptions
from pipeline.tiles import TileBlock, TileGrid
from pipeline.values import PixelTransform

BANDS = ("B04", "B03", "B02")
OPTIONS = ClassifyOptions(scene=SceneOptions(level="l1c", offset=0), overwrite=True)
WHOLE_SCENE = 10_980
MEMORY_SIZES = (1373, 2745)
MEMORY_SIZES_FULL = (2745, WHOLE_SCENE)
AGREEMENT_TILES = 2700


def make_scene(path: Path, size: int) -> Path:
    """Write a square L1C scene of noise, at scales from fields to single pixels, and return its path."""
    random = np.random.default_rng(1)
    block = 512
    profile = {
        "driver": "GTiff",
        "dtype": "uint16",
        "count": len(BANDS),
        "width": size,
        "height": size,
        "crs": "EPSG:32633",
        "transform": from_origin(500_000, 5_300_000, 10, 10),
        "tiled": True,
        "blockxsize": block,
        "blockysize": block,
        "compress": "deflate",
        "predictor": 2,
    }
    with rasterio.open(path, "w", **profile) as scene:
        scene.descriptions = BANDS
        for top in range(0, size, block):
            strip = np.full((len(BANDS), block, -(-size // block) * block), 900.0, np.float32)
            for scale, contrast in ((128, 250), (32, 120), (8, 60), (1, 25)):
                shape = len(BANDS), block // scale, strip.shape[2] // scale
                noise = random.normal(0, contrast, shape).astype(np.float32)
                strip += noise.repeat(scale, axis=1).repeat(scale, axis=2)
            rows = min(block, size - top)
            pixels = strip.clip(1, 10_000).astype(np.uint16)[:, :rows, :size]
            scene.write(pixels, window=Window(0, top, size, rows))
    return path


def time_network(predictor: Predictor, tiles: int) -> float:
    """Return the network's own tiles per second, with its input prepared and its output ignored."""
    card, batch_size = predictor.card, predictor.engine.batch_size
    runner = predictor.engine.scene_runner(PixelTransform.identity(len(card.bands)), tiles)
    shape = batch_size, len(card.bands), card.tile_size, card.tile_size
    values = (
        torch.randn(shape)
        .to(predictor.device, predictor.precision)
        .contiguous(memory_format=torch.channels_last)
    )
    batches = max(1, round(tiles / batch_size))

    @torch.inference_mode()
    def run() -> None:
        runner.network(values)

    started = time.perf_counter()
    # As many batches at a time as when classifying a scene.
    for future in [runner.run(run) for _ in range(batches)]:
        future.result()
    if predictor.device.type == "cuda":
        torch.cuda.synchronize()
    return batches * batch_size / (time.perf_counter() - started)


def measure_speed(scene: Path, size: int, model: str, options: PredictorOptions, rounds: int) -> dict:
    """Time the network alone and whole classifications alternately, `rounds` times each."""
    bundle = load_bundle(model)
    predictor = Predictor(load_network(bundle), bundle.card, options)
    tiles = TileGrid(size, size, bundle.card.tile_size, OPTIONS.stride_for(bundle.card.tile_size)).tile_count
    alone, whole = [], []
    with tempfile.TemporaryDirectory() as output:
        classify_scene(str(scene), Path(output), predictor, OPTIONS)  # warm-up: caches files, compiles
        for _ in range(rounds):
            alone.append(time_network(predictor, tiles))
            started = time.perf_counter()
            classify_scene(str(scene), Path(output), predictor, OPTIONS)
            whole.append(tiles / (time.perf_counter() - started))
    return {
        "scene": f"{size} x {size} pixels, {tiles} tiles",
        **predictor.describe(tiles),
        "network_tiles_per_second": median(alone),
        "end_to_end_tiles_per_second": median(whole),
        "ratio": median(w / a for w, a in zip(whole, alone, strict=True)),
    }


def peak_memory(scene: Path, model: str, options: PredictorOptions) -> float | None:
    """Return the peak resident memory, in MiB, of a process that only classifies the scene.

    None where the system doesn't report it (Windows).
    """
    with multiprocessing.get_context("spawn").Pool(1) as process:
        return process.apply(_classify_and_measure, (scene, model, options))


def _classify_and_measure(scene: Path, model: str, options: PredictorOptions) -> float | None:
    try:
        import resource
    except ImportError:
        return None
    bundle = load_bundle(model)
    predictor = Predictor(load_network(bundle), bundle.card, options)
    with tempfile.TemporaryDirectory() as output:
        classify_scene(str(scene), Path(output), predictor, OPTIONS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def measure_agreement(model: str, device: str, tiles: np.ndarray) -> dict[str, float | str]:
    """Return, for each way of computing, the share of tiles that get the same class as in float32.

    If compiling isn't possible, the reason takes the place of the share.
    """
    bundle = load_bundle(model)
    cells = np.ones((1, len(tiles)), bool)
    block = TileBlock(0, 1, np.arange(len(tiles)), tiles, 0, cells)

    unchanged = PixelTransform.identity(len(bundle.card.bands))

    def classes(precision: str, compile_: str) -> np.ndarray:
        options = PredictorOptions(device, precision=precision, compile=compile_)
        predictor = Predictor(load_network(bundle), bundle.card, options)
        ((_, probabilities),) = predictor.predict([block], unchanged, len(tiles))
        return probabilities.argmax(axis=1)

    single = classes("float32", "never")
    shares: dict[str, float | str] = {"bfloat16": (classes("bfloat16", "never") == single).mean().item()}
    try:
        shares["compiled"] = (classes("bfloat16", "always") == single).mean().item()
    except DeviceError as error:
        shares["compiled"] = f"not measured: {error}"
    return shares


def eurosat_tiles(data: Path) -> np.ndarray:
    """Return EuroSAT's validation tiles (n, 3, 64, 64) uint8, spread evenly over the classes."""
    with zipfile.ZipFile(data / "eurosat" / "EuroSAT_RGB-val.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        names = names[:: max(1, len(names) // AGREEMENT_TILES)]
        return np.stack([np.asarray(Image.open(io.BytesIO(archive.read(n)))) for n in names]).transpose(
            0, 3, 1, 2
        )


@click.command()
@click.option("--size", default=2745, show_default=True, help="Side of the timed scene, in pixels.")
@click.option("--full", is_flag=True, help="Time a whole Sentinel-2 scene: 10,980 pixels, minutes on a CPU.")
@click.option("--rounds", default=3, show_default=True, help="How often to time each; the median counts.")
@click.option("--model", default="eurosat-rgb-resnet50", show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--compile", "compile_", default="auto", type=click.Choice(["auto", "always", "never"]))
@click.option("--memory/--no-memory", default=True, help="Also measure peak memory.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(
    size: int, full: bool, rounds: int, model: str, device: str, compile_: str, memory: bool, as_json: bool
) -> None:
    """Measure speed, memory and agreement.

    Agreement is measured on EuroSAT's tiles, in the folder that LANDCOVER_DATA names.
    """
    logging.getLogger("pipeline").setLevel(logging.ERROR)
    size, memory_sizes = (WHOLE_SCENE, MEMORY_SIZES_FULL) if full else (size, MEMORY_SIZES)
    options = PredictorOptions(device=device, compile=compile_)
    report: dict = {}
    with tempfile.TemporaryDirectory() as folder:
        scenes: dict[int, Path] = {}

        def scene_of(side: int) -> Path:
            if side not in scenes:
                scenes[side] = make_scene(Path(folder) / f"noise_{side}.tif", side)
            return scenes[side]

        if memory:
            report["peak_memory_mib"] = {n: peak_memory(scene_of(n), model, options) for n in memory_sizes}
        report |= measure_speed(scene_of(size), size, model, options, rounds)
    if data := os.environ.get("LANDCOVER_DATA"):
        report["agreement_with_float32"] = measure_agreement(model, device, eurosat_tiles(Path(data)))
    click.echo(json.dumps(report, indent=2) if as_json else as_table(report))


def as_table(report: dict) -> str:
    """Return the report as a table for reading."""
    lines = [
        ("scene", report["scene"]),
        ("device", f"{report['device']}, {report['precision']}, batches of {report['batch_size']} tiles"),
        ("compiled", "yes" if report["compiled"] else "no"),
        ("network alone", f"{report['network_tiles_per_second']:,.0f} tiles/s"),
        ("end to end", f"{report['end_to_end_tiles_per_second']:,.0f} tiles/s"),
        ("ratio", f"{report['ratio']:.3f}   (target: 0.95 on a whole Sentinel-2 scene, --full)"),
    ]
    if peaks := report.get("peak_memory_mib"):
        if None in peaks.values():
            lines.append(("peak memory", "not measured: this system doesn't report it"))
        else:
            lines += [(f"peak memory, {side:,} pixels", f"{peak:,.0f} MiB") for side, peak in peaks.items()]
            small, large = peaks.values()
            lines.append(("growth of memory", f"{large / small - 1:+.1%}   (target: within 15 %, --full)"))
    if agreement := report.get("agreement_with_float32"):
        lines += [
            (
                f"{way} = float32",
                share if isinstance(share, str) else f"{share:.2%} of tiles   (target: 99.9 %)",
            )
            for way, share in agreement.items()
        ]
    else:
        lines.append(("agreement with float32", "not measured: LANDCOVER_DATA isn't set"))
    return "\n".join(f"{name:28}{value}" for name, value in lines)


if __name__ == "__main__":
    main()
