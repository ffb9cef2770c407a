"""Prediction as a whole: tiles of a scene in, the probabilities that the card promises out."""

import copy
import io
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

from pipeline.model.bundle import load_bundle
from pipeline.model.device import find_precision
from pipeline.model.predictor import Predictor
from pipeline.model.weights import load_network
from pipeline.options import PredictorOptions
from pipeline.tiles import TileBlock
from pipeline.values import PixelTransform
from tests.support.prediction import (
    CARD,
    TRANSFORM,
    assert_expected,
    blocks_of,
    expected_probabilities,
    float32_predictor,
    small_network,
)


@given(st.lists(st.integers(0, 9), max_size=6), st.integers(1, 12))
@settings(max_examples=40)
def test_each_block_comes_back_in_order_with_its_own_probabilities(counts, batch_size):
    predictor = float32_predictor(batch_size=batch_size)
    blocks = list(blocks_of(*counts))
    pairs = list(predictor.predict(iter(blocks), TRANSFORM, sum(counts)))
    assert [block for block, _ in pairs] == blocks
    for block, probabilities in pairs:
        assert probabilities.dtype == np.float32
        assert_expected(block, probabilities)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "f4", "f8", ">u2", ">i2"])
def test_pixels_may_be_of_any_type(dtype):
    (block,) = blocks_of(5, dtype=dtype)
    ((_, probabilities),) = float32_predictor().predict([block], TRANSFORM, 5)
    assert_expected(block, probabilities)


def test_a_blocks_pixels_are_not_changed():
    (block,) = blocks_of(3, dtype=np.float32)
    before = block.tiles.copy()
    list(float32_predictor().predict([block], TRANSFORM, 3))
    np.testing.assert_array_equal(block.tiles, before)


def test_a_tile_gets_the_same_probabilities_whatever_shares_its_batch():
    predictor = float32_predictor(batch_size=8)
    (block,) = blocks_of(20)
    ((_, whole),) = predictor.predict([block], TRANSFORM, 20)
    late = replace(block, index=block.index[7:], tiles=block.tiles[7:])  # as when a scene is resumed
    ((_, rest),) = predictor.predict([late], TRANSFORM, 20)
    np.testing.assert_array_equal(rest, whole[7:])


def test_test_time_augmentation_is_the_mean_over_the_eight_views():
    predictor = float32_predictor()
    (block,) = blocks_of(5)
    ((_, probabilities),) = predictor.predict([block], TRANSFORM, 5, tta=True)
    views = [
        expected_probabilities(replace(block, tiles=np.rot90(tiles, turns, axes=(-2, -1))))
        for tiles in (block.tiles, block.tiles[..., ::-1])
        for turns in range(4)
    ]
    np.testing.assert_allclose(probabilities, np.mean(views, axis=0), rtol=1e-4, atol=1e-6)
    in_memory = predictor.predict_tiles(block.tiles, TRANSFORM, tta=True)
    np.testing.assert_allclose(in_memory, probabilities, rtol=1e-5)
    assert not np.allclose(probabilities, expected_probabilities(block), atol=1e-4)


def test_the_given_network_is_not_changed():
    network = small_network()
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
    ((_, probabilities),) = Predictor(small_network(), CARD, options).predict([block], TRANSFORM, 50)
    np.testing.assert_allclose(probabilities, expected_probabilities(block), atol=0.02)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_a_gpu_gives_the_same(precision):
    options = PredictorOptions("cuda", batch_size=8, precision=precision)
    blocks = list(blocks_of(30, 3, 0, 50))
    pairs = list(Predictor(small_network(), CARD, options).predict(blocks, TRANSFORM, 83))
    assert [block for block, _ in pairs] == blocks
    for block, probabilities in pairs:
        np.testing.assert_allclose(probabilities, expected_probabilities(block), atol=0.02)


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
                assert_expected(block, probabilities)


@pytest.mark.slow
def test_the_shipped_model_gives_the_same_classes_in_half_precision(landcover_data):
    if find_precision("auto", torch.device("cpu")) is torch.float32:
        pytest.skip("this CPU is slower in half precision, which is never chosen here")
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
