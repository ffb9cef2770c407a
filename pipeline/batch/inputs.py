"""Which scenes a batch has, and in which folder each one's map goes.

The output mirrors the input: the map of `IN/2023/a.tif` goes to `OUT/2023`. Nothing here opens an
image: a scene that turns out to be none fails in its worker, with its reason.
"""

import hashlib
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from glob import glob, has_magic
from pathlib import Path, PurePath

from pipeline.errors import UsageError
from pipeline.maps.outputs import is_output
from pipeline.scenes.band_names import band_in_file_name
from pipeline.scenes.registry import recognise, root_of

log = logging.getLogger(__name__)

# What a search takes for scenes; anything else can be given by name.
SEARCHED_SUFFIXES = frozenset({".tif", ".tiff", ".jp2", ".vrt", ".img"})
# So many single-band files whose names differ by the band alone are one scene: an image takes three.
BAND_FILES = 3

_ADDRESS = re.compile(r"/vsi|\w[\w+.-]+:")


@dataclass(frozen=True)
class SceneInput:
    """A scene as `classify` takes it, and the folder for its map, below the batch's output folder.

    `name` is what its files will be called.
    """

    path: str
    name: str
    folder: PurePath


@dataclass(frozen=True)
class _Found:
    """A scene, and the folder whose place its map takes: absolute, or below the output if `remote`."""

    path: str
    name: str
    folder: Path
    remote: bool = False


def find_scenes(sources: Sequence[str], output: Path, leave_out: Iterable[str] = ()) -> list[SceneInput]:
    """Return the scenes of folders, globs, lists (.txt, a path or address a line) and single scenes.

    Folders are searched through. The common parent of all scenes is mirrored, or the folder itself where
    one is searched; addresses go below their host and path. Scenes that would write the same files get a
    folder each, named like the scene's file. Files in `leave_out` and below `output` are no scenes.
    Raises UsageError if there is none.
    """
    found, roots = [], []
    for source in sources:
        scenes, root = _expand(source, output)
        found += scenes
        roots += root
    left_out = {str(_absolute(path)) for path in leave_out}
    unique = {scene.path: scene for scene in found if scene.path not in left_out}
    if not unique:
        raise UsageError(
            f"There are no scenes in {', '.join(sources)}: a search finds SAFE products, folders of band "
            f"files and files that end in {', '.join(sorted(SEARCHED_SUFFIXES))}."
        )
    return _tell_apart(_mirror(list(unique.values()), roots))


def is_address(path: str) -> bool:
    """Tell whether GDAL has to make sense of a path: it is remote or inside an archive."""
    return _ADDRESS.match(path) is not None and not Path(path).exists()


def shown(path: str) -> str:
    """Return a path or address for people to read.

    Without what follows `?` in an address, as a signature is a secret; and with what can be printed in
    place of bytes that are no text.
    """
    plain = path.partition("?")[0] if is_address(path) else path
    return plain.encode("utf-8", "backslashreplace").decode("utf-8")


def _absolute(path: str | Path) -> Path:
    """Return a path without `..`; links stay as they are, since what they are called is in the output."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _expand(source: str, output: Path) -> tuple[list[_Found], list[Path]]:
    """Return what one argument stands for, and the folder that was searched for it, if one was."""
    path = Path(source)
    if path.is_file() and path.suffix.lower() == ".txt":
        return _read_list(path, output)
    if path.exists() or is_address(source) or _in_archive(source):
        return _expand_path(source, output)
    if not has_magic(source):
        raise UsageError(f"There is no file or folder {source}.")
    matches = sorted(glob(source, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute ones
    if not matches:
        raise UsageError(f"Nothing matches {source}.")
    scenes = [match for match in matches if _is_scene(Path(match))]
    return _expand_all(scenes or matches, output)  # folders are searched where nothing else matches: dir_*


def _is_scene(path: Path) -> bool:
    """Tell whether what a pattern matched is meant as a scene: ** also names the folders on the way."""
    if path.is_dir():
        return bool(_scenes_at(path))
    return not (path.name.startswith(".") or is_output(path.name))


def _read_list(path: Path, output: Path) -> tuple[list[_Found], list[Path]]:
    """Read a list of scenes; one that is not there stays in it, to fail alone."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as a list of scenes, a path a line ({error}).") from error
    return _expand_all([line for line in lines if line and not line.startswith("#")], output)


def _expand_all(paths: Iterable[str], output: Path) -> tuple[list[_Found], list[Path]]:
    expanded = [_expand_path(path, output) for path in paths]
    return [scene for scenes, _ in expanded for scene in scenes], [r for _, roots in expanded for r in roots]


def _expand_path(path: str, output: Path) -> tuple[list[_Found], list[Path]]:
    if is_address(path):
        return [_at_address(path)], []
    if not Path(path).exists() and (member := _in_archive(path)):
        return [member], []
    local = _absolute(path)
    if scenes := _scenes_at(local):
        return scenes, []
    if local.is_dir():
        return list(_search(local, _absolute(output))), [local]
    return [_Found(str(local), local.stem, local.parent)], []


def _scenes_at(path: Path) -> list[_Found]:
    """Return the one scene that a product, its metadata or its archive is; nothing for other paths."""
    path = root_of(path)
    name = recognise(path)
    return [] if name is None else [_Found(str(path), name, path.parent)]


def _search(root: Path, output: Path) -> Iterator[_Found]:
    """Yield the scenes in and below a folder; links are followed, hidden files and folders are not."""
    seen = set()

    def unreadable(error: OSError) -> None:
        log.warning("%s was not searched: %s.", error.filename, error.strerror)

    for path, folders, files in os.walk(root, followlinks=True, onerror=unreadable):
        folder = Path(path)
        real = folder.resolve()
        if real in seen or (folder == output != root):
            folders.clear()
            continue
        seen.add(real)
        if product := _scenes_at(folder):
            yield from product
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from _scenes_in(folder, sorted(name for name in files if not name.startswith(".")))


def _scenes_in(folder: Path, names: list[str]) -> Iterator[_Found]:
    """Yield the scenes among a folder's files; a set of band files is one, and its path is the folder's."""
    rasters = [
        name for name in names if Path(name).suffix.lower() in SEARCHED_SUFFIXES and not is_output(name)
    ]
    sets: dict[str, dict[str, str]] = defaultdict(dict)
    for name in rasters:
        if named := band_in_file_name(Path(name).stem):
            band, key = named
            sets[key][name] = band
    whole = {key: files for key, files in sets.items() if len(set(files.values()) - {"SCL"}) >= BAND_FILES}
    if whole:
        yield _Found(str(folder), next(iter(whole)) or folder.resolve().name, folder)
    in_sets = {name for files in whole.values() for name in files}
    for name in rasters:
        if name not in in_sets:
            yield _Found(str(folder / name), Path(name).stem, folder)
    for name in names:
        if name.lower().endswith(".zip"):
            yield from _scenes_at(folder / name)


def _in_archive(path: str) -> _Found | None:
    """Return the scene for `archive.zip/inside/scene.tif`, if the archive is there."""
    inside = _absolute(path)
    for archive in inside.parents:
        if archive.suffix.lower() == ".zip" and archive.is_file():
            member = inside.relative_to(archive)
            address = f"/vsizip/{{{archive.as_posix()}}}/{member.as_posix()}"
            return _Found(address, _address_name(address), archive / member.parent)
    return None


def _at_address(address: str) -> _Found:
    """Place a scene by its address: `https://host/a/b.tif` and `/vsicurl/https://host/a/b.tif` at host/a."""
    plain = address.partition("?")[0]
    if match := re.fullmatch(r"(?:/vsizip/|zip://)(.+)", plain):  # in an archive at hand: like its path
        member = _in_archive(match[1].translate({ord("{"): None, ord("}"): None, ord("!"): "/"}))
        if member:
            return replace(member, path=address)
    bare = re.sub(r"/vsi\w+/|[\w+.-]{2,}:", "/", plain).replace("!", "/")
    parts = [re.sub(r"[^\w.=@+ -]", "_", part) for part in bare.split("/") if part.strip("{}. ")]
    return _Found(address, _address_name(plain), Path(*parts[:-1]), remote=True)


def _address_name(address: str) -> str:
    return re.sub(r"[^\w.-]+", "_", Path(address).stem)


def _mirror(found: list[_Found], roots: Sequence[Path]) -> list[SceneInput]:
    local = [scene.folder for scene in found if not scene.remote]
    base = _common_parent([*local, *roots])
    return [
        SceneInput(scene.path, scene.name, scene.folder if scene.remote else _below(base, scene.folder))
        for scene in found
    ]


def _common_parent(folders: Sequence[Path]) -> Path | None:
    try:
        return Path(os.path.commonpath(folders)) if folders else None
    except ValueError:  # several drives
        return None


def _below(base: Path | None, folder: Path) -> PurePath:
    if base is not None:
        return folder.relative_to(base)
    return PurePath(folder.drive.strip(":\\/"), *folder.parts[1:])


def _tell_apart(scenes: list[SceneInput]) -> list[SceneInput]:
    """Give a folder of its own to each scene whose files another one would write too.

    Upper and lower case are the same: on many disks they are.
    """

    def key(scene: SceneInput) -> str:
        return f"{scene.folder.as_posix()}/{scene.name}".casefold()

    def groups(scenes: list[SceneInput]) -> Iterator[list[SceneInput]]:
        by_key = defaultdict(list)
        for scene in scenes:
            by_key[key(scene)].append(scene)
        return iter(by_key.values())

    apart = []
    for group in groups(scenes):
        if len(group) > 1:
            log.warning(
                "%s would write the same files: each gets a folder named like its own file.",
                " and ".join(shown(scene.path) for scene in group),
            )
            group = [replace(scene, folder=scene.folder / _file_name(scene.path)) for scene in group]
        apart += group
    told = []
    for group in groups(apart):
        if (
            len(group) > 1
        ):  # addresses that differ in what they ask for, names in case: then by the whole path
            group = [
                replace(s, folder=s.folder.with_name(f"{s.folder.name}-{_digest(s.path)}")) for s in group
            ]
        told += group
    order = {scene.path: i for i, scene in enumerate(scenes)}
    return sorted(told, key=lambda scene: order[scene.path])


def _file_name(path: str) -> str:
    return re.sub(r"[^\w.=@+ -]", "_", Path(shown(path)).name)


def _digest(path: str) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
