"""Webdataset shards: tar files in which the members of one sample stand together under one key.

    0001.jpg  0001.json  0002.jpg  0002.json

The key is a member's path up to the first dot of its name. Nothing is unpacked: images are read from their
place in the shard. An image is named "train-000.tar#0001.jpg".
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from data_prep.archives.tar import tar_members
from data_prep.refusal import Flaw, quoted
from data_prep.sources.columns import ColumnOptions, sample_of
from data_prep.sources.folder import files_facts
from data_prep.sources.member_index import MemberIndex, NameSet
from data_prep.sources.options import Names, missing_names
from data_prep.sources.source import Found, Source
from lensmith.errors import InputError, Problem
from lensmith.sample import Image
from lensmith.strict_json import parse_strict_json

# A label longer than this is refused unread, in bytes.
MAX_LABEL_BYTES = 16 << 20
# An image longer than this is refused unread, in bytes; `data.max_image_bytes` may ask for less.
MAX_IMAGE_BYTES = 1 << 30
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MAX_SHARDS = 100_000


class WebdatasetOptions(ColumnOptions):
    """How shards are read; columns are the fields of the .json member, and `txt` for a text member."""

    shards: str = Field(
        default="*.tar",
        description='names in the folder: "*.tar", or "train-{000..015}.tar" for all of these',
    )
    images: Names = Field(
        default=("jpg", "jpeg", "png", "webp"), description="endings of images, in the order they are shown"
    )
    labels: str = Field(default="json", min_length=1, description="ending of the member with the fields")


@dataclass
class _Group:
    key: str
    members: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    flaws: list[Flaw] = field(default_factory=list)


class Webdataset(Source):
    """One shard, or a folder of shards; a row's id and group are its key where no field says them."""

    format = "webdataset"
    options_kind = WebdatasetOptions

    def __init__(self, path: Path, options: WebdatasetOptions) -> None:
        self.path = path
        self.options = options
        self.name = path.name
        self._indexes: dict[str, MemberIndex] = {}

    @cached_property
    def shards(self) -> dict[str, Path]:
        """The shards by name, in order. Raises InputError where one is missing or packed in gzip."""
        found = [self.path] if self.path.is_file() else _matching(self.path, self.options.shards)
        problems = [
            Problem("is compressed: its members have no place to be read from", each.name, "gunzip it")
            for each in found
            if _is_gzip(each)
        ]
        if problems:
            raise InputError(f"{self.path} cannot be read", problems)
        return {each.name: each for each in found}

    def facts(self) -> dict[str, Any]:
        return files_facts(self.shards)

    def rows(self) -> Iterator[Found]:
        for shard, path in self.shards.items():
            with path.open("rb") as stream:
                for found in _groups(path):
                    if isinstance(found, Flaw):
                        yield Found(shard, "", None, (found,))
                    else:
                        yield self._found(shard, found, stream)

    def _found(self, shard: str, group: _Group, stream: Any) -> Found:
        place = f"{shard} sample {quoted(group.key)}"
        flaws = list(group.flaws)
        record: dict[str, Any] = {}
        if "txt" in group.members:
            record["txt"] = _text(group.members["txt"], stream, flaws)
        if self.options.labels in group.members:
            text = _text(group.members[self.options.labels], stream, flaws)
            record |= _fields(text, flaws)
        lacking = missing_names(self.options.named(), list(record), "field") if not flaws else []
        flaws += [Flaw("schema", f"{each.what} ({each.where})", each.mend) for each in lacking]
        if flaws:
            return Found(place, group.key if group.key.isprintable() else "", None, tuple(flaws))
        images = [
            Image(f"{shard}#{group.members[ending].name}")
            for ending in self.options.images
            if ending in group.members
        ]
        return sample_of(self.options, record, place, images, (group.key, group.key))

    def picture(self, path: str) -> bytes | Flaw:
        shard, _, member = path.partition(".tar#")
        file = self.shards.get(f"{shard}.tar")
        if file is None:
            return Flaw("image_path", f"{quoted(path)} names no shard that is here", "prepare the data again")
        if file.name not in self._indexes:
            self._indexes[file.name] = MemberIndex(_places(file))
        found = self._indexes[file.name].find(member)
        if found is None:
            return Flaw("image_missing", f"there is no member {quoted(path)}", "make the shard again")
        offset, size = found
        if size > MAX_IMAGE_BYTES:
            return Flaw("image_unreadable", f"{quoted(path)}: {size:,} bytes", "save it smaller")
        with file.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(size)
        if len(data) < size:
            return Flaw("image_unreadable", f"{quoted(path)}: the shard ends within it", "copy it again")
        return data

    def picture_stamp(self, path: str) -> list[Any]:
        return []


def _matching(folder: Path, pattern: str) -> list[Path]:
    if "/" in pattern or "\\" in pattern or ".." in _BRACES.sub("", pattern):
        problem = Problem("leads out of the folder", "option shards", "name files, without a folder")
        raise InputError(f"{folder} cannot be read", [problem])
    braces = _BRACES.search(pattern)
    if braces is None:
        found = sorted(folder.glob(pattern))
        if not found:
            problem = Problem(f"nothing is called {pattern}", "option shards", "name the shards")
            raise InputError(f"{folder} holds no shard", [problem])
        return found
    first, last = int(braces[1]), int(braces[2])
    if not first <= last < first + _MAX_SHARDS:
        raise InputError(
            f"{folder} cannot be read", [Problem(f"{braces[0]} counts nothing", "option shards")]
        )
    digits = len(braces[1])
    names = [_BRACES.sub(f"{number:0{digits}}", pattern, count=1) for number in range(first, last + 1)]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        problems = [Problem("no such file", name) for name in missing[:10]]
        raise InputError(f"{folder} lacks {len(missing):,} of {len(names):,} shards", problems)
    return [folder / name for name in names]


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _places(path: Path) -> Iterator[tuple[str, int, int]]:
    for found in tar_members(path):
        if not isinstance(found, Flaw) and found[1] is None:
            yield found[0].name, found[0].offset_data, found[0].size


def _groups(path: Path) -> Iterator[_Group | Flaw]:
    """The samples of a shard: members that follow one another under one key. A Flaw for what is none."""
    group: _Group | None = None
    seen = NameSet()
    for found in tar_members(path):
        if isinstance(found, Flaw):
            yield found
            continue
        member, flaw = found
        key, ending = _split(member.name)
        if flaw is not None and (group is None or group.key != key):
            yield flaw
            continue
        if group is None or group.key != key:
            if group is not None:
                yield group
            group = _Group(key)
        if flaw is None and (ending in group.members or not seen.add(member.name)):
            what = f"the member {quoted(member.name)} stands twice"
            flaw = Flaw("archive_member", what, "make the shard again")
        if flaw is not None:
            group.flaws.append(flaw)
        else:
            group.members[ending] = member
    if group is not None:
        yield group


def _split(name: str) -> tuple[str, str]:
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()


def _text(member: tarfile.TarInfo, stream: Any, flaws: list[Flaw]) -> str:
    if member.size > MAX_LABEL_BYTES:
        what = f"{quoted(member.name)}: {member.size:,} bytes, {MAX_LABEL_BYTES:,} are allowed"
        flaws.append(Flaw("schema", what, "labels hold text only"))
        return ""
    stream.seek(member.offset_data)
    data = stream.read(member.size)
    if len(data) < member.size:
        flaws.append(Flaw("schema", f"the shard ends within {quoted(member.name)}", "copy it again"))
        return ""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        flaws.append(Flaw("not_utf8", f"{quoted(member.name)} is not UTF-8", "save it as UTF-8"))
        return ""


def _fields(text: str, flaws: list[Flaw]) -> dict[str, Any]:
    if flaws:
        return {}
    try:
        value = parse_strict_json(text)
    except ValueError as error:
        flaws.append(Flaw("not_json", str(error), "write the label again"))
        return {}
    if not isinstance(value, dict):
        flaws.append(Flaw("schema", "the label is not a JSON object", "write {...}"))
        return {}
    return value
