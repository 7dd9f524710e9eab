"""Measure the text detectors on the labelled sets that the tests carry, and write their figures.

    python scripts/measure_detectors.py [--out docs/reference/detectors.md]

A test holds the committed file to what this writes.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.instructions.patterns import KINDS, find_instructions
from data_prep.personal.detector import Span
from data_prep.personal.finder import Finder

ROOT = Path(__file__).resolve().parent.parent
PERSONAL = ROOT / "tests/data_prep/personal/labelled.jsonl"
INDEPENDENT = ROOT / "tests/data_prep/personal/independent.json"
UNSEEN = ROOT / "tests/data_prep/personal/unseen.json"
INSTRUCTIONS = ROOT / "tests/data_prep/instructions/labelled.jsonl"
OUT = ROOT / "docs/reference/detectors.md"
INTRODUCTION = """\
Written by `scripts/measure_detectors.py` from the labelled sets in `tests/data_prep/`. The sets are made of
published examples, numbers that issuers keep for tests, and computed ones, in sentences written by hand in
several languages. They were written together with the detectors: they are harder than most data in some ways
(numbers without a word that names them) and easier in others (no typing errors), so expect other figures on
your own data. Hard negatives were written against the detector: wrong check digits beside the right word,
order numbers of the same shape. A negative is every text of the set without its kind of data.
"""
INDEPENDENT_INTRODUCTION = """\
Two more sets, `independent.json` and `unseen.json`, were written by people who had not seen the detectors or
the other sets; check digits were computed by other code. `independent.json` was measured once before any
detector was changed for it (precision 0.943, recall 0.790 over all kinds) and has been used for development
since: its figures below say what was mended, not what to expect. `unseen.json` was opened only after the
detectors were frozen, and measured once, on 22 November 2026; nothing was changed for it. Both are meant to
be hard: unusual forms stand beside the usual ones, and most texts against a detector share its numbers'
shape, so their figures are no rates of ordinary data. There are few stretches of each kind: one more or
less moves a figure by about 0.07. A stretch counts as found only from its first character to its last; what
is found in part is flagged, but not wholly redacted.
"""
WEAK_FORMS = """\
What is found wrongly in `unseen.json`: ids of messages and calendars that have the form of an address, codes
in the groups of an American number, numbers that fit the check digit of another kind by chance (Belgian
ones and a Chinese telephone number that fit the Polish rule), a telephone number without its extension. What
is missed: numbers in another form than the printed one and without a word that names them near; tables in
which only the head of a column names them; telephone numbers of countries that `phone_regions` does not
name, and those that no plan has given out; cards of networks the detector does not know (Elo, Troy); numbers
in boxes beside a word in boxes.
"""
# Unusual forms of a stretch, the first that fits; said by the stretch alone, whichever kind it is of.
FORMS = {
    "broken over two lines": re.compile(r"\n"),
    "every character apart": re.compile(r"(?:\w ){6}"),
    "spaces around separators": re.compile(r" [-@]|[-.@] "),
    "all others": re.compile(""),
}
# Figures below which a detector is named as weak.
WEAK_RECALL, WEAK_PRECISION = 0.75, 0.9


@dataclass(frozen=True)
class Figures:
    """One detector on its labelled set: texts that hold what it looks for, texts that do not (those that were
    written against it, and all), stretches found rightly, found wrongly and missed."""

    positives: int
    hard_negatives: int
    negatives: int
    right: int
    wrong: int
    missed: int

    @property
    def precision(self) -> float:
        """Share of what it found that is one."""
        return self.right / (self.right + self.wrong)

    @property
    def recall(self) -> float:
        """Share of what is one that it found."""
        return self.right / (self.right + self.missed)


def personal_figures() -> dict[str, Figures]:
    """Of every detector of personal data, all running together as they do on a row."""
    finder = Finder()

    def find(text: str) -> set[tuple[str, str]]:
        return {(span.kind, text[span.start : span.end]) for span in finder.find(text)}

    return _figures([each.name for each in finder.detectors], PERSONAL, find)


@dataclass(frozen=True)
class Unseen:
    """One text of the set written without a look at the detectors: what a person marked in it, what is found.

    A detector it is hard for could take something in it for its own."""

    text: str
    wanted: frozenset[Span]
    found: frozenset[Span]
    hard_for: frozenset[str]


def unseen(path: Path = UNSEEN) -> list[Unseen]:
    """The texts of such a set, with what all detectors together find in each."""
    finder = Finder()
    return [
        Unseen(
            each["text"],
            frozenset(Span(span["detector"], span["start"], span["end"]) for span in each["spans"]),
            frozenset(finder.find(each["text"])),
            frozenset(each["hard_for"]),
        )
        for each in json.loads(path.read_text(encoding="utf-8"))["texts"]
    ]


def unseen_figures(rows: Sequence[Unseen]) -> dict[str, Figures]:
    """Of every detector of personal data on these texts; a stretch counts by its kind and its place."""
    return {each.name: _unseen_of(each.name, rows) for each in Finder().detectors}


def _unseen_of(kind: str, rows: Sequence[Unseen]) -> Figures:
    wanted = [{span for span in row.wanted if span.kind == kind} for row in rows]
    found = [{span for span in row.found if span.kind == kind} for row in rows]
    return Figures(
        positives=sum(bool(spans) for spans in wanted),
        hard_negatives=sum(kind in row.hard_for for row in rows),
        negatives=sum(not spans for spans in wanted),
        right=sum(len(ours & theirs) for ours, theirs in zip(found, wanted, strict=True)),
        wrong=sum(len(ours - theirs) for ours, theirs in zip(found, wanted, strict=True)),
        missed=sum(len(theirs - ours) for ours, theirs in zip(found, wanted, strict=True)),
    )


def instruction_figures() -> dict[str, Figures]:
    """Of every kind of instruction-like text; a text is found or not, the exact stretch does not count."""

    def find(text: str) -> set[tuple[str, str]]:
        return {(found.kind, "") for found in find_instructions(text)}

    return _figures(KINDS, INSTRUCTIONS, find)


def _figures(
    kinds: Sequence[str], path: Path, find: Callable[[str], set[tuple[str, str]]]
) -> dict[str, Figures]:
    rows = [(kind, set(spans), find(text)) for kind, text, spans in _labelled(path)]
    return {kind: _of_kind(kind, rows) for kind in kinds}


def _of_kind(kind: str, rows: Sequence[tuple[str, set[str], set[tuple[str, str]]]]) -> Figures:
    counts = dict.fromkeys(("positives", "hard_negatives", "negatives", "right", "wrong", "missed"), 0)
    for row_kind, spans, all_found in rows:
        wanted = spans if row_kind == kind else set()
        found = {span for name, span in all_found if name == kind}
        counts["positives"] += bool(wanted)
        counts["negatives"] += not wanted
        counts["hard_negatives"] += not wanted and row_kind == kind
        counts["right"] += len(found & wanted)
        counts["wrong"] += len(found - wanted)
        counts["missed"] += len(wanted - found)
    return Figures(**counts)


def _labelled(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield row["kind"], row["text"], row["spans"]


def reference() -> str:
    """docs/reference/detectors.md."""
    lines = [
        "# Text detectors and their figures",
        "",
        INTRODUCTION,
        INDEPENDENT_INTRODUCTION,
        "## Personal data",
        "",
        *_personal(unseen(), unseen(INDEPENDENT)),
        "",
        "## Instruction-like text",
        "",
        *_table(instruction_figures()),
    ]
    return "\n".join(lines) + "\n"


def _personal(rows: Sequence[Unseen], seen_since: Sequence[Unseen]) -> list[str]:
    """All three sets in one table, and where the detectors are weak on the unseen one."""
    fresh, known = unseen_figures(rows), unseen_figures(seen_since)
    head, rule, *lines = _table(personal_figures())
    low_recall = [f"`{name}`" for name, each in fresh.items() if each.recall < WEAK_RECALL]
    low_precision = [f"`{name}`" for name, each in fresh.items() if each.precision < WEAK_PRECISION]
    return [
        f"{head} `independent`: precision | recall "
        "| `unseen`: positives | hard negatives | precision | recall |",
        f"{rule}--:|--:|--:|--:|--:|--:|",
        *(
            f"{line} {known[name].precision:.3f} | {known[name].recall:.3f} | {each.positives}"
            f" | {each.hard_negatives} | {each.precision:.3f} | {each.recall:.3f} |"
            for line, (name, each) in zip(lines, fresh.items(), strict=True)
        ),
        "",
        f"Over all kinds, of `independent.json` {_overall(known)}; of `unseen.json` {_overall(fresh)}.",
        "",
        f"In `unseen.json` these find less than {WEAK_RECALL:.2f} of what there is: "
        f"{', '.join(low_recall) or 'none'}.",
        f"Of what these find, less than {WEAK_PRECISION:.2f} is right: {', '.join(low_precision) or 'none'}.",
        "",
        "| form of a stretch of `unseen.json` | stretches | found exactly | found at least in part |",
        "|---|--:|--:|--:|",
        *(f"| {form} | {' | '.join(map(str, counts))} |" for form, counts in by_form(rows).items()),
        "",
        *WEAK_FORMS.splitlines(),
    ]


def _overall(figures: dict[str, Figures]) -> str:
    right = sum(each.right for each in figures.values())
    wrong = sum(each.wrong for each in figures.values())
    missed = sum(each.missed for each in figures.values())
    return (
        f"{right} stretches are found, {wrong} found wrongly and {missed} missed"
        f" (precision {right / (right + wrong):.3f}, recall {right / (right + missed):.3f})"
    )


def by_form(rows: Sequence[Unseen]) -> dict[str, tuple[int, int, int]]:
    """Of every form: stretches, those found exactly, those of which any part was found as of their kind."""
    counts: dict[str, tuple[int, int, int]] = dict.fromkeys(FORMS, (0, 0, 0))
    for row in rows:
        for span in row.wanted:
            stretch = row.text[span.start : span.end]
            form = next(name for name, pattern in FORMS.items() if pattern.search(stretch))
            touched = any(
                each.kind == span.kind and each.start < span.end and span.start < each.end
                for each in row.found
            )
            stretches, exact, partly = counts[form]
            counts[form] = stretches + 1, exact + (span in row.found), partly + touched
    return counts


def _table(figures: dict[str, Figures]) -> list[str]:
    head = [
        "| detector | positives | hard negatives | negatives | precision | recall |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    return head + [
        f"| `{name}` | {each.positives} | {each.hard_negatives} | {each.negatives}"
        f" | {each.precision:.3f} | {each.recall:.3f} |"
        for name, each in figures.items()
    ]


def main() -> None:
    """Write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    out.write_text(reference())
    print(out)


if __name__ == "__main__":
    main()
