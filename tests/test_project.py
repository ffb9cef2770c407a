"""The project's own files agree with each other."""

import re
import tomllib
from pathlib import Path

import pytest

from pipeline.options import DEFAULT_MODEL

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def docker_lines() -> list[str]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_every_file_that_the_dockerfile_copies_exists():
    copies = [line.split()[1:-1] for line in docker_lines() if line.startswith("COPY")]
    assert copies
    for name in [name for copy in copies for name in copy]:
        assert (ROOT / name).exists(), name


def test_the_dockerfile_copies_all_that_the_package_is_built_from():
    copied = {name for line in docker_lines() if line.startswith("COPY") for name in line.split()[1:-1]}
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["only-include"], *wheel["force-include"], PROJECT["readme"], *PROJECT["license-files"]}
    assert needed <= copied


def test_every_extra_that_is_named_exists():
    extras = set(PROJECT["optional-dependencies"])
    for file in ("Dockerfile", "Makefile", "README.md", "CONTRIBUTING.md"):
        for named in re.findall(r"\.\[([\w,-]+)\]", (ROOT / file).read_text(encoding="utf-8")):
            assert set(named.split(",")) <= extras, file


def test_the_entry_point_is_the_command():
    assert PROJECT["scripts"] == {"landcover": "cli:main"}
    assert 'ENTRYPOINT ["landcover"]' in docker_lines()


def test_constraints_are_plain_and_pin_every_dependency():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    pins = dict(line.split("==") for line in lines)
    canonical = {re.sub(r"[-_.]+", "-", name).lower() for name in pins}
    required = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
    for requirement in required:
        name = re.split(r"[><=\[ ]", requirement)[0]
        assert re.sub(r"[-_.]+", "-", name).lower() in canonical, name


@pytest.mark.parametrize("bundle", sorted((ROOT / "models").glob("*/card.json")), ids=lambda p: p.parent.name)
def test_every_bundle_that_ships_loads_and_is_small(bundle):
    from pipeline.model.bundle import load_bundle
    from pipeline.model.weights import load_network

    loaded = load_bundle(bundle.parent)
    assert loaded.card.name == bundle.parent.name
    assert loaded.card.metrics["accuracy"] > 0.9
    assert (bundle.parent / "model.safetensors").stat().st_size < 50e6
    assert (bundle.parent / "README.md").is_file()
    load_network(loaded)


def test_the_default_model_ships():
    from pipeline.model.bundle import list_bundles

    assert DEFAULT_MODEL in list_bundles()


def test_every_picture_and_file_that_the_readme_shows_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert linked
    for name in linked:
        assert (ROOT / name).is_file(), name
