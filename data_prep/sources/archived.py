"""A zip or tar that holds a file of labels and the images it names."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from data_prep.decoding.work import Drawing
from data_prep.refusal import Flaw
from data_prep.sources.detect import LABEL_ENDINGS, Candidate, candidates
from data_prep.sources.folder import FolderSource
from data_prep.sources.members import Members, open_members
from data_prep.sources.source import Found, Source
from lensmith.errors import InputError, Problem

# The labels, and what readers take beside them (Label Studio's configuration).
_UNPACKED = (*LABEL_ENDINGS, ".xml")
# An archive with more of them holds no file of labels but one for each image.
_MOST_UNPACKED = 100
# A file system takes no longer name, in bytes.
_LONGEST_NAME = 255
_UNPACK = "unpack it into a folder and name the file of labels there"


class NoLabels(InputError):
    """No file of labels is in an archive."""


class Archived(Source):
    """An archive whose labels are unpacked into a temporary folder, and whose images are read in place."""

    def __init__(self, path: Path, format_name: str | None, reader: Callable[[Path, str], Source]) -> None:
        """`reader` opens a file of labels in a format.

        Raises InputError where the archive may not be read, or does not hold one file of labels whose images
        are files; NoLabels where it holds none.
        """
        self.name = path.name
        members = open_members(path)
        folder = Path(tempfile.mkdtemp(prefix="lensmith-labels-")).resolve()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        _unpack(members, folder)
        labels = _labels(folder, path, format_name)
        inner = reader(labels.path, labels.format)
        if not isinstance(inner, FolderSource) or not inner.root.is_relative_to(folder):
            problem = Problem(f"its labels ({labels.path.name}) name images that are not in it", mend=_UNPACK)
            raise InputError(f"{path} cannot be used", [problem])
        below = inner.root.relative_to(folder).as_posix()
        inner.members = Members(path, members.archive, below)
        self._inner = inner
        self.format = inner.format
        self.why = "" if format_name else labels.why

    def rows(self) -> Iterator[Found]:
        for found in self._inner.rows():
            yield replace(found, place=f"{self.name}/{found.place}")

    def facts(self) -> dict[str, Any]:
        return self._inner.facts()

    def picture(self, path: str) -> Path | bytes | Drawing | Flaw:
        return self._inner.picture(path)

    def picture_stamp(self, path: str) -> list[Any]:
        return self._inner.picture_stamp(path)


def _unpack(members: Members, folder: Path) -> None:
    """Write what may be labels to its place in `folder`. Raises InputError."""
    refused = {name: flaw for name, flaw in members.archive.refused.items() if _is_wanted(name)}
    problems = [Problem(flaw.what, members.path.name, flaw.mend) for flaw in refused.values()]
    names = [name for name in members.archive.members if _is_wanted(name)]
    if len(names) > _MOST_UNPACKED:
        problems.append(Problem(f"{len(names):,} files in it may be the labels", mend=_UNPACK))
    for name in [] if problems else names:
        data = members.read(name)
        if isinstance(data, Flaw):
            problems.append(Problem(data.what, mend=data.mend))
        elif any(str(parent) in members.archive.members for parent in PurePosixPath(name).parents):
            problems.append(Problem(f"{name!r} lies in a file", members.path.name, _UNPACK))
        else:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    if problems:
        raise InputError(f"{members.path} cannot be used", problems)


def _is_wanted(name: str) -> bool:
    path = PurePosixPath(name)
    # Beside each file a Mac puts a shadow of it.
    return (
        path.suffix.lower() in _UNPACKED
        and "__MACOSX" not in path.parts
        and all(len(part.encode("utf-8", "surrogateescape")) <= _LONGEST_NAME for part in path.parts)
    )


def _labels(folder: Path, archive: Path, format_name: str | None) -> Candidate:
    """The one file of labels in `folder`, or in the only folder within it. Raises InputError, NoLabels."""
    while len(inside := sorted(folder.iterdir())) == 1 and inside[0].is_dir():
        (folder,) = inside
    files = [each for each in inside if each.is_file() and each.suffix.lower() in LABEL_ENDINGS]
    if format_name is None:
        found = [candidate for each in files for candidate in candidates(each)]
    else:
        found = [Candidate(each, format_name, "the recipe says so") for each in files]
    if len(found) == 1:
        return found[0]
    if not found:
        looked = f"a file of labels ({', '.join(LABEL_ENDINGS)}) beside the folders of images"
        raise NoLabels(f"{archive} holds no files of labels", [Problem("looked for", mend=looked)])
    problems = [Problem(str(each), mend="leave one file of labels in it") for each in found]
    raise InputError(f"{archive} holds {len(found)} files of labels", problems)
