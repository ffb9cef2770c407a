"""What tests of several modules of this room share."""

from pathlib import Path

import pytest

from tests.support.safe import write_l1c_product


@pytest.fixture
def l1c_product(tmp_path: Path) -> Path:
    return write_l1c_product(tmp_path)
