"""Finding the files of images that rows name, without ever leaving the data's folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from data_prep.refusal import Flaw, quoted
from lensmith.data_settings import Data
from lensmith.images import ImageLimits

_RELATIVE = (
    "count it from the file with the labels, or from its image_root, and stay inside, with / between names"
)


def image_limits(data: Data) -> ImageLimits:
    """What a recipe's data section accepts of an image."""
    return ImageLimits(max_bytes=data.max_image_bytes, max_pixels=data.max_image_pixels)


def locate(root: Path, path: str) -> Path | Flaw:
    """The file that `path` names below `root`, links followed; a Flaw where it would lie elsewhere.

    Does not look whether the file is there. `root` must be resolved.
    """
    if flaw := name_flaw(path):
        return flaw
    try:
        target = (root / PurePosixPath(path)).resolve()
    except (OSError, RuntimeError):
        return Flaw("image_path", f"the image path {quoted(path)} is a link that leads nowhere", _RELATIVE)
    if not target.is_relative_to(root):
        mend = "put the file itself into the folder"
        return Flaw("image_path", f"the image path {quoted(path)} is a link out of the folder", mend)
    return target


def name_flaw(path: str) -> Flaw | None:
    """What is wrong with an image path as it is written, if anything."""
    if not path or "\0" in path:
        return Flaw("image_path", f"the image path {quoted(path)} names nothing", "name the image's file")
    if "://" in path or path.startswith("data:"):
        mend = "download it and give the path of the file, or have data.download.hosts allow its host"
        return Flaw("image_path", f"the image path {quoted(path)} is an address", mend)
    parts = PurePosixPath(path)
    if parts.is_absolute() or "\\" in path:
        return Flaw("image_path", f"the image path {quoted(path)} is not relative", _RELATIVE)
    if ".." in parts.parts:
        return Flaw("image_path", f"the image path {quoted(path)} climbs with ..", _RELATIVE)
    return None


def file_to_read(target: Path, path: str, limits: ImageLimits) -> os.stat_result | Flaw:
    """The facts of a picture's file, which was not opened; a Flaw says why nobody should.

    `path` is how the row names it.
    """
    try:
        facts = target.stat()
    except (FileNotFoundError, NotADirectoryError):
        return _missing(path)
    except OSError as error:
        return _unreadable(path, error)
    # A pipe or device would block the reader for ever.
    if not stat.S_ISREG(facts.st_mode):
        return Flaw("image_missing", f"{quoted(path)} is not a file", "name the image's file")
    if facts.st_size > limits.max_bytes:
        what = f"{quoted(path)}: {facts.st_size:,} bytes, {limits.max_bytes:,} are allowed"
        return Flaw("image_unreadable", what, "save it smaller, or raise data.max_image_bytes")
    return facts


def _missing(path: str) -> Flaw:
    mend = (
        "add the file, or correct the path: it counts from the file with the labels, or from its image_root"
    )
    return Flaw("image_missing", f"there is no file {quoted(path)}", mend)


def _unreadable(path: str, error: OSError) -> Flaw:
    return Flaw("image_unreadable", f"{quoted(path)}: {error.strerror}", "make the file readable")
