"""The record of a run: whether the map that it describes is the one wanted."""

import json

from pipeline.maps.areas import ClassArea
from pipeline.maps.record import Run, areas_of, earlier_run, identity, make_record, record_path
from pipeline.notes import warning
from tests.support.cards import RGB_CARD

SOURCE = {"path": "https://host/scene.tif"}
AREAS = (ClassArea(1, "Forest", 12.5, 100.0), ClassArea(0, "no data", 0.0, None))


def wanted(**options):
    return identity(RGB_CARD, SOURCE, options)


def write(folder, **options):
    run = Run(
        scene="https://host/scene.tif",
        notes=(warning("map-empty", None, "The map is empty."),),
        files={"run": "scene_run.json"},
        tiles=3,
        shape=(2, 4),
        areas=AREAS,
        seconds=1.23456,
        predictor={"device": "cpu"},
    )
    record = make_record(wanted(**options), run)
    record_path(folder, "scene").write_text(json.dumps(record))
    return record


def test_a_record_of_the_same_run_differs_in_nothing(tmp_path):
    record = write(tmp_path, stride=64, mask=tmp_path / "mask.tif")

    assert earlier_run(tmp_path, "scene", wanted(stride=64, mask=tmp_path / "mask.tif")) == (record, ())


def test_what_differs_is_named(tmp_path):
    write(tmp_path, stride=64)

    different = {**wanted(stride=32), "input": {"path": "elsewhere"}}
    assert earlier_run(tmp_path, "scene", different)[1] == ("input", "options")


def test_a_record_that_cannot_be_read_is_another_programs(tmp_path):
    assert earlier_run(tmp_path, "scene", wanted()) == (None, ())
    for content in ("", "[]", "{}"):
        record_path(tmp_path, "scene").write_text(content)
        assert earlier_run(tmp_path, "scene", wanted()) == ({}, ("program",))


def test_areas_and_cells_come_back_from_a_record(tmp_path):
    record = write(tmp_path)

    assert areas_of(record) == AREAS
    assert record["cells"] == {"rows": 2, "columns": 4}
    assert record["seconds"] == 1.235
    assert record["notes"][0]["code"] == "map-empty"
