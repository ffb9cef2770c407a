"""How common classes are: what a prior makes of probabilities, which one is chosen, and wrong files."""

from dataclasses import replace

import numpy as np
import pytest
import yaml

from pipeline.errors import UsageError
from pipeline.maps.prior import EUROSAT_TILES, PRIORS, check_prior, find_prior, in_europe, load_prior
from pipeline.model.classes import number_classes
from pipeline.options import NAMED_PRIORS
from tests.support.cards import RGB_CARD

CARD = replace(RGB_CARD, classes=number_classes(list(EUROSAT_TILES)))
OTHER_CARD = replace(RGB_CARD, name="mine", classes=number_classes(["wet", "dry"]))
TILES = np.random.default_rng(0).dirichlet(np.full(10, 0.2), 500).astype(np.float32)
VIENNA, TANZANIA = (16.4, 48.2), (34.1, -3.4)


def write_shares(tmp_path, shares, name="mine.yaml"):
    (tmp_path / name).write_text(yaml.safe_dump({"source": "a survey", "shares": shares}))
    return str(tmp_path / name)


@pytest.mark.parametrize("name", ["europe", "world"])
def test_probabilities_still_sum_up_to_one(name):
    weighted = load_prior(name, CARD).apply(TILES)
    assert weighted.dtype == TILES.dtype
    np.testing.assert_allclose(weighted.sum(axis=1), 1, rtol=1e-5)
    assert (weighted.argmax(axis=1) != TILES.argmax(axis=1)).any()


def test_eurosat_changes_nothing_at_all():
    assert load_prior("eurosat", CARD).apply(TILES) is TILES


def test_the_shares_of_the_training_tiles_change_nothing(tmp_path):
    np.testing.assert_allclose(
        load_prior(write_shares(tmp_path, EUROSAT_TILES), CARD).apply(TILES), TILES, rtol=1e-5
    )


def test_an_undecided_tile_has_the_ground_shares_and_odds_change_by_their_ratio(tmp_path):
    """Bayes: a tile that fits all classes as well as their shares in training say tells nothing."""
    prior = load_prior("europe", CARD)
    training = np.array(list(EUROSAT_TILES.values())) / 27_000
    np.testing.assert_allclose(prior.apply(training[None])[0], list(prior.shares.values()), rtol=1e-9)

    other = load_prior(write_shares(tmp_path, {"wet": 1, "dry": 3}), OTHER_CARD)
    np.testing.assert_allclose(other.apply(np.array([[0.5, 0.5], [0.75, 0.25]])), [[0.25, 0.75], [0.5, 0.5]])


def test_a_tile_does_not_depend_on_the_others_beside_it():
    prior = load_prior("europe", CARD)
    alone = np.concatenate([prior.apply(tile[None]) for tile in TILES])
    np.testing.assert_array_equal(prior.apply(TILES), alone)


def test_shares_are_matched_by_name_in_any_order_and_unit(tmp_path):
    backwards = number_classes([c.name for c in reversed(CARD.classes)])
    hectares = {name: 1000 * share for name, share in load_prior("europe", CARD).shares.items()}
    prior = load_prior(write_shares(tmp_path, hectares), replace(CARD, classes=backwards))
    np.testing.assert_allclose(
        prior.apply(TILES[:, ::-1])[:, ::-1], load_prior("europe", CARD).apply(TILES), rtol=1e-5
    )


@pytest.mark.parametrize("path", sorted(PRIORS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shares_that_ship_name_their_source_and_sum_up_to_one(path):
    content = yaml.safe_load(path.read_text())
    assert path.stem in NAMED_PRIORS
    assert len(content["source"]) > 100
    assert sum(content["shares"].values()) == pytest.approx(1, abs=0.002)


@pytest.mark.parametrize(
    ("place", "name", "said"),
    [
        (VIENNA, "europe", "europe, as the scene lies in Europe; `prior` eurosat keeps"),
        (TANZANIA, "world", "world, as the scene lies outside Europe"),
        (None, "eurosat", "eurosat, as the scene has no place"),
    ],
)
def test_by_default_the_place_decides(place, name, said):
    prior, note = find_prior("auto", CARD, place)
    assert prior == load_prior(name, CARD)
    assert (note.code, note.option) == ("prior-chosen", "prior")
    assert said in note.text


@pytest.mark.parametrize(
    ("place", "inside"),
    [
        ((-22, 64), True),
        ((-9, 38.7), True),
        ((33, 35), True),
        ((27, 71), True),
        ((0, 30), False),
        ((-48, -25), False),
        ((80, 55), False),
    ],
)
def test_europe_is_a_box_from_iceland_to_cyprus(place, inside):
    assert in_europe(*place) == inside


def test_a_stated_prior_is_used_anywhere_and_said():
    prior, note = find_prior("europe", CARD, TANZANIA)
    assert prior.name == "europe"
    assert "europe, as stated by `prior`" in note.text


def test_a_model_of_other_classes_keeps_its_own_shares(tmp_path):
    prior, note = find_prior("auto", OTHER_CARD, VIENNA)
    assert prior.ratio is None
    assert "those of the training tiles" in note.text
    with pytest.raises(UsageError, match="mine has others: give a file that names wet, dry"):
        check_prior("europe", OTHER_CARD)
    check_prior(write_shares(tmp_path, {"wet": 1, "dry": 1}), OTHER_CARD)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("shares: {wet: 1}", "lacks dry"),
        ("shares: {wet: 1, dry: 1, ice: 1}", "names ice"),
        ("shares: {wet: 1, dry: 0}", "gives dry the share 0: .* greater than 0"),
        ("shares: {wet: 1, dry: .nan}", "gives dry the share nan"),
        ("shares: {wet: 1, dry: much}", "gives dry the share much"),
        ("shares: {wet: 1, dry: true}", "gives dry the share True"),
        ("wet: 1\ndry: 1", "no class shares: write `shares:`"),
        ("", "no class shares"),
        ("shares: [1, 2]", "no class shares"),
        ("shares: {wet", "cannot be read as YAML"),
        ("\x00\x01", "cannot be read as YAML"),
    ],
)
def test_wrong_files_are_refused_with_what_is_wrong(tmp_path, content, said):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(UsageError, match=said):
        check_prior(str(path), OTHER_CARD)


def test_what_is_neither_a_name_nor_a_file_is_refused(tmp_path):
    with pytest.raises(
        UsageError,
        match=r"auto, eurosat, europe, world or a YAML .* no file asia",
    ):
        check_prior("asia", CARD)
