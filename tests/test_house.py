"""The rules of the house: which module may import what, and what messages may say."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from pipeline.commands.declarations import all_commands
from pipeline.commands.printing import FLAGS

ROOT = Path(__file__).parents[1]
FILES = [*sorted((ROOT / "pipeline").rglob("*.py")), ROOT / "cli.py"]

# From the ground up: a module may import from its own floor and from those below.
FLOORS = (
    {"errors", "notes"},
    {"values", "tiles", "files", "addresses"},
    {"options"},
    {"model"},
    {"scenes"},
    {"maps"},
    {"training"},
    {"classify", "journal"},
    {"batch"},
    {"app"},
    {"commands"},
    {"cli"},
)

# A GPU server for training may have none of these.
NOT_FOR_TRAINING = (
    *("rasterio", "geopandas", "shapely", "pyproj", "pyogrio", "affine", "pyarrow"),
    *("pydantic", "tensorboard"),
)

GEOGRAPHY = {"rasterio", "geopandas", "shapely", "pyproj", "pyogrio", "affine"}
NETWORK = {"torch", "torchvision", "safetensors"}
NO_NETWORK = {"pipeline.model.card", "pipeline.model.classes"}
"""The modules of `model` that are plain facts, which scenes and maps may know."""

OTHER_PROGRAMS_FLAGS = {"--nproc-per-node"}


@dataclass(frozen=True)
class Import:
    """One module that another one imports, in the line of the file."""

    importer: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file): file for file in FILES}
TREES = {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in MODULES.items()}


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes but those that only type checkers see."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from nodes(child)


def imports(name: str) -> Iterator[Import]:
    """Yield what a module imports, inside functions too."""
    for node in nodes(TREES[name]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(name, alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield Import(name, inner if inner in MODULES else node.module, node.lineno)


IMPORTS = [found for name in MODULES for found in imports(name)]


def room(module: str) -> str:
    """Return the room or the ground-floor module that a module belongs to."""
    return module.removeprefix("pipeline.").split(".")[0]


def floor(module: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if room(module) in rooms)


def literals(name: str) -> Iterator[tuple[str, int]]:
    """Yield a module's strings with their lines, without docstrings."""
    bare = {id(node.value) for node in ast.walk(TREES[name]) if isinstance(node, ast.Expr)}
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare:
            yield node.value, node.lineno


def broken(found: list[Import]) -> str:
    return "\n".join(map(str, found))


def load(modules: list[str], *, absent: tuple[str, ...] = ()) -> set[str]:
    """Import modules in a new process that lacks some packages, and return what is loaded then."""
    script = (
        f"import sys\nfor name in {absent!r}: sys.modules[name] = None\n"
        + "".join(f"import {module}\n" for module in modules)
        + "print(*(name for name, module in sys.modules.items() if module))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_every_module_has_a_floor():
    assert {room(name) for name in MODULES} - set().union(*FLOORS) == {"pipeline"}


def test_arrows_point_down():
    inner = [i for i in IMPORTS if i.imported in MODULES and "pipeline" not in (i.importer, i.imported)]
    assert inner
    up = [i for i in inner if floor(i.imported) > floor(i.importer)]
    assert not up, broken(up)


def test_no_module_imports_in_a_circle():
    graph: dict[str, set[str]] = {name: set() for name in MODULES}
    for found in IMPORTS:
        if found.imported in MODULES:
            graph[found.importer].add(found.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize("name", ["scenes", "maps"])
def test_scenes_and_maps_know_no_network(name):
    known = [
        i
        for i in IMPORTS
        if room(i.importer) == name
        and (
            i.imported.split(".")[0] in NETWORK
            or (i.imported.startswith("pipeline.model") and i.imported not in NO_NETWORK)
        )
    ]
    assert not known, broken(known)


def test_models_know_no_geography():
    known = [i for i in IMPORTS if room(i.importer) == "model" and i.imported.split(".")[0] in GEOGRAPHY]
    assert not known, broken(known)


def test_commands_know_no_arrays():
    known = [
        i
        for i in IMPORTS
        if room(i.importer) in ("commands", "cli") and i.imported.split(".")[0] in {"numpy", *NETWORK}
    ]
    assert not known, broken(known)


def test_only_the_public_api_stands_in_an_init():
    inits = [file for file in FILES if file.name == "__init__.py"]
    filled = [str(file.relative_to(ROOT)) for file in inits if file.read_text(encoding="utf-8").strip()]
    assert filled == ["pipeline/__init__.py"]


def test_plain_modules_and_scenes_load_no_torch():
    scenes = [name for name in MODULES if room(name) == "scenes"]
    loaded = load(["pipeline.options", "pipeline.model.card", *scenes])
    assert "pipeline.scenes.scene" in loaded
    assert not loaded & NETWORK


def test_batch_and_app_start_without_torch_and_gdal():
    """Their workers and threads load what is heavy, when all else is ready."""
    load(["pipeline.commands.batch", "pipeline.commands.app"], absent=("torch", "rasterio"))


def test_training_needs_nothing_of_scenes():
    """It runs on GPU servers that have neither rasterio nor geopandas, nor what is optional."""
    training = [name for name in MODULES if room(name) == "training"]
    load([*training, "pipeline.commands.train", "pipeline.commands.evaluate"], absent=NOT_FOR_TRAINING)


def test_messages_name_no_flags():
    """Below the commands they name options, which the page and programs know too."""
    flags = [
        f"{name}:{line} {flag}"
        for name in MODULES
        if room(name) not in ("commands", "cli")
        for text, line in literals(name)
        for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", text)
        if flag not in OTHER_PROGRAMS_FLAGS
    ]
    assert not flags, "\n".join(flags)


def test_options_in_messages_are_options_of_a_command():
    """A name in backticks is printed as a flag, so it must be one; names of commands stay as they are."""
    known = {*FLAGS, *(command.name for command in all_commands())}
    unknown = [
        f"{name}:{line} `{word}`"
        for name in MODULES
        for text, line in literals(name)
        for word in re.findall(r"`(\w+)`", text)
        if word not in known
    ]
    assert not unknown, "\n".join(unknown)
