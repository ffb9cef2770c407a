"""PyTorch's part of prediction: batch sizes, memory, compiling, what a network may not give."""

import logging
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline.errors import DeviceError, ModelError
from pipeline.model import torch_engine
from pipeline.model.predictor import Predictor
from pipeline.options import PredictorOptions
from tests.support.prediction import (
    CARD,
    TRANSFORM,
    assert_expected,
    blocks_of,
    expected_probabilities,
    float32_predictor,
    small_network,
)


class Watched(nn.Module):
    """Remembers the sizes of its batches. It can't be traced, as is true of networks with control flow."""

    batches: list = []  # noqa: RUF012

    def __init__(self, limit=10**9):
        super().__init__()
        self.network = small_network()
        self.limit = limit

    def forward(self, values):
        if len(values) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        Watched.batches.append(len(values))
        return self.network(values)


SHARED = float32_predictor()


def test_the_network_sees_full_batches_only():
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


def test_out_of_memory_halves_the_batch_and_loses_nothing(caplog):
    Watched.batches.clear()
    predictor = float32_predictor(Watched(limit=3), batch_size=16)
    predictor.engine.threads = 1  # as on a GPU, where memory runs out
    pairs = list(predictor.predict(blocks_of(10, 30), TRANSFORM, 40))
    for block, probabilities in pairs:
        assert_expected(block, probabilities)
    assert max(Watched.batches) == 3  # 40 tiles make batches of 14, 7, 3
    assert "batches of 3 tiles" in caplog.text
    Watched.batches.clear()
    predictor.engine._plain.limit = 10**9  # another program has freed its memory
    list(predictor.predict(blocks_of(32), TRANSFORM, 32))
    assert Watched.batches == [16, 16]


def test_too_little_memory_for_one_tile_is_an_error():
    with pytest.raises(DeviceError, match="memory of cpu doesn't hold"):
        list(float32_predictor(Watched(limit=0), batch_size=4).predict(blocks_of(4), TRANSFORM, 4))


def test_a_network_with_other_outputs_than_its_card_is_refused():
    network = small_network()
    network[-1] = nn.Linear(8, 4)
    with pytest.raises(ModelError, match=r"4 outputs .* 3 classes"):
        list(float32_predictor(network).predict(blocks_of(1), TRANSFORM, 1))


def test_damaged_weights_are_refused():
    network = small_network()
    network[-1].weight.data[0, 0] = torch.nan
    message = r"computed in float32, isn't a number: its weights are damaged\.$"
    with pytest.raises(ModelError, match=message):
        list(float32_predictor(network).predict(blocks_of(1), TRANSFORM, 1))
    (block,) = blocks_of(1)
    with pytest.raises(ModelError, match=message):
        float32_predictor(network).predict_tiles(block.tiles, TRANSFORM)


def test_values_too_large_for_half_precision_have_a_message_of_their_own(monkeypatch):
    """Old GPUs compute in float16, whose numbers end at 65,504."""
    monkeypatch.setattr(torch_engine, "find_precision", lambda requested, device: torch.float16)
    network = small_network()
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
                assert_expected(block, probabilities)
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
    assert_expected(block, probabilities)
    caplog.clear()
    assert list(predictor.predict(blocks_of(10), TRANSFORM, 10))
    assert not caplog.text  # not tried again for every scene


def test_compiling_for_a_large_scene_changes_nothing_for_a_small_one(monkeypatch):
    def compiled(network, **options):
        return lambda values: network(values) * 3  # another network, so that it shows

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(torch_engine, "COMPILE_MIN_TILES", 10)
    predictor = float32_predictor()
    for tiles, is_compiled in ((9, False), (10, True), (9, False)):
        ((block, probabilities),) = predictor.predict(blocks_of(tiles), TRANSFORM, tiles)
        assert predictor.describe(tiles)["compiled"] == is_compiled
        assert np.allclose(probabilities, expected_probabilities(block), atol=1e-6) != is_compiled


def test_other_threads_keep_all_cores():
    """Each batch is computed on one core; anything else in the process still uses all."""
    before = torch.get_num_threads()
    list(float32_predictor(batch_size=4).predict(blocks_of(9), TRANSFORM, 9))
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == before


@pytest.mark.parametrize("absent", [without_compiler, without_support])
def test_requested_compiling_must_work(monkeypatch, absent):
    monkeypatch.setattr(torch, "compile", absent)
    with pytest.raises(DeviceError, match=r"takes a C\+\+ compiler"):
        list(float32_predictor(compile="always").predict(blocks_of(1), TRANSFORM, 1))


def test_the_record_says_what_a_scene_is_computed_with():
    engine = float32_predictor().engine
    assert engine.describe(1, tta=False) == {
        "device": "cpu",
        "precision": "float32",
        "batch_size": torch_engine.CPU_BATCH,
        "compiled": False,
    }
    assert engine.describe(torch_engine.COMPILE_MIN_TILES // 8, tta=True)["compiled"]


def test_a_network_is_prepared_while_another_thread_predicts():
    """Tracing diverts every module call of the process: those of other threads have to pass."""
    predictor, network = float32_predictor(batch_size=4), small_network()
    ((_, expected),) = predictor.predict(blocks_of(6), TRANSFORM, 6)
    done = threading.Event()

    def predict_until_done():
        while not done.is_set():
            ((_, probabilities),) = predictor.predict(blocks_of(6), TRANSFORM, 6)
            np.testing.assert_array_equal(probabilities, expected)

    with ThreadPoolExecutor(1) as pool:
        predicting = pool.submit(predict_until_done)
        try:
            for _ in range(50):
                Predictor(network, CARD, PredictorOptions("cpu", precision="float32"))
        finally:
            done.set()
        predicting.result()
