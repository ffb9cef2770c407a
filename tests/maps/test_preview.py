"""The picture of a map."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from pipeline.maps.preview import write_preview
from tests.support.maps import CLASSES, make_map


def pixels(path: Path) -> np.ndarray:
    return (matplotlib.image.imread(path) * 255).round().astype(int)[..., :3]


def test_the_picture_shows_the_classes_in_their_colours(tmp_path: Path) -> None:
    path = tmp_path / "preview.png"

    write_preview(make_map([[1, 2], [0, 1]]), path, title="A scene")

    shown = {tuple(color) for color in pixels(path).reshape(-1, 3).tolist()}
    forest, pasture, river = (tuple(bytes.fromhex(entry.color[1:])) for entry in CLASSES)
    assert {forest, pasture} <= shown
    assert river not in shown


def test_the_picture_ends_where_the_scene_ends(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.png", tmp_path / "cut.png"

    write_preview(make_map([[0, 0]]), whole)
    write_preview(make_map([[0, 0]], footprint=(1.25, 1.0)), cut)

    heights = [pixels(path).shape[0] / pixels(path).shape[1] for path in (whole, cut)]
    assert heights == pytest.approx([1 / 2, 1 / 1.25], rel=0.05)


@pytest.mark.parametrize("size", [(1, 1), (1, 60), (60, 1)])
def test_odd_shapes_give_a_picture(tmp_path: Path, size: tuple[int, int]) -> None:
    write_preview(make_map(np.ones(size)), tmp_path / "preview.png")

    assert max(pixels(tmp_path / "preview.png").shape) < 3000
