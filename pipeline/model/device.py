"""The device to compute on, and the precision it computes in fastest."""

import torch

from pipeline.errors import DeviceError


def find_device(wish: str) -> torch.device:
    """Return the device for auto, cpu, cuda or cuda:N; DeviceError if CUDA is asked for and absent."""
    available = torch.cuda.is_available()
    if wish == "auto":
        return torch.device("cuda" if available else "cpu")
    device = torch.device(wish)
    if device.type == "cuda" and not available:
        raise DeviceError(
            "--device cuda was asked for, but PyTorch sees no CUDA device: check the driver and that the "
            "installed PyTorch is a CUDA build, or use --device cpu."
        )
    return device


def find_precision(wish: str, device: torch.device) -> torch.dtype:
    """Return the precision for auto, float32 or bfloat16; auto is half where the device is faster in it."""
    if wish != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[wish]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32
