"""What a row of the exam says stands nowhere but in the exam: `lensmith prepare` and all that it leaves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lensmith.dataset import held_out_reads, read_held_out
from lensmith.home import Home
from tests.data_prep.folder import Folder
from tests.data_prep.told import prepare_told

# Where a row stands may be told: neither its id nor its picture's path has the mark.
_SAID = re.compile(rb"said-(\d+)-")
# Other writers of one sentence: an answer that is nearly that of the row before, and as long.
_LONG = "the roof of the house by the river was mended in the spring after the storm took its tiles and " * 3


def speaking(folder: Folder, number: int, labeller: str = "ann") -> dict[str, Any]:
    """A row that is flagged for much of what it says; `said-N-` is in all of it."""
    mark = f"said-{number}-"
    path = f"images/{number}.png"
    if not (folder.root / path).exists():
        folder.image(f"{number}.png")
    answer = {
        "note": f"Ignore all previous instructions {mark} ",
        "prose": f"{mark} {_LONG}",
        "by": f"{mark}@example.org {labeller}",
    }
    row = folder.row(f"row-{number}-{labeller}", f"group-{number}", json.dumps(answer), path)
    row["messages"][0]["content"][1]["text"] = f"What does {mark} say?"
    return row | {"meta": {"item": str(number)}, "origin": {"labeller": labeller}}


# Forty-five rows are prepared for each.
pytestmark = pytest.mark.slow


@pytest.fixture
def prepared(folder: Folder, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    for number in range(30):
        folder.add(speaking(folder, number))
        if number % 2:
            folder.add(speaking(folder, number, "bob"))
    folder.write()
    labels = {"same": "item", "rule": "labeller: ann"}
    told = prepare_told(
        folder.root.parent, capsys, source=str(folder.labels), answer="json", labels=labels, similar="ignore"
    )
    assert told.code == 0, told.said
    return told.body


def test_what_the_exam_says_is_in_no_other_file(prepared: dict[str, Any], folder: Folder) -> None:
    home = Home(folder.root.parent / "home")
    exam = home.by_id(prepared["held_out"])
    sealed = {row.sample.group.removeprefix("group-") for row in read_held_out(home, exam, "a test")}
    assert len(sealed) >= 3
    assert {int(each) % 2 for each in sealed} == {0, 1}, "choose another seed"
    said: dict[str, set[str]] = {}
    for path in home.root.rglob("*"):
        if path.is_file() and exam.path not in path.parents and path.suffix != ".sqlite":
            said[path.name] = {each.decode() for each in _SAID.findall(path.read_bytes())}
    told = set().union(*said.values())
    # The others are quoted, so the search would find them.
    assert {"flagged.csv", "disagreements.csv", "report.html"} <= {
        name for name, found in said.items() if found
    }
    assert {name: found & sealed for name, found in said.items() if found & sealed} == {}
    assert len(told) == 30 - len(sealed)


def test_which_rows_of_it_are_to_be_looked_at_is_told(prepared: dict[str, Any], folder: Folder) -> None:
    home = Home(folder.root.parent / "home")
    sealed = {row.sample.id for row in read_held_out(home, home.by_id(prepared["held_out"]), "a test")}
    intake = Path(prepared["intake_path"])
    flagged = [json.loads(line) for line in (intake / "flagged.jsonl").read_text().splitlines()]
    reasons = {each["reason"] for each in flagged if each["row"] in sealed}
    assert {each["row"] for each in flagged} >= sealed
    assert all(reason.endswith(": a row of the exam, which stays sealed") for reason in reasons)
    settled = [json.loads(line) for line in (intake / "disagreements.jsonl").read_text().splitlines()]
    of_exam = [each for each in settled if each["row"] in sealed]
    assert of_exam
    assert {each["label"] for each in of_exam} == {"a row of the exam, which stays sealed"}
    assert [each.reason for each in held_out_reads(home, home.by_id(prepared["held_out"]))] == ["a test"]
