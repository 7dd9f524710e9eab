"""The list of what is forgotten, and that preparing holds to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_prep import forgetting
from data_prep.conditions import parse_conditions
from data_prep.forgetting import FILE, Forgotten, record_decision
from data_prep.prepare import Prepared, prepare
from lensmith.dataset import read_held_out, read_split
from lensmith.errors import InputError, IntegrityError
from lensmith.home import Home
from lensmith.recipe import Recipe
from lensmith.sample import Message, Origin, Sample, Text
from tests.data_prep.folder import Folder


def sample(row: str = "form-1", labeller: str = "", group: str = "g", **meta: object) -> Sample:
    messages = (Message("user", (Text("?"),)), Message("assistant", (Text("!"),)))
    return Sample(row, group, messages, meta, origin=Origin(labeller=labeller))


def decide(home: Home, *texts: str) -> bool:
    return record_decision(home, parse_conditions(texts), "dpo", "asked to")


def forgotten(home: Home) -> Forgotten:
    return Forgotten.load(home.root)


def test_the_rows_meant_have_a_flaw_and_no_others(home: Home) -> None:
    assert decide(home, "origin.labeller=ada lovelace")
    assert decide(home, "group=customer-7", "meta.desk=3")
    known = forgotten(home)
    assert [flaw and flaw.code for flaw in map(known.flaw, (sample(labeller="ada lovelace"), sample()))] == [
        "forgotten",
        None,
    ]
    assert known.flaw(sample(group="customer-7", desk=3))
    assert not known.flaw(sample(group="customer-7", desk=4))
    assert not known.flaw(sample(group="customer-7"))
    assert not known.flaw(sample(desk=3))
    # Another field with the same value is not what was decided.
    assert not known.flaw(sample(row="ada lovelace", group="ada lovelace"))
    assert not known.flaw(sample(labeller="\ud800"))


def test_the_list_names_nobody_and_two_homes_do_not_agree(home: Home, tmp_path: Path) -> None:
    other = Home(tmp_path / "other")
    for each in (home, other):
        decide(each, "origin.labeller=ada lovelace")
    first, second = (json.loads((each.root / FILE).read_text()) for each in (home, other))
    assert "lovelace" not in json.dumps(first)
    assert (first["who"], first["why"]) == ("dpo", "asked to")
    assert first["where"][0]["field"] == "origin.labeller"
    assert first["where"][0]["sha256"] != second["where"][0]["sha256"]
    assert forgotten(home).digest != forgotten(other).digest


def test_one_value_in_two_fields_looks_like_two(home: Home) -> None:
    decide(home, "id=7", "group=7")
    first, second = json.loads((home.root / FILE).read_text())["where"]
    assert first["sha256"] != second["sha256"]


def test_lists_of_two_homes_can_be_put_together(home: Home, tmp_path: Path) -> None:
    other = Home(tmp_path / "other")
    decide(home, "id=a")
    decide(other, "id=b")
    (home.root / FILE).write_bytes((home.root / FILE).read_bytes() + (other.root / FILE).read_bytes())
    assert forgotten(home).flaw(sample("a"))
    assert forgotten(home).flaw(sample("b"))
    assert not decide(home, "id=a")


def test_deciding_twice_writes_once_and_the_digest_tells_what_is_refused(home: Home) -> None:
    assert forgotten(home).digest == ""
    assert decide(home, "id=a")
    once, lines = forgotten(home).digest, (home.root / FILE).read_bytes()
    assert not decide(home, "id=a")
    assert ((home.root / FILE).read_bytes(), forgotten(home).digest) == (lines, once)
    assert decide(home, "id=b")
    assert forgotten(home).digest != once
    # In another order, by other people: the same rows are refused.
    entries = [json.loads(line) | {"who": "x"} for line in (home.root / FILE).read_text().splitlines()]
    both = forgotten(home).digest
    (home.root / FILE).write_text("".join(json.dumps(entry) + "\n" for entry in reversed(entries)))
    assert forgotten(home).digest == both


def test_a_row_costs_the_same_however_long_the_list_is(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        decide(home, f"id=row-{number}")
    decide(home, "id=x", "group=y")
    known, asked = forgotten(home), []
    real = forgetting._digest
    monkeypatch.setattr(forgetting, "_digest", lambda *each: asked.append(each) or real(*each))
    assert known.flaw(sample("other")) is None
    assert len(asked) == 3


@pytest.mark.parametrize("line", ['{"act": "forget", "at": "2026', "{}", "", '{"act": "forgot"}'])
def test_a_line_that_cannot_be_read_stops_everything(home: Home, line: str) -> None:
    decide(home, "id=a")
    with (home.root / FILE).open("a") as stream:
        stream.write(f"{line}\n")
    with pytest.raises(IntegrityError, match="line 2"):
        forgotten(home)
    with pytest.raises(IntegrityError, match="line 2"):
        decide(home, "id=b")


@pytest.mark.parametrize(("who", "why"), [("", "asked"), ("dpo", " "), ("dpo", "two\nlines")])
def test_a_decision_needs_a_person_and_a_reason(home: Home, who: str, why: str) -> None:
    with pytest.raises(InputError, match="a person and a reason"):
        record_decision(home, parse_conditions(["id=a"]), who, why)
    assert not (home.root / FILE).exists()


def places(prepared: Prepared, home: Home) -> dict[str, str]:
    """Split by row id."""
    rows = {
        "train": read_split(prepared.dataset, "train"),
        "validation": read_split(prepared.dataset, "validation"),
        "held_out": read_held_out(home, prepared.held_out, "test"),
    }
    return {row.sample.id: split for split, taken in rows.items() for row in taken}


def desks(folder: Folder, **data: object) -> Recipe:
    """30 groups of two rows; every third row is desk 3's."""
    for number in range(60):
        row = folder.row(f"row-{number}", f"group-{number // 2}", json.dumps({"n": number}))
        folder.add(row | {"meta": {"desk": number % 3 + 1}})
    return folder.recipe(**data)


@pytest.mark.slow
def test_prepare_refuses_them_again_and_again_and_moves_no_other_row(home: Home, folder: Folder) -> None:
    recipe = desks(folder)
    before = places(prepare(recipe, home), home)
    decide(home, "meta.desk=3")
    prepared = prepare(recipe, home)
    after = places(prepared, home)
    assert len(after) == 40
    assert after == {row: split for row, split in before.items() if int(row[4:]) % 3 != 2}
    assert prepared.intake.body["refused"] == {"rows": 20, "by_reason": {"forgotten": 20}}
    # The page of refused rows would show their pictures, the tables their names.
    for path in prepared.dataset.path.iterdir():
        if path.is_file():
            assert '"row-2"' not in path.read_text()
            assert "row-2<" not in path.read_text()
    record = json.loads((prepared.intake.path / "refused.jsonl").read_text().splitlines()[0])
    assert (record["place"], record["row"], record["code"]) == ("labels.jsonl:3", "", "forgotten")
    page = (prepared.intake.path / "report.html").read_text()
    assert page.count("data:image/") == 18

    # The same file once more, with new rows of the same desk: in a new home the list would be empty.
    folder.add(folder.row("late", "group-0") | {"meta": {"desk": 3}})
    folder.add(folder.row("fresh", "group-99") | {"meta": {"desk": 1}})
    again = places(prepare(folder.recipe(), home), home)
    assert {row: split for row, split in again.items() if row != "fresh"} == after
    assert "late" in places(prepare(folder.recipe(), Home(home.root.parent / "other")), home)


def test_forgotten_rows_are_no_bad_rows(home: Home, folder: Folder) -> None:
    recipe = desks(folder, max_bad=0.0)
    decide(home, "meta.desk=3")
    assert len(places(prepare(recipe, home), home)) == 40


def test_the_list_is_part_of_what_is_asked(home: Home, folder: Folder) -> None:
    recipe = desks(folder)
    first = prepare(recipe, home)
    decide(home, "id=nobody")
    second = prepare(recipe, home)
    assert first.dataset.manifest.key != second.dataset.manifest.key
    assert first.dataset.id == second.dataset.id
