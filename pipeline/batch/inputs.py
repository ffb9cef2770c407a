"""Which scenes a batch has, and which folder each scene's map goes to.

The output mirrors the input: the map of `IN/2023/a.tif` goes to `OUT/2023`. Nothing here opens an image: a
file that turns out not to be a scene fails later, in its worker. So does a path that cannot be looked at; in
a folder that is searched it is left out with a warning.
"""

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from glob import glob, has_magic
from pathlib import Path, PurePath

from pipeline.addresses import (
    file_name_of,
    folder_of,
    inside_archive,
    is_address,
    is_there,
    name_of,
    shown,
)
from pipeline.errors import UsageError
from pipeline.maps.own_files import is_own_file
from pipeline.scenes.band_names import band_in_file_name
from pipeline.scenes.registry import recognise, root_of

log = logging.getLogger(__name__)

# Files that a search takes for scenes; any other file can be given by name.
SEARCHED_SUFFIXES = frozenset({".tif", ".tiff", ".jp2", ".vrt", ".img"})
# This many single-band files whose names differ only in the band are one scene, since RGB takes three.
BAND_FILES = 3


@dataclass(frozen=True)
class SceneInput:
    """A scene of a batch and where its map goes."""

    path: str
    """The scene, as `open_scene` takes it."""

    name: str
    """What the map's files will be called."""

    folder: PurePath
    """The folder for the map, relative to the batch's output folder."""


@dataclass(frozen=True)
class _Found:
    """A scene that was found, before the output folders are known."""

    path: str
    name: str
    folder: Path  # where the scene is: absolute, or relative to the output folder if `remote`
    remote: bool = False


def find_scenes(sources: Sequence[str], output: Path, leave_out: Iterable[str] = ()) -> list[SceneInput]:
    """Return the scenes in folders, globs, lists (.txt, one path or address per line) and single scenes.

    Folders are searched recursively. The output mirrors the tree below the common parent of all scenes and
    searched folders; the map of an address goes to its host and path. Scenes that would write the same files
    each get a folder of their own, named after the scene's file. Files in `leave_out` and below `output` do
    not count as scenes.

    Raises:
        UsageError: there is no scene, or a source does not exist.
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
    return _separate(_mirror(list(unique.values()), roots))


def _absolute(path: str | Path) -> Path:
    """Return an absolute path without `..`; links are kept, since the output is named after them."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _expand(source: str, output: Path) -> tuple[list[_Found], list[Path]]:
    """Return the scenes that one source stands for, and the folders that were searched."""
    path = Path(source)
    if path.suffix.lower() == ".txt" and _is_file(path):
        return _read_list(path, output)
    if is_there(source) or is_address(source) or _in_archive(source):
        return _expand_path(source, output)
    if not has_magic(source):
        raise UsageError(f"There is no file or folder {source}.")
    matches = sorted(glob(source, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute patterns
    if not matches:
        raise UsageError(f"Nothing matches {source}.")
    scenes = [match for match in matches if _is_scene(Path(match))]
    return _expand_all(scenes or matches, output)  # search folders only if nothing else matches: dir_*


def _is_scene(path: Path) -> bool:
    """Return whether a match of a pattern is a scene: ** also matches folders on the way."""
    try:
        if path.is_dir():
            return bool(_scenes_at(path))
    except OSError as error:
        _warn_unsearched(path, error)
        return False
    return not (path.name.startswith(".") or is_own_file(path))


def _is_file(path: Path) -> bool:
    """Return whether a path is a file that can be looked at."""
    try:
        return path.is_file()
    except OSError:
        return False


def _warn_unsearched(path: str | Path, error: OSError) -> None:
    log.warning("%s is left out, since it could not be searched: %s.", shown(str(path)), error.strerror)


def _read_list(path: Path, output: Path) -> tuple[list[_Found], list[Path]]:
    """Read a list of scenes; those that do not exist are kept, to fail one by one."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path} cannot be read as a list of scenes, one path per line ({error})."
        ) from error
    return _expand_all([line for line in lines if line and not line.startswith("#")], output)


def _expand_all(paths: Iterable[str], output: Path) -> tuple[list[_Found], list[Path]]:
    expanded = [_expand_path(path, output) for path in paths]
    return [scene for scenes, _ in expanded for scene in scenes], [r for _, roots in expanded for r in roots]


def _expand_path(path: str, output: Path) -> tuple[list[_Found], list[Path]]:
    if is_address(path):
        return [_at_address(path)], []
    if not is_there(path) and (member := _in_archive(path)):
        return [member], []
    local = _absolute(path)
    try:
        if scenes := _scenes_at(local):
            return scenes, []
        if local.is_dir():
            return list(_search(local, _absolute(output))), [local]
    except OSError as error:
        log.debug("%s cannot be looked at: %s.", path, error)  # to fail alone, in its worker
    return [_Found(str(local), local.stem, local.parent)], []


def _scenes_at(path: Path) -> list[_Found]:
    """Return the one scene that a product, its metadata or its archive is; nothing for other paths."""
    path = root_of(path)
    name = recognise(path)
    return [] if name is None else [_Found(str(path), name, path.parent)]


def _search(root: Path, output: Path) -> Iterator[_Found]:
    """Yield the scenes in and below a folder; links are followed, hidden files and folders are skipped."""
    seen = set()

    def unreadable(error: OSError) -> None:
        _warn_unsearched(error.filename, error)

    for path, folders, files in os.walk(root, followlinks=True, onerror=unreadable):
        folder = Path(path)
        real = folder.resolve()
        if real in seen or (folder == output != root):
            folders.clear()
            continue
        seen.add(real)
        try:
            product = _scenes_at(folder)
            found = product or list(_scenes_in(folder, sorted(n for n in files if not n.startswith("."))))
        except OSError as error:  # it can be listed, but not entered
            _warn_unsearched(folder, error)
            product, found = [], []
        yield from found
        folders[:] = [] if product else sorted(name for name in folders if not name.startswith("."))


def _scenes_in(folder: Path, names: list[str]) -> Iterator[_Found]:
    """Yield the scenes among a folder's files; a set of band files is one scene with the folder's path."""
    rasters = [
        name
        for name in names
        if Path(name).suffix.lower() in SEARCHED_SUFFIXES and not is_own_file(folder / name)
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
    """Return the scene for a path like `archive.zip/inside/scene.tif`; None if there is no such archive."""
    inside = _absolute(path)
    for archive in inside.parents:
        if archive.suffix.lower() == ".zip" and _is_file(archive):
            member = inside.relative_to(archive)
            address = f"/vsizip/{{{archive.as_posix()}}}/{member.as_posix()}"
            return _Found(address, name_of(address), archive / member.parent)
    return None


def _at_address(address: str) -> _Found:
    """Return the scene at an address; https://host/a/b.tif and /vsicurl/https://host/a/b.tif go to host/a."""
    if (inside := inside_archive(address)) and (member := _in_archive(inside)):
        return replace(member, path=address)
    return _Found(address, name_of(address), Path(folder_of(address)), remote=True)


def _mirror(found: list[_Found], roots: Sequence[Path]) -> list[SceneInput]:
    """Give each scene its output folder; `roots` are the folders that were searched."""
    local = [scene.folder for scene in found if not scene.remote]
    base = _common_parent([*local, *roots])
    return [
        SceneInput(scene.path, scene.name, scene.folder if scene.remote else _below(base, scene.folder))
        for scene in found
    ]


def _common_parent(folders: Sequence[Path]) -> Path | None:
    try:
        return Path(os.path.commonpath(folders)) if folders else None
    except ValueError:  # they are on several drives
        return None


def _below(base: Path | None, folder: Path) -> PurePath:
    if base is not None:
        return folder.relative_to(base)
    return PurePath(folder.drive.strip(":\\/"), *folder.parts[1:])


def _separate(scenes: list[SceneInput]) -> list[SceneInput]:
    """Give scenes that would write the same files a folder of their own each; the order stays."""
    folders: dict[str, PurePath] = {}
    for group in _conflicts(scenes):
        log.warning(
            "%s would write the same files: each gets a folder named after its own file.",
            " and ".join(shown(scene.path) for scene in group),
        )
        folders |= {scene.path: scene.folder / file_name_of(scene.path) for scene in group}
    scenes = _move(scenes, folders)
    # Addresses may differ only in their query, file names only in case: add a digest of the whole path.
    again = [scene for group in _conflicts(scenes) for scene in group]
    return _move(scenes, {s.path: s.folder.with_name(f"{s.folder.name}-{_digest(s.path)}") for s in again})


def _move(scenes: list[SceneInput], folders: Mapping[str, PurePath]) -> list[SceneInput]:
    """Return the scenes with new folders for those whose path is in `folders`."""
    return [replace(scene, folder=folders.get(scene.path, scene.folder)) for scene in scenes]


def _conflicts(scenes: Iterable[SceneInput]) -> list[list[SceneInput]]:
    """Return groups of scenes that would write the same files; many disks ignore upper and lower case."""
    by_file = defaultdict(list)
    for scene in scenes:
        by_file[f"{scene.folder.as_posix()}/{scene.name}".casefold()].append(scene)
    return [group for group in by_file.values() if len(group) > 1]


def _digest(path: str) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
