"""The device to compute on, the precision it computes in fastest, and whether it can be compiled for."""

import logging
import re
from functools import cache

import torch

from pipeline.errors import DeviceError

log = logging.getLogger(__name__)


def find_device(requested: str) -> torch.device:
    """Return the device for auto, cpu, cuda or cuda:N; DeviceError for other words or an absent device."""
    available = torch.cuda.is_available()
    if requested == "auto":
        return torch.device("cuda" if available else "cpu")
    if requested == "cpu":
        return torch.device("cpu")
    cuda = re.fullmatch("cuda(?::([0-9]+))?", requested)
    if not cuda:
        raise DeviceError(f"`device` {requested} is not a device known here: use auto, cpu, cuda or cuda:N.")
    if not available:
        raise DeviceError(
            f"`device` {requested} was asked for, but PyTorch sees no CUDA device: check the driver and that "
            "the installed PyTorch is a CUDA build, or use `device` cpu."
        )
    if cuda[1] is None:
        return torch.device("cuda")
    if int(cuda[1]) >= torch.cuda.device_count():
        raise DeviceError(
            f"`device` {requested} was asked for, but the last CUDA device that PyTorch sees is "
            f"cuda:{torch.cuda.device_count() - 1}: use that or one before it."
        )
    return torch.device("cuda", int(cuda[1]))


def find_precision(requested: str, device: torch.device) -> torch.dtype:
    """Return the precision for auto, float32, bfloat16 or float16.

    Auto is half where the device is faster in it.
    """
    if requested != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[requested]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


@cache
def can_compile(device: torch.device) -> bool:
    """Tell whether torch.compile works here, by trying: it takes a C++ compiler; warn if it does not."""
    try:
        torch.compile(lambda x: x + 1, dynamic=False)(torch.zeros(8, device=device))
    except RuntimeError as error:  # every error of the compiler is one
        log.warning(
            "Nothing can be compiled here (that takes a C++ compiler such as g++): training goes on without, "
            "somewhat slower."
        )
        log.debug("Why compiling failed.", exc_info=error)
        return False
    return True
