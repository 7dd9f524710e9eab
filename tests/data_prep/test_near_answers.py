"""Rows whose long answers are near copies, through prepare."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import pytest
from PIL import Image

from data_prep.prepare import Prepared, prepare
from lensmith.dataset import read_held_out
from lensmith.home import Home
from tests.data_prep.conftest import BankForms, refused
from tests.data_prep.folder import Folder
from tests.data_prep.test_history import splits_of
from tests.data_prep.test_prepare import places

TEMPLATE = "The part that is shown has no defect that can be seen and may be delivered to the customer."


def report(seed: int, edited: int = 0, words: int = 60) -> str:
    """A text of drawn words; `edited` of them replaced."""
    draws = random.Random(seed)
    text = ["".join(draws.choices("abcdefghij", k=6)) for _ in range(words)]
    for at in range(edited):
        text[words // 3 + at] = "another"
    return " ".join(text)


def pairs(folder: Folder, count: int, frame: str = "{}") -> list[tuple[str, str]]:
    """Two rows of two groups for each of `count` reports, the second with one word changed."""
    found = []
    for seed in range(count):
        names = f"pair-{seed}-a", f"pair-{seed}-b"
        for edited, name in enumerate(names):
            folder.add(folder.row(name, answer=frame.replace("{}", report(seed, edited))))
        found.append(names)
    return found


def apart(prepared: Prepared, home: Home, names: list[tuple[str, str]]) -> int:
    return sum(len(splits_of(prepared, home, *pair)) > 1 for pair in names)


@pytest.mark.parametrize(
    ("data", "found"),
    [({}, 10), ({"similar": "ignore"}, 0), ({"long_answer": 61}, 0), ({"long_answer": 60}, 10)],
)
def test_copied_reports_stay_in_one_split(
    folder: Folder, home: Home, data: dict[str, object], found: int
) -> None:
    folder.fill(groups=30)
    names = pairs(folder, 10)
    prepared = prepare(folder.recipe(**{"answer": "text"} | data), home)
    assert prepared.intake.body["similar"]["answers"] == found
    # Ten pairs whose groups are drawn apart: some lie in two splits unless the copies are noticed.
    assert (apart(prepared, home, names) == 0) == bool(found)


def test_template_sentences_and_fields_are_no_copies(folder: Folder, home: Home) -> None:
    fields = {f"field_number_{at}": f"value {at} of it" for at in range(30)}
    for number in range(60):
        folder.add(folder.row(f"text-{number}", answer=json.dumps({"finding": TEMPLATE})))
        folder.add(folder.row(f"form-{number}", answer=json.dumps(fields | {"n": number})))
    prepared = prepare(folder.recipe(), home)
    assert prepared.intake.body["similar"]["answers"] == 0
    assert len(set(places(prepared, home).values())) == 3


def test_bank_forms_are_no_copies(forms: BankForms) -> None:
    assert forms.prepared.intake.body["similar"]["answers"] == 0


def test_prose_in_json_is_compared(folder: Folder, home: Home) -> None:
    folder.fill(groups=30)
    names = pairs(folder, 10, '{"n": 1, "parts": [{"said": "{}"}]}')
    prepared = prepare(folder.recipe(), home)
    assert prepared.intake.body["similar"]["answers"] == 10
    assert apart(prepared, home, names) == 0


def test_an_answer_that_ties_two_splits_is_refused_with_both(folder: Folder, home: Home) -> None:
    folder.fill(groups=30)
    for number in range(12):
        folder.add(folder.row(f"old-{number}", answer=report(number)))
    first = prepare(folder.recipe(answer="text"), home)
    before = places(first, home)
    train, exam = (
        next(row for row, split in before.items() if split == wanted and row.startswith("old-"))
        for wanted in ("train", "held_out")
    )
    line = folder.add(folder.row("bridge", train, report(int(exam.removeprefix("old-")), edited=2)))
    second = prepare(folder.recipe(answer="text", previous=first.dataset.id), home)
    assert refused(second) == {line: {"two_splits"}}
    said = (second.intake.path / "refused.csv").read_text(encoding="utf-8-sig")
    assert f"'{train}' (train)" in said
    assert f"'{exam}' (held_out)" in said
    assert before == places(second, home)


def test_the_report_shows_the_pairs_but_not_the_exams(folder: Folder, home: Home) -> None:
    folder.fill(groups=30)
    names = pairs(folder, 6)
    prepared = prepare(folder.recipe(answer="text", split={"validation": 0.1, "held_out": 0.4}), home)
    taken = places(prepared, home)
    sealed = [taken[pair[0]] == "held_out" for pair in names]
    assert set(sealed) == {True, False}
    page = (prepared.intake.path / "report.html").read_text()
    assert page.count("<h3>Nearly the same answer</h3>") == 6
    assert [report(seed) not in page for seed in range(6)] == sealed
    assert "6 pairs of long answers say nearly the same" in page


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["text", "json"])
def test_long_answers_and_blank_pictures_of_an_earlier_exam(
    folder: Folder, home: Home, tmp_path: Path, kind: str
) -> None:
    """The exam answers in words, the new rows in words or in a field of JSON."""
    folder.fill(groups=20)
    for seed in range(4):
        folder.add(folder.row(f"report-{seed}", "sealed", report(seed)))
    blank = io.BytesIO()
    Image.new("RGB", (48, 32), "white").save(blank, "PNG")
    folder.add(folder.row("blank", "sealed", path=folder.image("blank.png", blank.getvalue())))
    split = {"validation": 0.1, "held_out": 0.85, "seed": 3}
    exam = prepare(folder.recipe(answer="text", split=split), home).held_out
    sealed = {row.sample.id for row in read_held_out(home, exam, "a test of the guard")}
    assert {"blank", "report-0"} <= sealed, "choose another seed"
    later = Folder(tmp_path / "later")
    later._pictures = 500
    later.fill(groups=20)
    frame = {"text": "{}", "json": '{"report": "{}"}'}[kind]
    said = [later.add(later.row("said", answer=frame.replace("{}", report(2, edited=2))))]
    # What repeats a row that repeats the exam.
    said.append(later.add(later.row("said again", answer=frame.replace("{}", report(2, edited=3)))))
    shown = later.add(later.row("shown", path=later.image("other.png", blank.getvalue())))
    later.add(later.row("new", answer=frame.replace("{}", report(77))))
    guarded = prepare(later.recipe(answer=kind, exams=[exam.id]), home)
    assert refused(guarded) == {line: {"old_exam"} for line in (*said, shown)}
    told = (guarded.intake.path / "refused.csv").read_text(encoding="utf-8-sig")
    assert f"gives nearly the answer of row 'report-2' of held_out-{exam.id[:12]}" in told
    assert f"shows the picture of row 'blank' of held_out-{exam.id[:12]}" in told
