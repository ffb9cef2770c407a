"""Resampling of tiles as GDAL warps scenes, by matrices along rows and columns. Pure arrays."""

from collections.abc import Callable

import numpy as np

Array = np.ndarray


def bilinear(x: Array) -> Array:
    """Return the weights of linear interpolation at distances `x`, in pixels."""
    return np.clip(1 - np.abs(x), 0, None)


def cubic(x: Array) -> Array:
    """Return the weights of cubic convolution with a = -0.5 (Keys, 1981), which is what GDAL's cubic is."""
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


KERNELS: dict[str, Callable[[Array], Array]] = {"bilinear": bilinear, "cubic": cubic}


def resampling_matrix(size: int, kernel: str, *, scale: float = 1.0, shift: float = 0.0) -> Array:
    """Return the (size, size) float32 matrix that resamples a row of pixels about its middle.

    New pixels are `scale` times as large as the old ones and are shifted by `shift` old pixels. Where they
    are larger, the kernel widens with them, as GDAL's does; at the edges the row is reflected.
    """
    width = max(1.0, scale)
    center = (np.arange(size) + 0.5 - size / 2) * scale + size / 2 + shift
    source = np.arange(-size, 2 * size)
    weights = KERNELS[kernel]((source + 0.5 - center[:, None]) / width)
    weights /= weights.sum(axis=1, keepdims=True)
    before, inside, after = np.split(weights, 3, axis=1)
    return (before[:, ::-1] + inside + after[:, ::-1]).astype(np.float32)


def middle_matrix(size: int, share: float) -> Array:
    """Return the (size, size) float32 matrix that keeps the middle `share` of a row of pixels as it is.

    The rest becomes its reflection.
    """
    kept = round(share * size)
    start = (size - kept) // 2
    indices = np.pad(np.arange(start, start + kept), (start, size - kept - start), mode="reflect")
    return np.eye(size, dtype=np.float32)[indices]


def resample(values: Array, matrix: Array) -> Array:
    """Apply a resampling matrix along the rows and the columns of tiles (n, B, T, T) float32."""
    return matrix @ values @ matrix.T
