"""What of a merge is done: kept beside the finished files, so that a merge that was killed goes on there."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from finetune.merging.low_rank import Product
from lensmith.files import write_json

JOURNAL = "journal.json"


class Finished(BaseModel):
    """A file that is whole and on the disk: its size in bytes, the elements that were computed for it by
    weight of the class, its tensors that hold other values than the base's, and what numpy multiplied."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    bytes: int
    elements: dict[str, int]
    moved: list[str]
    products: list[Product]


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid")
    finished: dict[str, Finished]


class Journal:
    """The finished files in the directory `work`, by name. What else lies there was not finished."""

    def __init__(self, work: Path) -> None:
        self.work = work
        work.mkdir(parents=True, exist_ok=True)
        self.finished: dict[str, Finished] = {}
        try:
            stored = _Content.model_validate_json((work / JOURNAL).read_bytes()).finished
        except (FileNotFoundError, ValidationError):
            # Never begun, or by another version: all is done again.
            stored = {}
        for name, each in stored.items():
            path = work / name
            if path.is_file() and path.stat().st_size == each.bytes:
                self.finished[name] = each

    def add(self, name: str, finished: Finished) -> None:
        """Note a file that lies under its name and survives a power cut."""
        self.finished[name] = finished
        write_json(self.work / JOURNAL, _Content(finished=self.finished).model_dump())
