"""Choosing device and precision."""

import pytest
import torch

from pipeline.errors import DeviceError
from pipeline.model.device import find_device, find_precision

CPU = torch.device("cpu")


def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto") == find_device("cpu") == CPU
    with pytest.raises(DeviceError, match=r"`device` cuda .* no CUDA device"):
        find_device("cuda")


@pytest.mark.parametrize("requested", ["gpu", "mps", "cuda:", "cuda:-1", "cpu:1", ""])
def test_an_unknown_device_is_refused(requested):
    with pytest.raises(DeviceError, match="use auto, cpu, cuda or cuda:N"):
        find_device(requested)


@pytest.mark.parametrize("requested", ["cuda:2", "cuda:9", "cuda:300"])
def test_a_gpu_beyond_the_last_is_refused(monkeypatch, requested):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(DeviceError, match=rf"`device` {requested} .* PyTorch sees is cuda:1"):
        find_device(requested)
    assert find_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize(("has_bfloat16", "precision"), [(True, torch.bfloat16), (False, torch.float32)])
def test_precision_follows_the_processor(monkeypatch, has_bfloat16, precision):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bfloat16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert find_precision("auto", CPU) == precision


def test_a_requested_precision_is_obeyed():
    assert find_precision("float16", CPU) == torch.float16
