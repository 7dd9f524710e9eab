"""What a preparation found in rows, beyond figures: the parts of the report that show single rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from data_prep.flag import Flagged
from data_prep.refusal import Refusal
from data_prep.split import SplitName
from lensmith.artifact import Artifact

CopyKind = Literal["exact", "near", "answer"]
COPY_KINDS: dict[CopyKind, str] = {
    "exact": "The same picture",
    "near": "Nearly the same picture",
    "answer": "Nearly the same answer",
}


@dataclass(frozen=True)
class Copy:
    """One side of a pair: the row, where it is found, the number of its source, and the path of its picture
    there, "" where it has none. `split` is None for a row that was refused; `answer` is what is compared, ""
    where that is the picture."""

    row: str
    place: str
    source: int
    picture: str
    split: SplitName | None
    answer: str = ""


@dataclass(frozen=True)
class CopyPair:
    """Two pictures that are equal in every pixel (exact) or show the same thing (near); or two answers that
    say nearly the same."""

    kind: CopyKind
    left: Copy
    right: Copy


@dataclass(frozen=True)
class Before:
    """The version before this one; its intake is None where that was removed."""

    dataset: Artifact
    intake: Artifact | None

    @property
    def body(self) -> dict[str, Any]:
        """What both say of themselves."""
        return self.dataset.body | (self.intake.body if self.intake else {})


@dataclass(frozen=True)
class Findings:
    """Read once each, and no further than the page has room for.

    flagged: without rows of the exam, which the page would show.
    formats: why each source was taken for its format, in their order, "" where the recipe says it.
    """

    refusals: Iterable[Refusal] = ()
    flagged: Iterable[Flagged] = ()
    copies: Iterable[CopyPair] = ()
    formats: tuple[str, ...] = ()
