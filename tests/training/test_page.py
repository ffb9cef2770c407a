"""The report's page: whole, on its own, and complete."""

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from pipeline.model.classes import number_classes
from pipeline.training.report import write_report
from tests.support.evaluations import CARD, CLASSES, HISTORY, MEASURED, made_up


class Page(HTMLParser):
    """The text of a page, its tags in order, its pictures, and whatever it would fetch."""

    def __init__(self, path):
        super().__init__()
        self.text, self.open, self.pictures, self.fetched = "", [], [], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attributes):
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "srcset", "action", "data"):
                (self.pictures if value.startswith("data:image/png;base64,") else self.fetched).append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data + " "


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return a folder with a report of all there is, on 60 tiles of which 20 are wrong."""
    output = tmp_path_factory.mktemp("report")
    (output / "history.csv").write_text(HISTORY)
    write_report(output, output / "history.csv", *made_up(60, wrong=20), CARD, MEASURED)
    return output


def test_the_page_is_whole_and_fetches_nothing(written):
    page = Page(written / "report.html")
    assert page.open == []  # every tag is closed
    assert page.fetched == []
    assert "url(" not in page.source
    assert "@import" not in page.source
    assert "width=device-width" in page.source
    # Curves, confusion and reliability, and a picture for each of two dozen and more tiles.
    assert len(page.pictures) == 3 + 18 + 18
    for uri in page.pictures:
        with Image.open(BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
            image.load()


def test_the_page_says_what_was_measured(written):
    text = Page(written / "report.html").text
    for words in (
        "my-model",
        "60 labelled tiles",
        "66.67 %",  # the accuracy
        "The most confident mistakes",
        "Forest taken for Water",
        "7.9 times as long",
        "softer 60.00 % 6.00 80.0 % 60",
        "snow 75.0 % 50.0 % Water 70 %, Field 30 %",
    ):
        assert words in text, words


def test_the_page_says_how_the_model_was_trained(tmp_path):
    recipe = {"stages": [{"epochs": 4}, {"epochs": 8}], "initial_weights": "imagenet", "seed": 3}
    training = {"recipe": recipe, "tiles": 240, "split": "stratified, seed 3", "best_epoch": 9}
    write_report(tmp_path, None, *made_up(10, 2), replace(CARD, training=training))
    text = Page(tmp_path / "report.html").text
    for words in (
        "Tiles to train on 240",
        "Split stratified, seed 3",
        "Best epoch, which is the model 9 of 12",
        "Started from imagenet",
        "initial_weights: imagenet seed: 3",
    ):
        assert words in text, words
    assert "Runs before" not in text


def test_a_class_without_tiles_has_no_scores(tmp_path):
    evaluation, tiles = made_up(30, wrong=0)
    classes = (*CLASSES, "Snow")
    probabilities = np.pad(evaluation.probabilities, ((0, 0), (0, 1)))
    evaluation = replace(evaluation, classes=classes, probabilities=probabilities)
    write_report(tmp_path, None, evaluation, tiles, replace(CARD, classes=number_classes(classes)))
    assert "Snow \N{EN DASH} \N{EN DASH} \N{EN DASH} 0" in Page(tmp_path / "report.html").text


def test_what_was_not_measured_has_no_heading(tmp_path):
    write_report(tmp_path, None, *made_up(10, 2), CARD)
    text = Page(tmp_path / "report.html").text
    for heading in ("Training fits", "Calibration"):
        assert heading in text
    for heading in ("Tiles to train on", "The recipe", "flips", "As scenes show it", "no class for"):
        assert heading not in text


def test_names_are_text_and_never_markup_or_formulas(tmp_path):
    classes = ("<b>Bog</b>", "$x^2", '"&')
    card = replace(CARD, name="<script>alert(1)</script>", classes=number_classes(classes))
    evaluation, tiles = made_up(30, wrong=9)
    names = tuple(name + '"><img src=x>' for name in evaluation.names)
    evaluation = replace(evaluation, classes=classes, names=names)
    write_report(tmp_path, None, evaluation, tiles, card)
    page = Page(tmp_path / "report.html")
    assert page.fetched == []
    assert "script" not in re.findall(r"<(\w+)", page.source)
    for text in ("<b>Bog</b>", "$x^2", '"&', "<script>alert(1)</script>"):
        assert text in page.text
