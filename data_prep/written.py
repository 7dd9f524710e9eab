"""A split as it lies on the disk once it is written: read back, and every picture in it digested, once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from lensmith.row_file import RowFile


@dataclass(frozen=True)
class Written:
    """A split's file, and SHA-256 of the bytes of each of its pictures by place, V32 [pictures].

    Whether copies came through whole and what was proven of equal bytes before are both asked by these.
    """

    path: Path
    digests: npt.NDArray[np.void]

    @classmethod
    def read_back(cls, path: Path) -> Self:
        """The split at `path`; every byte of its pictures is read."""
        digests = bytearray()
        for image in RowFile(path).images():
            digests += hashlib.sha256(image.png).digest()
        return cls(path, np.frombuffer(bytes(digests), "V32"))
