"""Finer pictures of a search, 192 x 192: for pages of one template, which look alike at 64 x 64.

They stay in a file, as JPEG one behind the other, and are opened when somebody asks: a search looks at those
of crowds alone.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from data_prep.similar.grey import FINE_SIDE

Numbers = npt.NDArray[np.int64]
# uint8 [n, 192, 192].
Fine = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Details:
    """Where in the file each picture's detail lies: `begins` and `lengths` in bytes, int64 [n]; a length of 0
    for none."""

    path: Path
    begins: Numbers
    lengths: Numbers

    def has(self, numbers: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Which of the pictures have a detail: bool [n]."""
        return self.lengths[numbers] > 0

    def of(self, numbers: npt.NDArray[np.integer]) -> Details:
        """Those of some pictures."""
        return Details(self.path, self.begins[numbers], self.lengths[numbers])

    def before(self, other: Details) -> Details:
        """These, then those of other pictures in the same file."""
        both = [np.concatenate(each) for each in ((self.begins, other.begins), (self.lengths, other.lengths))]
        return Details(self.path, *both)

    def take(self, numbers: npt.NDArray[np.integer]) -> Fine:
        """The details of pictures that have one."""
        fine = np.empty((len(numbers), FINE_SIDE, FINE_SIDE), np.uint8)
        # Read, not mapped: the pages of a map would count as memory of this process.
        with self.path.open("rb") as stream:
            for at, number in enumerate(numbers):
                begin, length = int(self.begins[number]), int(self.lengths[number])
                with Image.open(
                    io.BytesIO(os.pread(stream.fileno(), length, begin)), formats=("JPEG",)
                ) as image:
                    fine[at] = np.asarray(image)
        return fine
