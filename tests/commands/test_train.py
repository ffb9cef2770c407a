"""`landcover train`: refusing to replace a run, where it computes, what to do after Ctrl-C."""

from tests.support.command import fails, landcover
from tests.support.tiles import TINY_RECIPE, make_tiles


def test_an_existing_run_is_replaced_only_on_request(recipe, tmp_path):
    """Also: a recipe shorter than the usual warm-up needs no warm-up of its own."""
    train = ["train", "--data", make_tiles(tmp_path / "tiles"), "--config", recipe, "-o", tmp_path / "run"]
    assert landcover(*train).exit_code == 0
    before = (tmp_path / "run" / "card.json").read_bytes()
    message = fails(2, *train)
    assert "--resume" in message
    assert "--overwrite" in message
    assert (tmp_path / "run" / "card.json").read_bytes() == before
    assert landcover(*train, "--resume").exit_code == 0
    assert "give one of them" in fails(2, *train, "--resume", "--overwrite")
    recipe.write_text(TINY_RECIPE + "seed: 5\n")
    assert landcover(*train, "--overwrite").exit_code == 0
    assert (tmp_path / "run" / "card.json").read_bytes() != before


def test_training_runs_on_the_device_asked_for(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    train = ["train", "--data", make_tiles(tmp_path / "tiles"), "--config", recipe, "-o", tmp_path / "run"]
    assert "no CUDA device" in fails(2, *train, "--device", "cuda:1")
    assert not (tmp_path / "run" / "card.json").exists()
    assert landcover(*train, "--device", "cpu").exit_code == 0


def test_ctrl_c_says_how_to_continue(recipe, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.commands.train.run_training", interrupted)
    data = make_tiles(tmp_path / "tiles")
    result = landcover("train", "--data", data, "--config", recipe, "-o", tmp_path / "run")
    assert result.exit_code == 130
    assert "--resume" in result.stderr


def test_an_unreadable_tile_names_the_option_that_leaves_it_out(recipe, tmp_path):
    data = make_tiles(tmp_path / "tiles")
    (data / "Forest" / "Forest_3.png").write_bytes(b"broken")
    train = ["train", "--data", data, "--config", recipe, "-o", tmp_path / "run"]
    message = fails(1, *train)
    assert "Forest_3.png" in message
    assert "--skip-unreadable" in message
