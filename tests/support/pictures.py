"""Pictures made of random pixels."""

import io

import numpy as np
from PIL import Image


def picture(width: int = 64, height: int = 64) -> bytes:
    """Return a PNG."""
    values = np.random.default_rng(0).integers(60, 130, (height, width, 3), np.uint8)
    memory = io.BytesIO()
    Image.fromarray(values).save(memory, "PNG")
    return memory.getvalue()
