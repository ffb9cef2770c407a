"""The report beside a model: files that are there, whole, and say what was measured."""

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.errors import OutputError
from pipeline.model.classes import number_classes
from pipeline.training import plots, samples
from pipeline.training.dataset import TileSet, load_tiles
from pipeline.training.evaluate import Evaluation, TtaGain
from pipeline.training.page import Measurements
from pipeline.training.report import write_report
from pipeline.training.robustness import Condition, Outlier
from pipeline.training.samples import choose_samples
from tests.support.cards import RGB_CARD
from tests.support.tiles import make_tiles

CLASSES = ("Field", "Forest", "Water")
CARD = replace(
    RGB_CARD, name="my-model", classes=number_classes(CLASSES), temperature=0.8, digest="sha256:ab"
)
MEASURED = Measurements(
    tta=TtaGain(0.91, 0.3, 0.02, 7.9),
    robustness=(Condition("soft", 60, 0.64, 0.66, 0.9), Condition("softer", 60, 0.6, 0.66, 0.8)),
    outliers=(Outlier("snow", 10, 0.75, 0.5, {"Water": 0.7, "Field": 0.3}),),
)
HISTORY = """epoch,size,learning_rate,train_loss,train_accuracy,seconds,validation_loss,validation_accuracy
1,32,0.01,1.5,0.4,3.0,,
2,32,0.01,1.0,0.7,3.0,0.9,0.75
3,64,0.0,0.8,0.8,9.0,0.7,0.85
"""


def made_up(n: int, wrong: int) -> tuple[Evaluation, TileSet]:
    """Return `n` tiles of which the first `wrong` are classified wrongly, ever less confidently."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, n)
    probabilities = np.full((n, 3), 0.02, np.float32)
    probabilities[np.arange(n), labels] = 0.96
    for i in range(wrong):
        probabilities[i] = (1 - (0.95 - 0.01 * i)) / 2
        probabilities[i, (labels[i] + 1) % 3] = 0.95 - 0.01 * i
    names = tuple(f"{CLASSES[label]}/{i}.png" for i, label in enumerate(labels))
    images = torch.from_numpy(rng.integers(0, 255, (n, 3, 32, 32), dtype=np.uint8))
    return Evaluation(probabilities, labels, CLASSES, names), TileSet(
        images, torch.tensor(labels), CLASSES, names
    )


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


def texts_of(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


@pytest.fixture
def history(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text(HISTORY)
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return a folder with a report of all there is, on 60 tiles of which 20 are wrong."""
    output = tmp_path_factory.mktemp("report")
    (output / "history.csv").write_text(HISTORY)
    write_report(output, output / "history.csv", *made_up(60, wrong=20), CARD, MEASURED)
    return output


def test_all_files_appear_and_are_pictures(written):
    assert sorted(path.name for path in written.iterdir() if path.name != "history.csv") == [
        "accuracy_loss.png",
        "confusion_matrix.png",
        "reliability.png",
        "report.html",
        "report.json",
        "sample_predictions.png",
    ]
    for path in written.glob("*.png"):
        with Image.open(path) as image:
            image.load()
            assert min(image.size) > 300


def test_the_json_holds_all_that_was_measured(written):
    document = json.loads((written / "report.json").read_text())
    assert made_up(60, wrong=20)[0].summary().items() <= document.items()
    assert (document["model"], document["digest"]) == ("my-model", "sha256:ab")
    assert document["calibration"]["before"].keys() >= {"temperature", "expected_calibration_error", "bins"}
    assert document["test_time_augmentation"]["accuracy"] == 0.91
    assert [row["points_lost"] for row in document["robustness"]] == [2.0, 6.0]
    assert document["outliers"][0]["classes"] == {"Water": 0.7, "Field": 0.3}


@pytest.mark.parametrize(("n", "wrong"), [(1, 0), (5, 2), (5, 5)])
def test_few_tiles_or_no_mistakes_and_no_history_are_fine(tmp_path, n, wrong):
    write_report(tmp_path, None, *made_up(n, wrong), CARD)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".html", ".json", ".png", ".png", ".png"]


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


def test_the_most_confident_mistakes_come_first_and_apart_from_what_is_right():
    evaluation, tiles = made_up(100, wrong=30)
    groups = choose_samples(evaluation, tiles)
    right, mistakes = groups.values()
    assert list(groups) == ["Right, drawn at random from every class", "The most confident mistakes"]
    assert len(right) == len(mistakes) == samples.SAMPLES
    assert all(sample.right for sample in right)
    assert not any(sample.right for sample in mistakes)
    assert [round(sample.confidence, 2) for sample in mistakes[:3]] == [0.95, 0.94, 0.93]
    assert [sample.name for sample in mistakes] == list(evaluation.names[: samples.SAMPLES])
    # One of each class, then another of each.
    assert [sample.true for sample in right[:6]] == [*CLASSES, *CLASSES]


def test_the_picture_shows_truth_prediction_and_confidence():
    evaluation, tiles = made_up(100, wrong=30)
    panels = plots.plot_samples(evaluation, tiles).subfigs
    titles = [axes.get_title() for axes in panels[1].axes]
    for i, title in enumerate(titles):
        predicted, true = (CLASSES[which[i]] for which in (evaluation.predicted, evaluation.labels))
        assert title == f"{predicted} {95 - i}%\ntrue: {true}"


def test_the_pictures_are_the_tiles_named():
    evaluation, tiles = made_up(20, wrong=3)
    axes = plots.plot_samples(evaluation, tiles).subfigs[1].axes[0]
    assert np.array_equal(axes.images[0].get_array(), tiles.images[0].permute(1, 2, 0))


def test_multispectral_tiles_are_shown_in_natural_colours():
    evaluation, tiles = made_up(3, wrong=0)
    images = torch.zeros((3, 4, 32, 32), dtype=torch.int16)
    images[:, 2], images[:, 0] = 2750, 5000  # B04 at white, B02 beyond
    tiles = replace(tiles, images=images, bands=("B02", "B03", "B04", "B08"))
    (samples,) = choose_samples(evaluation, tiles).values()
    assert samples[0].picture[0, 0].tolist() == [255, 1, 255]


def test_tiles_without_colours_are_grey():
    evaluation, tiles = made_up(3, wrong=0)
    tiles = replace(tiles, images=tiles.images[:, :2], bands=("B08", "B11"))
    (samples,) = choose_samples(evaluation, tiles).values()
    assert (samples[0].picture[..., 0] == samples[0].picture[..., 2]).all()


def test_curves_are_those_of_the_history(history):
    accuracy, loss = plots.plot_history(history).axes
    training, validation = accuracy.get_lines()[:2]
    assert training.get_xydata().tolist() == [[1, 0.4], [2, 0.7], [3, 0.8]]
    assert validation.get_xydata().tolist() == [[2, 0.75], [3, 0.85]]
    assert loss.get_lines()[1].get_xydata().tolist() == [[2, 0.9], [3, 0.7]]
    assert accuracy.get_lines()[2].get_xdata() == [2.5, 2.5]  # where the pieces grow


def test_the_confusion_matrix_shows_counts():
    evaluation, _ = made_up(50, wrong=10)
    shown = texts_of(plots.plot_confusion(evaluation))
    for count in evaluation.confusion().diagonal():
        assert str(count) in shown
    assert "50 tiles, accuracy 80.00%" in shown


def test_the_reliability_diagram_shows_all_three_errors():
    evaluation, _ = made_up(50, wrong=10)
    figure = plots.plot_reliability(evaluation)
    figure.draw_without_rendering()
    shown = " ".join(texts_of(figure))
    assert "$" not in shown
    for error in evaluation.calibration.errors().values():
        assert f"(error {error:.2%})" in shown


def test_tiles_read_once_are_evaluated_and_reported_into_a_new_folder(tmp_path):
    tiles = load_tiles(make_tiles(tmp_path / "tiles", 3))
    evaluation = Evaluation(
        np.eye(3, dtype=np.float32)[tiles.labels], tiles.labels.numpy(), CLASSES, tiles.names
    )
    write_report(tmp_path / "new" / "report", None, evaluation, tiles, CARD)
    assert json.loads((tmp_path / "new" / "report" / "report.json").read_text())["accuracy"] == 1


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="report cannot be written"):
        write_report(tmp_path / "file" / "report", None, *made_up(5, 1), CARD)
