"""Only one batch works in an output folder at a time."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.batch.claims import claim, remove_leftovers
from pipeline.errors import OutputError
from tests.support.batches import wait_for

ROOT = Path(__file__).parents[2]


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


def refuse_locks(monkeypatch, error: int) -> None:
    """Have the file system answer requests for a lock with this error."""

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", refuse)


WITHOUT_FLOCK = """
import errno, fcntl, os, sys, time
from pathlib import Path
from pipeline.batch.claims import claim
def refuse(descriptor, operation):
    raise OSError(errno.ENOSYS, "Function not implemented")
fcntl.flock = refuse
with claim(Path(sys.argv[1])):
    print("claimed", flush=True)
    time.sleep(100)
"""


def test_without_flock_a_killed_batch_goes_on_and_a_running_one_is_left(tmp_path, monkeypatch):
    running = subprocess.Popen(
        [sys.executable, "-c", WITHOUT_FLOCK, tmp_path], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    with running:
        assert running.stdout is not None
        assert running.stdout.readline() == "claimed\n"
        refuse_locks(monkeypatch, errno.ENOSYS)
        with (
            pytest.raises(OutputError, match=rf"process {running.pid} on .*If it is gone, remove "),
            claim(tmp_path),
        ):
            pass
        running.kill()
    for _ in range(2):
        with claim(tmp_path):
            pass
    assert not list(tmp_path.iterdir())


def test_what_a_batch_with_flock_left_is_no_claim_without(tmp_path, monkeypatch):
    (tmp_path / ".batch.lock").write_text("process 1 on somewhere\n")  # as earlier versions wrote it
    os.utime(tmp_path / ".batch.lock", (1, 1))
    refuse_locks(monkeypatch, errno.ENOSYS)
    with claim(tmp_path):
        pass


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_a_batch_goes_on_with_a_warning(tmp_path, monkeypatch, caplog, error):
    refuse_locks(monkeypatch, error)
    with claim(tmp_path):
        assert "run no other batch on it" in caplog.text


def test_other_errors_of_locks_end_the_batch(tmp_path, monkeypatch):
    refuse_locks(monkeypatch, errno.EIO)
    with pytest.raises(OutputError, match=r"cannot be locked .*`output`"), claim(tmp_path):
        pass


def test_only_unfinished_files_are_removed(tmp_path):
    (tmp_path / ".a.12345678.part").mkdir()
    (tmp_path / ".a.12345678.part" / "a_landcover.tif").touch()
    (tmp_path / ".b_areas.csv.0000abcd.part").touch()
    for name in ("a_landcover.tif", ".hidden", "c.part"):
        (tmp_path / name).touch()
    remove_leftovers([tmp_path, tmp_path / "absent"])
    assert {path.name for path in tmp_path.iterdir()} == {"a_landcover.tif", ".hidden", "c.part"}
