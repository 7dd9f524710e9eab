"""What every format's reader gives: rows one by one, and the images that they name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from data_prep.decoding.work import Drawing
from data_prep.flag import Flag
from data_prep.refusal import Flaw
from lensmith.sample import Sample
from lensmith.section import Section


@dataclass(frozen=True)
class Found:
    """One row of a source. `sample` is None exactly where `flaws` says why.

    `place` is where a person finds it ("labels.jsonl:17", "export.json task 12", "cards.xlsx row 9");
    `row` its id, "" where none could be read. `flags` are what a later check saw in it.
    """

    place: str
    row: str
    sample: Sample | None
    flaws: tuple[Flaw, ...] = ()
    flags: tuple[Flag, ...] = ()


class Source(ABC):
    """Something that was handed over: opened, its format known, its rows not read yet.

    name: as people know it: the file's or folder's own name.
    format: the reader's name, as `data.format` says it.
    options_kind: what its options may be; None where it has none and takes a path alone.
    why: why it was taken for that format, "" where the recipe says it.
    """

    name: str
    format: str
    options_kind: ClassVar[type[Section] | None] = None
    why: str = ""

    @abstractmethod
    def rows(self) -> Iterator[Found]:
        """Every row, in the order of the source, one in memory at a time; each call starts anew.

        A row that cannot be used is given with its flaws and never stops the reader. Raises InputError
        where the source as a whole cannot be read.
        """

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """What identifies all that was handed over but the images: {"sha256": ..., "bytes": ...}, JSON."""

    @abstractmethod
    def picture(self, path: str) -> Path | bytes | Drawing | Flaw:
        """The image that a sample names: its file, its encoded bytes where it lies in a container, or how a
        worker draws it from a document.

        A Flaw where the path leaves the source's folder, or names nothing that can be opened.
        """

    @abstractmethod
    def picture_stamp(self, path: str) -> list[Any]:
        """What changes when the image does, told without reading it: [] where there is none, size in bytes
        and time of change in nanoseconds for a file; for a container's member [] too: `facts` covers it."""
