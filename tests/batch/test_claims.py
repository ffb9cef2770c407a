"""Only one batch works in an output folder at a time."""

import os
import shutil

import pytest

from pipeline.batch.claims import claim, remove_leftovers
from pipeline.errors import OutputError
from tests.support.batches import wait_for


def test_two_batches_on_one_folder(runner, scenes, tmp_path):
    shutil.copy(scenes / "good_0.tif", scenes / "hang.tif")
    first = runner.start(scenes, "-o", tmp_path / "maps", poison=True)
    wait_for((tmp_path / "maps" / "good_2_run.json").exists)
    status, printed = runner.run(scenes, "-o", tmp_path / "maps")
    assert status == 1
    assert f"process {first.pid} " in printed
    first.kill()
    first.wait()
    (scenes / "hang.tif").unlink()
    assert runner.run(scenes, "-o", tmp_path / "maps")[0] == 0


def test_a_claim_keeps_other_batches_out_until_it_ends(tmp_path):
    again = pytest.raises(OutputError, match=rf"process {os.getpid()} .*`output`")
    with claim(tmp_path), again, claim(tmp_path):
        pass
    with claim(tmp_path):
        pass


def test_only_unfinished_files_are_removed(tmp_path):
    (tmp_path / ".a.12345678.part").mkdir()
    (tmp_path / ".a.12345678.part" / "a_landcover.tif").touch()
    (tmp_path / ".b_areas.csv.0000abcd.part").touch()
    for name in ("a_landcover.tif", ".hidden", "c.part"):
        (tmp_path / name).touch()
    remove_leftovers([tmp_path, tmp_path / "absent"])
    assert {path.name for path in tmp_path.iterdir()} == {"a_landcover.tif", ".hidden", "c.part"}
