import copy
import io
import logging
import shutil
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from pipeline.errors import DeviceError, ModelError
from pipeline.model import torch_engine
from pipeline.model.bundle import load_bundle
from pipeline.model.card import LandCoverClass, ModelCard
from pipeline.model.device import find_device
from pipeline.model.predictor import Predictor
from pipeline.model.weights import load_network
from pipeline.options import PredictorOptions
from pipeline.tiles import TileBlock
from pipeline.values import PixelTransform, Scaling

CARD = ModelCard(
    name="tiny",
    architecture="none",
    head="linear",
    bands=("B04", "B03"),
    level="l1c",
    scaling=Scaling((0.0, 0.275), (1.0, 255.0)),
    mean=(90.0, 110.0),
    std=(40.0, 30.0),
    tile_size=16,
    gsd=10.0,
    classes=tuple(LandCoverClass(i, f"class {i}", "#000000") for i in (1, 2, 3)),
    temperature=1.7,
)
TRANSFORM = PixelTransform((0.1, 0.09), (1.0, -2.0), 1.0, 255.0)


def tiny_network():
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    network[1].running_mean.normal_()
    network[1].running_var.uniform_(0.5, 2)
    network[1].weight.data.uniform_(0.5, 2)
    return network.eval()


class Watched(nn.Module):
    """Remembers the sizes of its batches. Like networks with control flow, it can't be traced."""

    batches: list = []  # noqa: RUF012

    def __init__(self, limit=10**9):
        super().__init__()
        self.network = tiny_network()
        self.limit = limit

    def forward(self, values):
        if len(values) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        Watched.batches.append(len(values))
        return self.network(values)


def blocks_of(*counts, dtype=np.uint16):
    """Blocks with so many tiles each, of random pixels."""
    random = np.random.default_rng(0)
    start = 0
    for row, count in enumerate(counts):
        tiles = random.integers(0, 3000, (count, 2, 16, 16)).astype(dtype)
        yield TileBlock(row, 1, np.arange(start, start + count), tiles, row, np.ones((1, count), bool))
        start += count


def plain_probabilities(block):
    """What the card says a network gets and gives, without any short cut."""
    values = torch.from_numpy(TRANSFORM.apply(block.tiles.astype(np.float32)))
    mean, std = (torch.tensor(v).reshape(1, 2, 1, 1) for v in (CARD.mean, CARD.std))
    with torch.inference_mode():
        return torch.softmax(tiny_network()((values - mean) / std) / CARD.temperature, dim=1).numpy()


def float32_predictor(network=None, **options):
    return Predictor(network or tiny_network(), CARD, PredictorOptions("cpu", precision="float32", **options))


SHARED = float32_predictor()


@given(st.lists(st.integers(0, 9), max_size=6), st.integers(1, 12))
@settings(max_examples=40)
def test_each_block_comes_back_in_order_with_its_own_probabilities(counts, batch_size):
    predictor = float32_predictor(batch_size=batch_size)
    blocks = list(blocks_of(*counts))
    pairs = list(predictor.predict(iter(blocks), TRANSFORM, sum(counts)))
    assert [block for block, _ in pairs] == blocks
    for block, probabilities in pairs:
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities, plain_probabilities(block), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "f4", "f8", ">u2", ">i2"])
def test_pixels_of_any_type_are_taken_raw(dtype):
    (block,) = blocks_of(5, dtype=dtype)
    ((_, probabilities),) = float32_predictor().predict([block], TRANSFORM, 5)
    np.testing.assert_allclose(probabilities, plain_probabilities(block), rtol=1e-4, atol=1e-6)


def test_a_scenes_pixels_stay_as_they_are():
    (block,) = blocks_of(3, dtype=np.float32)
    before = block.tiles.copy()
    list(float32_predictor().predict([block], TRANSFORM, 3))
    np.testing.assert_array_equal(block.tiles, before)


def test_every_batch_is_full_though_blocks_are_small():
    Watched.batches.clear()
    predictor = float32_predictor(Watched(), batch_size=8)
    list(predictor.predict(blocks_of(3, 0, 4, 1, 9, 2), TRANSFORM, expected_tiles=10_000))
    assert Watched.batches == [8, 8, 8]


@given(tiles=st.integers(1, 500), batch_size=st.integers(1, 64))
def test_a_scene_makes_even_batches_that_waste_less_than_a_tile_each(tiles, batch_size):
    engine = SHARED.engine
    engine.batch_size = batch_size
    even = engine.scene_runner(TRANSFORM, tiles).batch_size
    batches = -(-tiles // even)
    assert 1 <= even <= batch_size
    assert batches * even - tiles < engine.threads * -(-tiles // (engine.threads * batch_size))


def test_a_tile_gets_the_same_probabilities_whatever_shares_its_batch():
    predictor = float32_predictor(batch_size=8)
    (block,) = blocks_of(20)
    ((_, whole),) = predictor.predict([block], TRANSFORM, 20)
    late = replace(block, index=block.index[7:], tiles=block.tiles[7:])  # as after a resumption
    ((_, rest),) = predictor.predict([late], TRANSFORM, 20)
    np.testing.assert_array_equal(rest, whole[7:])


def test_test_time_augmentation_is_the_mean_over_the_eight_views():
    predictor = float32_predictor()
    (block,) = blocks_of(5)
    ((_, probabilities),) = predictor.predict([block], TRANSFORM, 5, tta=True)
    views = [
        plain_probabilities(replace(block, tiles=np.rot90(tiles, turns, axes=(-2, -1))))
        for tiles in (block.tiles, block.tiles[..., ::-1])
        for turns in range(4)
    ]
    np.testing.assert_allclose(probabilities, np.mean(views, axis=0), rtol=1e-4, atol=1e-6)
    in_memory = predictor.predict_tiles(block.tiles, TRANSFORM, tta=True)
    np.testing.assert_allclose(in_memory, probabilities, rtol=1e-5)
    assert not np.allclose(probabilities, plain_probabilities(block), atol=1e-4)


def test_blocks_are_read_little_ahead():
    taken = []

    def blocks():
        for block in blocks_of(*[4] * 10):
            taken.append(block.tile_row)
            yield block

    next(float32_predictor(batch_size=4).predict(blocks(), TRANSFORM, 40))
    assert len(taken) <= 3


def test_the_network_given_is_left_as_it_is():
    network = tiny_network()
    before = copy.deepcopy(network.state_dict())
    list(
        Predictor(network, CARD, PredictorOptions("cpu", precision="bfloat16")).predict(
            blocks_of(2), TRANSFORM, 2
        )
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert isinstance(network[1], nn.BatchNorm2d)


def test_bfloat16_is_close_to_float32():
    options = PredictorOptions("cpu", precision="bfloat16")
    (block,) = blocks_of(50)
    ((_, probabilities),) = Predictor(tiny_network(), CARD, options).predict([block], TRANSFORM, 50)
    np.testing.assert_allclose(probabilities, plain_probabilities(block), atol=0.02)


def test_out_of_memory_halves_the_batch_and_loses_nothing(caplog):
    Watched.batches.clear()
    predictor = float32_predictor(Watched(limit=3), batch_size=16)
    predictor.engine.threads = 1  # as on the GPU, the one place where this happens
    pairs = list(predictor.predict(blocks_of(10, 30), TRANSFORM, 40))
    for block, probabilities in pairs:
        np.testing.assert_allclose(probabilities, plain_probabilities(block), rtol=1e-4, atol=1e-6)
    assert max(Watched.batches) == 3  # 40 tiles make batches of 14, 7, 3
    assert "batches of 3 tiles" in caplog.text
    Watched.batches.clear()
    predictor.engine._plain.limit = 10**9  # another program has ended
    list(predictor.predict(blocks_of(32), TRANSFORM, 32))
    assert Watched.batches == [16, 16]


def test_no_memory_for_one_tile_is_said_clearly():
    with pytest.raises(DeviceError, match="memory of cpu doesn't hold"):
        list(float32_predictor(Watched(limit=0), batch_size=4).predict(blocks_of(4), TRANSFORM, 4))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_a_gpu_gives_the_same(precision):
    options = PredictorOptions("cuda", batch_size=8, precision=precision)
    blocks = list(blocks_of(30, 3, 0, 50))
    pairs = list(Predictor(tiny_network(), CARD, options).predict(blocks, TRANSFORM, 83))
    assert [block for block, _ in pairs] == blocks
    for block, probabilities in pairs:
        np.testing.assert_allclose(probabilities, plain_probabilities(block), atol=0.02)


def test_an_absent_gpu_is_said_clearly(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=r"`device` cuda .* no CUDA device"):
        Predictor(tiny_network(), CARD, PredictorOptions("cuda"))
    assert Predictor(tiny_network(), CARD).describe(1)["device"] == "cpu"


@pytest.mark.parametrize("wish", ["gpu", "mps", "cuda:", "cuda:-1", "cpu:1", ""])
def test_an_unknown_device_is_said_clearly(wish):
    with pytest.raises(DeviceError, match="is not a device known here: use auto, cpu, cuda or cuda:N"):
        Predictor(tiny_network(), CARD, PredictorOptions(wish))


@pytest.mark.parametrize("wish", ["cuda:2", "cuda:9", "cuda:300"])
def test_a_gpu_beyond_the_last_is_said_clearly(monkeypatch, wish):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(DeviceError, match=rf"`device` {wish} .* PyTorch sees is cuda:1"):
        Predictor(tiny_network(), CARD, PredictorOptions(wish))
    assert find_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize(("has_bfloat16", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_precision_follows_the_processor(monkeypatch, has_bfloat16, precision):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bfloat16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    predictor = Predictor(tiny_network(), CARD, PredictorOptions("cpu"))
    assert predictor.describe(1) == {
        "device": "cpu",
        "precision": precision,
        "batch_size": torch_engine.CPU_BATCH,
        "compiled": False,
    }


def test_a_network_with_other_outputs_than_its_card_is_refused():
    network = tiny_network()
    network[-1] = nn.Linear(8, 4)
    with pytest.raises(ModelError, match=r"4 outputs .* 3 classes"):
        list(float32_predictor(network).predict(blocks_of(1), TRANSFORM, 1))


def test_damaged_weights_are_refused():
    network = tiny_network()
    network[-1].weight.data[0, 0] = torch.nan
    message = r"computed in float32, isn't a number: its weights are damaged\.$"
    with pytest.raises(ModelError, match=message):
        list(float32_predictor(network).predict(blocks_of(1), TRANSFORM, 1))
    (block,) = blocks_of(1)
    with pytest.raises(ModelError, match=message):
        float32_predictor(network).predict_tiles(block.tiles, TRANSFORM)


def test_values_too_large_for_half_precision_are_told_apart(monkeypatch):
    """Old GPUs compute in float16, whose numbers end at 65,504."""
    monkeypatch.setattr(torch_engine, "find_precision", lambda requested, device: torch.float16)
    network = tiny_network()
    network[-1].weight.data.mul_(1e6)
    predictor = Predictor(network, CARD, PredictorOptions("cpu"))
    with pytest.raises(ModelError, match=r"in float16, .* or its values are too large .* try `device` cpu"):
        list(predictor.predict(blocks_of(1), TRANSFORM, 1))


@pytest.mark.skipif(not shutil.which("g++"), reason="compiling for the CPU takes a C++ compiler")
def test_compiled_is_the_same_and_is_compiled_once():
    predictor = float32_predictor(batch_size=8, compile="always")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for counts in ((5, 14), (3,), (16,)):  # partial batches, a scene smaller than a batch, a full one
            for block, probabilities in predictor.predict(blocks_of(*counts), TRANSFORM, sum(counts)):
                np.testing.assert_allclose(probabilities, plain_probabilities(block), rtol=1e-4, atol=1e-6)
    assert predictor.describe(1)["compiled"]


def without_compiler(network, **options):
    def compiled(values):
        raise RuntimeError("No working C++ compiler found.")

    return compiled


def without_support(network, **options):
    raise RuntimeError("torch.compile is not supported on this version of Python.")


@pytest.mark.parametrize("absent", [without_compiler, without_support])
def test_where_compiling_fails_the_plain_network_runs(monkeypatch, caplog, absent):
    monkeypatch.setattr(torch, "compile", absent)
    monkeypatch.setattr(torch_engine, "COMPILE_MIN_TILES", 10)
    predictor = float32_predictor()
    with caplog.at_level(logging.WARNING):
        assert list(predictor.predict(blocks_of(9), TRANSFORM, 9))
        assert not caplog.text
        ((block, probabilities),) = predictor.predict(blocks_of(10), TRANSFORM, 10)
    assert "can't be compiled" in caplog.text
    assert not predictor.describe(10)["compiled"]
    np.testing.assert_allclose(probabilities, plain_probabilities(block), rtol=1e-4, atol=1e-6)
    caplog.clear()
    assert list(predictor.predict(blocks_of(10), TRANSFORM, 10))
    assert not caplog.text  # not tried and told again for every scene


def test_a_small_scene_runs_as_it_would_have_before_a_large_one_was_compiled(monkeypatch):
    def compiled(network, **options):
        return lambda values: network(values) * 3  # another network, so that it shows

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(torch_engine, "COMPILE_MIN_TILES", 10)
    predictor = float32_predictor()
    for tiles, is_compiled in ((9, False), (10, True), (9, False)):
        ((block, probabilities),) = predictor.predict(blocks_of(tiles), TRANSFORM, tiles)
        assert predictor.describe(tiles)["compiled"] == is_compiled
        assert np.allclose(probabilities, plain_probabilities(block), atol=1e-6) != is_compiled


def test_the_next_scene_may_follow_while_the_last_batches_are_computed():
    """Scenes submitted by several threads come back each as if it had been alone."""
    predictor = float32_predictor(batch_size=4)
    scenes = [list(blocks_of(3, 9, 0, 2 + i)) for i in range(8)]
    turns = [threading.Event() for _ in range(len(scenes) + 1)]
    turns[0].set()

    def classify(i):
        turns[i].wait(30)
        expected = sum(len(block.index) for block in scenes[i])
        return list(
            predictor.predict(iter(scenes[i]), TRANSFORM, expected, on_all_submitted=turns[i + 1].set)
        )

    with ThreadPoolExecutor(3) as pool:
        for scene, pairs in zip(scenes, pool.map(classify, range(len(scenes))), strict=True):
            assert [block for block, _ in pairs] == scene
            for block, probabilities in pairs:
                np.testing.assert_allclose(probabilities, plain_probabilities(block), rtol=1e-4, atol=1e-6)


def test_on_all_submitted_is_called_when_all_tiles_are_taken_and_before_the_last_result():
    taken, results, calls = [], [], []

    def blocks():
        for block in blocks_of(4, 4, 4):
            taken.append(block)
            yield block

    predictor = float32_predictor(batch_size=4)

    def all_submitted():
        calls.append((len(taken), len(results)))

    for pair in predictor.predict(blocks(), TRANSFORM, 12, on_all_submitted=all_submitted):
        results.append(pair)
    ((blocks_taken, results_given),) = calls
    assert blocks_taken == 3
    assert results_given < len(results) == 3


def test_threads_of_others_keep_their_cores():
    """Each batch has one core; what PyTorch does elsewhere in the process still has all."""
    before = torch.get_num_threads()
    list(float32_predictor(batch_size=4).predict(blocks_of(9), TRANSFORM, 9))
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == before


@pytest.mark.parametrize("absent", [without_compiler, without_support])
def test_compiling_that_was_asked_for_must_work(monkeypatch, absent):
    monkeypatch.setattr(torch, "compile", absent)
    with pytest.raises(DeviceError, match=r"takes a C\+\+ compiler"):
        list(float32_predictor(compile="always").predict(blocks_of(1), TRANSFORM, 1))


@pytest.mark.slow
def test_the_shipped_model_gives_the_same_classes_in_half_precision(landcover_data):
    bundle = load_bundle("eurosat-rgb-resnet50")
    block = validation_tiles(landcover_data)
    unchanged = PixelTransform.identity(len(bundle.card.bands))

    def classes(precision):
        predictor = Predictor(load_network(bundle), bundle.card, PredictorOptions("cpu", precision=precision))
        ((_, probabilities),) = predictor.predict([block], unchanged, len(block.index))
        return probabilities.argmax(axis=1)

    assert (classes("bfloat16") == classes("float32")).mean() >= 0.999


def validation_tiles(data):
    """Every second of EuroSAT's validation tiles, as one block."""
    with zipfile.ZipFile(data / "eurosat" / "EuroSAT_RGB-val.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[::2]
        images = [np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in names]
    tiles = np.stack(images).transpose(0, 3, 1, 2)
    return TileBlock(0, 1, np.arange(len(tiles)), tiles, 0, np.ones((1, len(tiles)), bool))
