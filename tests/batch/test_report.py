"""What the report of a batch shows."""

import re
from pathlib import Path

import pytest
import rasterio

from pipeline.batch.inputs import SceneInput
from pipeline.batch.messages import Outcome, Ready, Tiles
from pipeline.batch.report import Report, as_json, duration
from tests.support.batches import outcomes


def test_warnings_of_an_earlier_run_are_repeated(runner, scenes, tmp_path):
    with rasterio.open(scenes / "good_1.tif", "r+") as raster:
        raster.update_tags(PROCESSING_LEVEL="")
    warned = []
    for _ in range(2):
        status, printed = runner.run(scenes, "-o", tmp_path / "maps")
        assert status == 0
        assert "1 of them with warnings" in printed
        warned.append({name: scene["warnings"] for name, scene in outcomes(tmp_path / "maps").items()})
    assert warned[0] == warned[1]
    assert "Nothing names the product level" in warned[1]["good_1.tif"][0]


def test_the_page_escapes_text_and_needs_no_other_file(runner, scenes, tmp_path):
    (scenes / "<script>alert(1)<").mkdir()
    (scenes / "<script>alert(1)<" / "&.tif").write_bytes(b"no image")
    assert runner.run(scenes, "-o", tmp_path / "maps")[0] == 1
    page = (tmp_path / "maps" / "batch_report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;" in page
    assert page.count('<img src="data:image/png;base64,') == 3
    assert not re.search(r'(src|href)="(http|//|/)', page)  # it fetches nothing, and all links are relative
    assert page.index("alert(1)") < page.index("good_0")  # failures first


def test_scenes_without_an_outcome_count_as_interrupted(tmp_path):
    report = Report(tmp_path, [SceneInput(f"{name}.tif", name, Path()) for name in "abc"])
    report.add(Ready({"name": "fake", "digest": "0", "classes": []}, "cpu", 1))
    report.add(Tiles(1, 4))
    report.add(Outcome(1, "done", tiles=4, memory=5 * 2**20))
    report.close(signal=15)
    assert [report.count(status) for status in ("done", "interrupted")] == [1, 2]
    assert as_json(report)["ended_by_signal"] == 15
    assert as_json(report)["worker_memory_mib"] == 5


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0.0 s"), (4.21, "4.2 s"), (185, "3 min 5 s"), (7810, "2 h 10 min")]
)
def test_durations_are_written_for_people(seconds, text):
    assert duration(seconds) == text
