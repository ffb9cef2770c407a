import re

from pipeline.model.classes import EUROSAT_COLORS, number_classes


def test_any_classes_get_ids_from_one_and_different_colors():
    classes = number_classes(sorted(EUROSAT_COLORS) + [f"Class{i}" for i in range(40)])
    assert [c.id for c in classes] == list(range(1, 51))
    assert len({c.color for c in classes}) == 50
    assert all(re.fullmatch("#[0-9a-f]{6}", c.color) for c in classes)
    assert classes[1].color == EUROSAT_COLORS["Forest"]
