"""What an interrupted run left is read back, whatever happened to the file."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.journal import Journal
from pipeline.tiles import TileBlock

IDENTITY = {"model": "a"}


def blocks_of(*rows):
    """Blocks of so many rows of tiles, with random probabilities."""
    random = np.random.default_rng(0)
    start = 0
    for count in rows:
        index = np.flatnonzero(random.random(count * 4) < 0.8) + start * 4
        valid = random.random((count, 4)) < 0.9
        tiles = np.zeros((len(index), 3, 8, 8), np.uint16)
        probabilities = random.random((len(index), 10)).astype(np.float32)
        yield TileBlock(start, count, index, tiles, start, valid), probabilities
        start += count


def write(path, blocks, **options):
    journal = Journal(path, IDENTITY, **({"wait": 0} | options))
    for block, probabilities in blocks:
        journal.add(block, probabilities)
    return journal


def assert_same(found, expected):
    assert len(found) == len(expected)
    for (block, probabilities), (original, values) in zip(found, expected, strict=True):
        assert (block.tile_row, block.tile_rows, block.cell_row) == (
            original.tile_row,
            original.tile_rows,
            original.cell_row,
        )
        np.testing.assert_array_equal(block.index, original.index)
        np.testing.assert_array_equal(block.cell_valid, original.cell_valid)
        np.testing.assert_array_equal(probabilities, values)


def test_blocks_that_were_added_are_read_back(tmp_path):
    blocks = list(blocks_of(1, 3, 2))
    write(tmp_path / "j", blocks)
    assert_same(list(Journal(tmp_path / "j", IDENTITY).blocks()), blocks)


def test_a_short_run_leaves_no_trace(tmp_path):
    write(tmp_path / "j", blocks_of(1, 1), wait=1000)
    assert not list(tmp_path.iterdir())


def test_another_identity_finds_nothing_and_starts_over(tmp_path):
    blocks = list(blocks_of(1, 3, 2))
    write(tmp_path / "j", blocks)
    other = Journal(tmp_path / "j", {"model": "b"}, wait=0)
    assert list(other.blocks()) == []
    other.add(*blocks[0])
    assert_same(list(Journal(tmp_path / "j", {"model": "b"}).blocks()), blocks[:1])


@given(st.data())
def test_a_damaged_journal_gives_the_complete_blocks_and_resumes_there(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("journal") / "j"
    blocks = list(blocks_of(1, 2, 1, 3))
    write(path, blocks)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        path.write_bytes(whole[:cut])
    else:
        path.write_bytes(whole[:cut] + bytes([whole[cut] ^ 0xFF]) + whole[cut + 1 :])

    journal = Journal(path, IDENTITY, wait=0)
    found = list(journal.blocks())
    assert len(found) < len(blocks)
    assert_same(found, blocks[: len(found)])
    for block, probabilities in blocks[len(found) :]:
        journal.add(block, probabilities)
    assert path.read_bytes() == whole


def test_a_run_goes_on_without_a_journal_that_cannot_be_written(tmp_path, caplog):
    write(tmp_path / "absent" / "j", blocks_of(1, 1, 1))
    assert caplog.text.count("cannot be written, so this run cannot be resumed") == 1


def test_a_missing_journal_is_empty(tmp_path):
    journal = Journal(tmp_path / "j", IDENTITY)
    assert list(journal.blocks()) == []
    journal.remove()


@pytest.mark.parametrize("content", [b"", b"not a journal of ours at all"])
def test_a_file_of_another_program_is_no_journal(tmp_path, content):
    (tmp_path / "j").write_bytes(content)
    assert list(Journal(tmp_path / "j", IDENTITY).blocks()) == []


def test_zeros_left_by_a_power_cut_are_no_record(tmp_path):
    blocks = list(blocks_of(1, 3))
    write(tmp_path / "j", blocks)
    with (tmp_path / "j").open("ab") as file:
        file.write(bytes(4096))
    assert_same(list(Journal(tmp_path / "j", IDENTITY).blocks()), blocks)
