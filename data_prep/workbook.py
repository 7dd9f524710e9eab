"""What one preparation knows so far of rows and pictures, on disk: memory stays small, a kill loses little.

A SQLite file in the home's work folder. Rows are numbered in the order of the sources.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from data_prep.firsts import Firsts
from data_prep.flag import Flag, Flagged
from data_prep.picture_table import PictureTable
from data_prep.refusal import Flaw, Refusal
from data_prep.row_text import dump_flaws, dump_sample, load_flags, load_flaws, load_sample
from data_prep.seen import Seen
from data_prep.sources.source import Found
from lensmith.sample import Sample

_TABLES = """
CREATE TABLE IF NOT EXISTS steps (name TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS rows (
    n INTEGER PRIMARY KEY, source INTEGER NOT NULL, place TEXT NOT NULL, id TEXT NOT NULL,
    grp TEXT NOT NULL, sample TEXT, flaws TEXT NOT NULL, flags TEXT NOT NULL, refused TEXT,
    item TEXT, left_out TEXT, times INTEGER NOT NULL DEFAULT 1,
    taken INTEGER NOT NULL DEFAULT 0, split TEXT,
    asked INTEGER NOT NULL DEFAULT 0, answered INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS near (first BLOB NOT NULL, second BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS near_answers (first INTEGER NOT NULL, second INTEGER NOT NULL);
"""
_PAGE = 512


@dataclass(frozen=True)
class BookRow:
    """A row that could be read; `times` is how often an epoch of training shows it."""

    number: int
    source: int
    place: str
    sample: Sample
    flaws: tuple[Flaw, ...]
    times: int = 1


class Workbook:
    """The file, open. Each method is one statement of the preparation."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=NORMAL")
        # 32 MiB of pages: a million rows must not pull the file into memory.
        self.db.execute("PRAGMA cache_size=-32768")
        self.db.executescript(_TABLES)
        self.pictures = PictureTable(self.db)
        self.firsts = Firsts(self.db)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.db.close()

    # Steps: what a killed preparation need not do again.

    def done(self, step: str) -> bool:
        """Whether `step` ended."""
        return self.db.execute("SELECT 1 FROM steps WHERE name = ?", (step,)).fetchone() is not None

    def finish(self, step: str) -> None:
        """Say that `step` ended."""
        self.db.execute("INSERT OR IGNORE INTO steps VALUES (?)", (step,))

    # Rows as they are read.

    def count(self) -> int:
        """Rows read so far."""
        return self.db.execute("SELECT COUNT(*) FROM rows").fetchone()[0]

    def add(self, source: int, first: int, found: Sequence[Found]) -> None:
        """Write rows `first`, `first` + 1, ... down, all or none."""
        self.db.execute("BEGIN")
        for number, each in enumerate(found, start=first):
            sample = each.sample
            self.db.execute(
                "INSERT INTO rows (n, source, place, id, grp, sample, flaws, flags)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    number,
                    source,
                    each.place,
                    each.row,
                    sample.group if sample else "",
                    dump_sample(sample) if sample else None,
                    dump_flaws(each.flaws),
                    dump_flaws(each.flags),
                ),
            )
            if sample:
                self.pictures.show(number, source, [image.path for image in sample.images])
        self.db.execute("COMMIT")

    def rows_of(self, source: int) -> int:
        """Rows that a source gave, taken or not."""
        return self.db.execute("SELECT COUNT(*) FROM rows WHERE source = ?", (source,)).fetchone()[0]

    # Judging, in the order of the rows.

    def forget_judgements(self) -> None:
        """Judge from the start: what a killed preparation had judged is not half known."""
        self.firsts.forget()
        self.db.execute("UPDATE rows SET taken = 0, split = NULL, refused = NULL, left_out = NULL, times = 1")
        self.pictures.forget_sizes()

    def readable(self, undecided: bool = False, split: str | None = None) -> Iterator[BookRow]:
        """Rows that have a sample, in order: all of them, those nobody decided on, or those of a split.

        Read in pages, so that the caller may write what it decides of a row while it goes on.
        """
        where = "sample IS NOT NULL"
        if undecided:
            where += " AND refused IS NULL AND left_out IS NULL"
        if split is not None:
            where += " AND taken AND split = :split"
        query = (
            f"SELECT n, source, place, sample, flaws, times FROM rows WHERE n > :after AND {where}"
            " ORDER BY n LIMIT :page"
        )
        after = -1
        while page := self.db.execute(query, {"after": after, "split": split, "page": _PAGE}).fetchall():
            for number, source, place, sample, flaws, times in page:
                yield BookRow(number, source, place, load_sample(sample), load_flaws(flaws), times)
            after = page[-1][0]

    def take(self, number: int, sample: Sample, question: bytes, answer: bytes, seen: Sequence[Seen]) -> None:
        """Take a row: later rows are compared with it."""
        asked = sum(len(message.text) for message in sample.prompt)
        self.db.execute(
            "UPDATE rows SET taken = 1, asked = ?, answered = ? WHERE n = ?",
            (asked, len(sample.answer), number),
        )
        self.firsts.note(number, sample.id, question, answer, (each.identity for each in seen))

    def refuse(self, number: int, flaws: Iterable[Flaw]) -> None:
        """Refuse a row for all of `flaws`."""
        self.db.execute(
            "UPDATE rows SET refused = ?, taken = 0, split = NULL WHERE n = ?", (dump_flaws(flaws), number)
        )

    def leave_out(self, number: int, why: str) -> None:
        """Neither take nor refuse a row: it is good, and another stands for it, or its source has enough."""
        self.db.execute("UPDATE rows SET left_out = ?, taken = 0, split = NULL WHERE n = ?", (why, number))

    def left_out(self) -> dict[str, int]:
        """How many good rows were left out, by why."""
        found = self.db.execute(
            "SELECT left_out, COUNT(*) FROM rows WHERE left_out IS NOT NULL GROUP BY left_out"
            " ORDER BY left_out"
        )
        return dict(found.fetchall())

    def add_flag(self, number: int, flag: Flag) -> None:
        """Flag a row for one thing more; the same flag twice is one."""
        (text,) = self.db.execute("SELECT flags FROM rows WHERE n = ?", (number,)).fetchone()
        flags = dict.fromkeys([*load_flags(text), flag])
        self.db.execute("UPDATE rows SET flags = ? WHERE n = ?", (dump_flaws(flags), number))

    def name_item(self, number: int, item: str) -> None:
        """Say which thing a row labels."""
        self.db.execute("UPDATE rows SET item = ? WHERE n = ?", (item, number))

    def items(self) -> Iterator[str]:
        """Every thing that several rows label, by the first of them."""
        self.db.execute("CREATE INDEX IF NOT EXISTS by_item ON rows (item)")
        found = self.db.execute(
            "SELECT item FROM rows WHERE item IS NOT NULL GROUP BY item HAVING COUNT(*) > 1 ORDER BY MIN(n)"
        )
        return iter([item for (item,) in found])

    def of_item(self, item: str) -> list[BookRow]:
        """The rows that label one thing, in order."""
        found = self.db.execute(
            "SELECT n, source, place, sample, flaws FROM rows WHERE item = ? ORDER BY n", (item,)
        )
        return [
            BookRow(n, at, place, load_sample(text), load_flaws(flaws)) for n, at, place, text, flaws in found
        ]

    def is_sealed(self, number: int) -> bool:
        """Whether a row is in the exam."""
        (split,) = self.db.execute("SELECT split FROM rows WHERE n = ?", (number,)).fetchone()
        return split == "held_out"

    def show_again(self, places: Iterable[tuple[int, int]]) -> None:
        """Show each training row (times, number) so often in an epoch."""
        self.db.execute("BEGIN")
        self.db.executemany("UPDATE rows SET times = ? WHERE n = ?", places)
        self.db.execute("COMMIT")

    def taken(self) -> tuple[list[int], list[str], list[str]]:
        """(number, id, group) of every taken row, in order, as three lists."""
        numbers: list[int] = []
        ids: list[str] = []
        groups: list[str] = []
        names: dict[str, str] = {}
        for number, row, group in self.db.execute("SELECT n, id, grp FROM rows WHERE taken ORDER BY n"):
            numbers.append(number)
            ids.append(row)
            # One object a name: a million rows have fewer groups.
            groups.append(names.setdefault(group, group))
        return numbers, ids, groups

    def taken_sources(self) -> Iterator[int]:
        """The source of every taken row, in order."""
        return (source for (source,) in self.db.execute("SELECT source FROM rows WHERE taken ORDER BY n"))

    def taken_of(self, source: int, split: str | None = None) -> list[tuple[int, str]]:
        """(number, id) of every taken row of a source, in a split or in all, in order."""
        return self.db.execute(
            "SELECT n, id FROM rows WHERE taken AND source = ? AND split IS COALESCE(?, split) ORDER BY n",
            (source, split),
        ).fetchall()

    def near(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Write down which pictures are near copies, by their identities."""
        self.db.execute("DELETE FROM near")
        self.db.execute("BEGIN")
        self.db.executemany("INSERT INTO near VALUES (?, ?)", pairs)
        self.db.execute("COMMIT")

    def taken_answers(self, least: int) -> Iterator[tuple[int, str]]:
        """(row, answer) of every taken row that answers with so many characters, in order."""
        found = self.db.execute(
            "SELECT n, sample FROM rows WHERE taken AND answered >= ? ORDER BY n", (least,)
        )
        return ((number, load_sample(sample).answer) for number, sample in found)

    def answer(self, number: int) -> str:
        """The answer of a row."""
        (sample,) = self.db.execute("SELECT sample FROM rows WHERE n = ?", (number,)).fetchone()
        return load_sample(sample).answer

    def near_answers(self, pairs: Iterable[Sequence[int]]) -> None:
        """Write down which rows have answers that are near copies."""
        self.db.execute("DELETE FROM near_answers")
        self.db.execute("BEGIN")
        self.db.executemany("INSERT INTO near_answers VALUES (?, ?)", pairs)
        self.db.execute("COMMIT")

    def assign(self, places: Iterable[tuple[str, int]]) -> None:
        """Put each row (split, number) there."""
        self.db.execute("BEGIN")
        self.db.executemany("UPDATE rows SET split = ? WHERE n = ?", places)
        self.db.execute("COMMIT")
        self.db.execute("CREATE INDEX IF NOT EXISTS by_split ON rows (split, n)")

    def place(self, number: int) -> tuple[str, str, str]:
        """(id, group, place) of a row."""
        return self.db.execute("SELECT id, grp, place FROM rows WHERE n = ?", (number,)).fetchone()

    def learned(self) -> Iterator[tuple[str, str, str]]:
        """(place, id, split) of every taken row but those of the exam, in order."""
        return iter(
            self.db.execute(
                "SELECT place, id, split FROM rows WHERE taken AND split != 'held_out' ORDER BY n"
            )
        )

    def refused(self) -> int:
        """Refused rows."""
        return self.db.execute("SELECT COUNT(*) FROM rows WHERE NOT taken AND left_out IS NULL").fetchone()[0]

    def flagged(self, with_exam: bool = True) -> Iterator[Flagged]:
        """Every taken row that has flags, in order, with the paths of the pictures it names."""
        cursor = self.db.execute(
            "SELECT n, place, id, flags, source, split = 'held_out' FROM rows WHERE taken AND flags != '[]'"
            " AND (? OR split != 'held_out') ORDER BY n",
            (with_exam,),
        )
        for number, place, row, flags, source, sealed in cursor:
            paths = self.pictures.paths(number)
            yield Flagged(place, row, load_flags(flags), source, paths, bool(sealed))

    def refusals(self) -> Iterator[Refusal]:
        """Every refused row, in order, with the paths of the pictures it names."""
        cursor = self.db.execute(
            "SELECT n, place, id, COALESCE(refused, flaws), source FROM rows"
            " WHERE NOT taken AND left_out IS NULL ORDER BY n"
        )
        for number, place, row, flaws, source in cursor:
            yield Refusal(place, row, load_flaws(flaws), source, self.pictures.paths(number))
