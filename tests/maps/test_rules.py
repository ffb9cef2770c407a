"""Which class a cell shows, in a map and where maps overlap."""

import numpy as np

from pipeline.maps.rules import ArithmeticMean, GeometricMean, decide, surer


def test_the_most_probable_class_is_chosen_and_the_first_of_equals():
    mean = np.array([[[0.2, 0.7, 0.1], [0.4, 0.2, 0.4]]])

    index, confidence = decide(mean)

    assert index.tolist() == [[1, 0]]
    assert confidence.tolist() == [[70, 40]]
    assert confidence.dtype == np.uint8


def test_the_geometric_mean_of_one_tile_is_itself_and_of_several_sums_up_to_one():
    rule = GeometricMean()
    tiles = np.random.default_rng(0).dirichlet(np.ones(10), 1000).astype(np.float32)

    alone = rule.of_cells(rule.of_tiles(tiles))
    together = rule.of_cells(rule.of_tiles(tiles).reshape(250, 4, 10).mean(axis=1))

    np.testing.assert_allclose(alone, tiles, atol=2e-6)
    np.testing.assert_allclose(together.sum(axis=-1), 1, rtol=1e-12)


def test_no_tile_can_forbid_a_class_but_it_can_make_it_unlikely():
    rule = GeometricMean()
    tiles = np.float32([[1, 0], [0.5, 0.5]])

    assert rule.of_cells(rule.of_tiles(tiles).mean(axis=0)).round(3).tolist() == [0.999, 0.001]
    assert ArithmeticMean().of_cells(tiles.mean(axis=0)).tolist() == [0.75, 0.25]


def test_a_class_beats_an_unsure_cell_which_beats_no_data():
    class_id = np.array([1, 0, 0], np.uint8)
    confidence = np.array([1, 99, 255], np.uint8)

    beats = surer(class_id[:, None], confidence[:, None], class_id, confidence)

    assert beats.tolist() == [[False, True, True], [False, False, True], [False, False, False]]


def test_of_two_classes_the_more_confident_one_is_surer_and_a_draw_is_not():
    class_id, one = np.array([1, 2, 3], np.uint8), np.uint8(1)

    assert surer(class_id, np.array([71, 70, 69], np.uint8), one, np.uint8(70)).tolist() == [
        True,
        False,
        False,
    ]
