"""The examples that ship."""

import pytest

pytest.importorskip("starlette", reason="needs the extra [app]: make app-test")

from pipeline.app.examples import example_files


def test_every_example_is_classified_as_its_name_says(browser):
    answers = {file.stem: browser.classify_image(file.read_bytes(), file.name) for file in example_files()}
    assert {name: answer["class"] for name, answer in answers.items()} == {name: name for name in answers}
    for answer in answers.values():
        assert answer["certainty"] in ("sure", "fair", "unsure")
        assert sum(entry["probability"] for entry in answer["probabilities"]) == pytest.approx(1, abs=0.002)
