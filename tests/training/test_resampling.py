"""Resampling of tiles, against GDAL and Pillow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject

from pipeline.training.resampling import middle_matrix, resample, resampling_matrix

KERNELS = ("bilinear", "cubic")


@pytest.mark.parametrize("kernel", KERNELS)
def test_without_shift_and_scale_nothing_changes(kernel):
    np.testing.assert_allclose(resampling_matrix(16, kernel), np.eye(16), atol=1e-7)


@given(
    st.sampled_from(KERNELS), st.integers(4, 64), st.floats(0.7, 1.5), st.floats(-2, 2), st.floats(-100, 300)
)
def test_what_is_flat_stays_flat(kernel, size, scale, shift, value):
    matrix = resampling_matrix(size, kernel, scale=scale, shift=shift)
    flat = np.full((1, 1, size, size), value, np.float32)
    np.testing.assert_allclose(resample(flat, matrix), flat, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.5), (0.8, 0.0), (1.25, 0.0)])
def test_tiles_are_resampled_as_gdal_warps_scenes(kernel, scale, shift):
    """Of the middle 40 pixels: where data ends, GDAL has no more to go on."""
    pixels = np.random.default_rng(1).uniform(0, 255, (64, 64)).astype(np.float32)
    here = Affine(1, 0, 0, 0, -1, 64)
    start = 32 - 20 * scale + shift
    there = Affine(scale, 0, start, 0, -scale, 64 - start)
    warped = np.zeros((40, 40), np.float32)
    reproject(
        pixels,
        warped,
        src_transform=here,
        dst_transform=there,
        src_crs="EPSG:32633",
        dst_crs="EPSG:32633",
        resampling=Resampling[kernel],
    )
    ours = resample(pixels[None, None], resampling_matrix(64, kernel, scale=scale, shift=shift))[0, 0]
    np.testing.assert_allclose(ours[12:-12, 12:-12], warped, atol=0.6)


@pytest.mark.parametrize(("kernel", "filter_"), [("bilinear", Image.BILINEAR), ("cubic", Image.BICUBIC)])
@pytest.mark.parametrize("scale", [0.8, 1.2])
def test_edges_are_reflected(kernel, filter_, scale):
    """Against Pillow, on a tile that was extended by its own reflection."""
    pixels = np.random.default_rng(2).uniform(0, 255, (20, 20)).astype(np.float32)
    wide = Image.fromarray(np.pad(pixels, 20, mode="symmetric"))
    margin = 20 + 10 * (1 - scale)
    theirs = wide.resize((20, 20), filter_, box=(margin, margin, 60 - margin, 60 - margin))
    ours = resample(pixels[None, None], resampling_matrix(20, kernel, scale=scale))[0, 0]
    inner = slice(3, -3)  # Pillow looks at nothing outside the box
    np.testing.assert_allclose(ours[inner, inner], np.asarray(theirs)[inner, inner], atol=1e-2)
    assert not np.allclose(ours[0], ours[1])


def test_half_a_pixel_is_the_mean_of_two():
    row = np.array([0, 10, 40, 90], np.float32)
    matrix = resampling_matrix(4, "bilinear", shift=0.5)
    assert (matrix @ row).tolist() == [5, 25, 65, 90]


@pytest.mark.parametrize(("size", "share"), [(64, 0.8), (64, 1.0), (16, 0.8), (15, 0.6), (32, 0.9)])
def test_the_middle_stays_as_sharp_as_it_is(size, share):
    tile = np.random.default_rng(1).uniform(0, 255, (1, 1, size, size)).astype(np.float32)
    shown = resample(tile, middle_matrix(size, share))
    kept = round(size * share)
    start = (size - kept) // 2
    middle = (..., slice(start, start + kept), slice(start, start + kept))
    assert np.array_equal(shown[middle], tile[middle])
    assert set(shown.ravel()) == set(tile[middle].ravel())  # nothing of what lies around it
