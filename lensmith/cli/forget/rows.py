"""The rows that are meant, wherever a home's artifacts keep rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_prep.conditions import META, Condition, Facts
from data_prep.labels.disagreements import DISAGREEMENTS_JSONL
from data_prep.refusals_file import FLAGGED_JSONL, REFUSED_JSONL
from lensmith.artifact import Artifact
from lensmith.dataset import Split, read_held_out, read_split, split_file
from lensmith.errors import IntegrityError
from lensmith.home import Home
from lensmith.row_file import RowFile
from lensmith.sample import Origin

# Enough of them to find a misspelt one.
_VALUES_KEPT = 10_000
# What an intake says of rows that its dataset or exam holds.
_LISTED = "listed"
_SPLITS: tuple[Split, ...] = ("train", "validation")


@dataclass(frozen=True)
class Holding:
    """A dataset, held-out set or intake, and the ids of the rows that are meant in it.

    By "train", "validation", "held_out". Of an intake: "refused", rows that were not taken, but whose
    pictures its report may show; "left_out", rows in whose place another's label was taken; "listed", rows of
    its dataset and exam that its files name (the report may show those of the dataset).
    """

    artifact: Artifact
    rows: dict[str, list[str]]

    @property
    def ids(self) -> set[str]:
        """All of them."""
        return {row for ids in self.rows.values() for row in ids}


@dataclass(frozen=True)
class Unread:
    """An artifact that could not be looked into, and why."""

    artifact: Artifact
    why: str


@dataclass
class Survey:
    """What a look through a home found. rows: how many were looked at; meta: the keys that they have.

    values: for each field asked, some of the values that rows have.
    """

    conditions: tuple[Condition, ...]
    holdings: list[Holding] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)
    rows: int = 0
    meta: set[str] = field(default_factory=set)
    values: dict[str, set[str]] = field(default_factory=dict)

    @property
    def matching(self) -> int:
        """Rows that were found; one in two datasets counts twice, one that an intake lists does not."""
        found = (each.rows.items() for each in self.holdings)
        return sum(len(ids) for rows in found for name, ids in rows if name != _LISTED)

    def look_into(self, home: Home, artifact: Artifact, why: str) -> None:
        """Add what a dataset or a held-out set holds; `why` is logged with the reading of a held-out set."""
        try:
            rows = {split: ids for split, ids in self._rows(home, artifact, why) if ids}
        except (IntegrityError, OSError) as error:
            self.unread.append(Unread(artifact, " ".join(str(error).split())))
            return
        if rows:
            self.holdings.append(Holding(artifact, rows))

    def _rows(self, home: Home, artifact: Artifact, why: str) -> Iterator[tuple[str, list[str]]]:
        if artifact.kind == "held_out":
            opened = read_held_out(home, artifact, f"forget, to find the rows that are meant: {why}")
            yield "held_out", list(self._matching(opened))
            return
        files = {entry.path for entry in artifact.manifest.files}
        splits: list[Split] = [split for split in _SPLITS if split_file(split) in files]
        if not splits:
            raise IntegrityError("it has no row file that this version reads")
        for split in splits:
            yield split, list(self._matching(read_split(artifact, split)))

    def look_at_intake(self, intake: Artifact) -> None:
        """Add what an intake tells of the rows that are meant, once its dataset and exam were looked into."""
        held = {each.artifact.id: each.ids for each in self.holdings}
        taken, exam = (held.get(intake.manifest.inputs[role], set()) for role in ("dataset", "held_out"))
        # Of the exam's rows only what is flagged or labelled in several ways is named there.
        listed = taken | exam.intersection(_named(intake) if exam else ())
        refused = list(self._refused(intake))
        others = dict.fromkeys(self._labelled_otherwise(intake))
        left_out = [row for row in others if row not in listed and row not in refused]
        rows = {"refused": refused, "left_out": left_out, _LISTED: sorted(listed)}
        if found := {name: ids for name, ids in rows.items() if ids}:
            self.holdings.append(Holding(intake, found))

    def _matching(self, rows: RowFile) -> Iterator[str]:
        for columns in rows.columns("id", "group", "origin", "meta"):
            for row, group, origin, meta in zip(*(each.to_pylist() for each in columns), strict=True):
                facts = Facts(row, group, json.loads(origin) if origin else vars(Origin()), json.loads(meta))
                self.rows += 1
                self._note(facts)
                if facts.meet(self.conditions):
                    yield row

    def _note(self, facts: Facts) -> None:
        for each in self.conditions:
            value = facts.value(each.field)
            known = self.values.setdefault(each.field, set())
            if value is not None and len(known) < _VALUES_KEPT:
                known.add(value)
            if each.field.startswith(META):
                self.meta.update(facts.meta)

    def _refused(self, intake: Artifact) -> Iterator[str]:
        """Of a row that was refused only the id is kept."""
        if {each.field for each in self.conditions} != {"id"}:
            return
        with (intake.path / REFUSED_JSONL).open(encoding="utf-8") as lines:
            # One record a flaw: a row can have several.
            for row in dict.fromkeys(json.loads(line)["row"] for line in lines):
                if Facts(row, "", {}, {}).meet(self.conditions):
                    yield row

    def _labelled_otherwise(self, intake: Artifact) -> Iterator[str]:
        """Of a row whose label differs from another's, id, labeller and answer are kept, taken or not."""
        if {each.field for each in self.conditions} <= {"id", "origin.labeller"}:
            for record in _records(intake, DISAGREEMENTS_JSONL):
                if Facts(record["row"], "", {"labeller": record["labeller"]}, {}).meet(self.conditions):
                    yield record["row"]


def _named(intake: Artifact) -> Iterator[str]:
    """Ids of the rows in an intake's lists of what is flagged and of labels that differ."""
    for name in (FLAGGED_JSONL, DISAGREEMENTS_JSONL):
        yield from (record["row"] for record in _records(intake, name))


def _records(intake: Artifact, name: str) -> Iterator[dict[str, Any]]:
    """The records of a list, none where the intake has no such list."""
    if name in {entry.path for entry in intake.manifest.files}:
        with (intake.path / name).open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def survey(home: Home, conditions: Sequence[Condition], why: str) -> Survey:
    """Look for the rows that meet all of `conditions` in every dataset, held-out set and intake."""
    found = Survey(tuple(conditions))
    for artifact in [*home.all("dataset"), *home.all("held_out")]:
        found.look_into(home, artifact, why)
    for intake in home.all("intake"):
        found.look_at_intake(intake)
    return found
