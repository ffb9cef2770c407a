"""Finding the device to compute on, its fastest precision, and whether it can run compiled code."""

import logging
import re
from functools import cache

import torch

from pipeline.errors import DeviceError

log = logging.getLogger(__name__)


def find_device(requested: str) -> torch.device:
    """Return the device for auto, cpu, cuda or cuda:N.

    Raises:
        DeviceError: the device is unknown or not available.
    """
    available = torch.cuda.is_available()
    if requested == "auto":
        return torch.device("cuda" if available else "cpu")
    if requested == "cpu":
        return torch.device("cpu")
    cuda = re.fullmatch("cuda(?::([0-9]+))?", requested)
    if not cuda:
        raise DeviceError(f"`device` {requested} is not a known device: use auto, cpu, cuda or cuda:N.")
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

    Auto is half precision where the device is faster in it.
    """
    if requested != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[requested]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


@cache
def can_compile(device: torch.device) -> bool:
    """Try whether torch.compile works here (it needs a C++ compiler), and warn if it does not."""
    try:
        torch.compile(lambda x: x + 1, dynamic=False)(torch.zeros(8, device=device))
    except RuntimeError as error:  # the base of all of the compiler's errors
        log.warning(
            "Networks can't be compiled here (that takes a C++ compiler such as g++): training continues "
            "uncompiled, somewhat slower."
        )
        log.debug("Why compiling failed.", exc_info=error)
        return False
    return True
