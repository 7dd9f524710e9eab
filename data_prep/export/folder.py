"""What every writer shares: a new folder with one file of rows and the images beside it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from lensmith.errors import InputError, Problem
from lensmith.row_file import Row
from lensmith.sample import Sample

IMAGES = "images"
_DIGEST_CHARACTERS = 12
_STEM_CHARACTERS = 60


class CannotHold(Exception):
    """A row has something that the format has no place for; the message names it."""


@dataclass(frozen=True)
class Written:
    """What was written.

    left_out: the rows that the format cannot hold, counted by what it has no place for.
    """

    file: str
    rows: int
    images: int
    left_out: dict[str, int] = field(default_factory=dict)
    predictions: int = 0
    predictions_left_out: int = 0


# Gives a row's JSON; the paths are its images', in order, relative to the folder.
Encode = Callable[[Row, Sequence[str]], dict[str, Any]]


def write_folder(
    rows: Iterable[Row],
    folder: Path,
    name: str,
    encode: Encode,
    more: Callable[[], Mapping[str, str]] | None = None,
) -> Written:
    """Write rows as `folder`/`name`, a line each (.jsonl) or one list, and their images as PNG below images/.

    One row is in memory at a time. `more` gives further files, asked once all rows are written. The folder is
    whole or absent: it is filled beside its place and renamed. Raises InputError where it is already there.
    """
    check_new(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / IMAGES).mkdir(parents=True)
    listed = not name.endswith(".jsonl")
    left_out: Counter[str] = Counter()
    written, images = 0, 0
    with (partial / name).open("w", encoding="utf-8", newline="\n") as stream:
        stream.write("[" if listed else "")
        for row in rows:
            paths = _image_paths(row)
            if row.sample.videos:
                left_out["a video, of which only frames are kept"] += 1
                continue
            try:
                text = json.dumps(encode(row, paths), ensure_ascii=False)
            except CannotHold as error:
                left_out[str(error)] += 1
                continue
            for path, data in zip(paths, row.images, strict=True):
                images += _write_once(partial / path, data)
            stream.write(("," if written else "") + "\n" + text if listed else text + "\n")
            written += 1
        stream.write("\n]\n" if listed else "")
    for other, text in (more() if more else {}).items():
        (partial / other).write_text(text, encoding="utf-8")
    partial.rename(folder)
    return Written(name, written, images, dict(left_out))


def check_new(folder: Path) -> None:
    """Raise InputError where something is at `folder` already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(
            "nothing is written over", [Problem("is already there", str(folder), "name another")]
        )


def _image_paths(row: Row) -> list[str]:
    """By the stem people know them by and a digest: no two pictures share a path, one picture has one."""
    return [
        f"{IMAGES}/{_stem(image.path)}{hashlib.sha256(data).hexdigest()[:_DIGEST_CHARACTERS]}.png"
        for image, data in zip(row.sample.images, row.images, strict=True)
    ]


def _stem(path: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", PurePosixPath(path).stem).strip("-.")[:_STEM_CHARACTERS]
    return f"{plain}-" if plain else ""


def _write_once(path: Path, data: bytes) -> bool:
    if path.exists():
        return False
    path.write_bytes(data)
    return True


def one_answer(sample: Sample) -> None:
    """Raise CannotHold for a preference row: of two answers only one would be left."""
    if sample.rejected:
        raise CannotHold("a rejected answer")


def extras(sample: Sample) -> dict[str, Any]:
    """What the chat formats have no place for, in fields that our readers know again."""
    origin = {name: text for name, text in asdict(sample.origin).items() if text}
    return {
        "id": sample.id,
        "group": sample.group,
        **({"meta": sample.meta} if sample.meta else {}),
        **({"origin": origin} if origin else {}),
    }
