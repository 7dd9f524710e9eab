"""A split as it lies on the disk once it is written: read back, and every picture in it digested, once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from lensmith.row_file import images_files, pngs_in


@dataclass(frozen=True)
class Written:
    """A split's file, and SHA-256 of the bytes of each of its pictures by place, V32 [pictures].

    Whether copies came through whole and what was proven of equal bytes before are both asked by these.
    whole: SHA-256 (hex) of those files that were read back as one, whose pictures are known by it.
    """

    path: Path
    digests: npt.NDArray[np.void]
    whole: Mapping[Path, str] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path, digests: bytes, whole: Mapping[Path, str]) -> Self:
        """With the digests one behind the other."""
        return cls(path, np.frombuffer(digests, "V32"), whole)

    @classmethod
    def read_back(cls, path: Path) -> Self:
        """The split at `path`; every byte of its pictures is read."""
        return cls.of(path, b"".join(map(picture_digests, images_files(path))), {})


def picture_digests(file: Path) -> bytes:
    """SHA-256 of each picture in a file of images, one behind the other; each is read."""
    return b"".join(hashlib.sha256(png).digest() for png in pngs_in(file))
