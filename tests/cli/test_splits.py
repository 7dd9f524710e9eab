"""What decides on a row's split, and what labellers say, through `lensmith prepare`."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from lensmith.cli.main import main
from lensmith.dataset import read_held_out, read_split
from lensmith.home import Home
from tests.conftest import recipe_content
from tests.data_prep.folder import Folder
from tests.data_prep.test_history import labelled, photograph, shown
from tests.data_prep.test_strata import KINDS, SPLIT
from tests.data_prep.test_strata import fill as fill_kinds

# Each prepares several times.
pytestmark = pytest.mark.slow


class Command:
    """`lensmith prepare` over one folder and home."""

    def __init__(self, folder: Folder, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.home, self._capsys = folder, home, capsys

    def prepare(self, **data: Any) -> dict[str, Any]:
        """What `--json` says."""
        self.folder.write()
        content = recipe_content(self.folder.root / "no-base", self.folder.root)
        content["data"] |= {"max_bad": 0.9} | data
        path = self.folder.root.with_suffix(".yaml")
        path.write_text(yaml.safe_dump(content))
        assert main(["prepare", str(path), "--home", str(self.home.root), "--json"]) == 0
        return json.loads(self._capsys.readouterr().out)

    def places(self, said: dict[str, Any]) -> dict[str, str]:
        """The split of every row by its id."""
        dataset = self.home.by_id(said["dataset"])
        rows = {split: read_split(dataset, split) for split in ("train", "validation")}
        exam = read_held_out(self.home, self.home.by_id(said["held_out"]), "a test of the splits")
        return {row.sample.id: split for split, taken in {**rows, "held_out": exam}.items() for row in taken}

    def table(self, said: dict[str, Any], name: str) -> list[dict[str, str]]:
        """A file of the intake that a spreadsheet opens."""
        with (Path(said["intake_path"]) / name).open(encoding="utf-8-sig", newline="") as stream:
            return list(csv.DictReader(stream))


@pytest.fixture
def command(tmp_path: Path, home: Home, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(Folder(tmp_path / "forms"), home, capsys)


def test_every_kind_has_its_share_in_every_split(command: Command) -> None:
    fill_kinds(command.folder)
    said = command.prepare(split=SPLIT | {"stratify": "kind"}, similar="ignore")
    groups = {row.rpartition("-")[0]: split for row, split in command.places(said).items()}
    found = Counter((group.partition("-")[0], split) for group, split in groups.items())
    for kind, count in KINDS.items():
        for split, share in {"held_out": 0.3, "validation": 0.1, "train": 0.6}.items():
            assert found[kind or "none", split] == round(count * share)


def test_a_later_dataset_keeps_every_row_where_it_was(command: Command) -> None:
    command.folder.fill(groups=30)
    command.folder.add(shown(command.folder, "photo", "photo", photograph(1)))
    first = command.prepare()
    before = command.places(first)
    train = next(row for row, split in before.items() if split == "train" and row.startswith("good-"))
    exam = next(row for row, split in before.items() if split == "held_out" and row.startswith("good-"))
    command.folder.fill(groups=60)
    command.folder.lines[31:61] = []
    copy = shown(command.folder, "copy", "new", photograph(1, 50, turned=True))
    larger = io.BytesIO()
    data = (command.folder.root / f"images/{exam}.png").read_bytes()
    Image.open(io.BytesIO(data)).resize((96, 64), Image.Resampling.NEAREST).save(larger, "PNG")
    path = command.folder.image("bridge.png", larger.getvalue())
    group = train.replace("good-", "group-").rpartition("-")[0]
    command.folder.add(copy, command.folder.row("bridge", group, path=path))
    said = command.prepare(previous=first["dataset"])
    after = command.places(said)
    assert before.items() <= after.items()
    assert after["copy"] == before["photo"]
    # A row that hangs together with rows of two splits is refused with both.
    (refused,) = command.table(said, "refused.csv")
    assert (refused["row"], refused["code"]) == ("bridge", "two_splits")
    assert "(train)" in refused["reason"]
    assert f"'{exam}' (held_out)" in refused["reason"]
    # Without the first dataset others are drawn.
    assert not before.items() <= command.places(command.prepare(split=SPLIT | {"seed": 5})).items()


def test_an_earlier_exam_is_not_learned(command: Command, tmp_path: Path) -> None:
    command.folder.fill(groups=20)
    command.folder.add(shown(command.folder, "sealed", "customer-1", photograph(2)))
    exam = command.prepare(split={"validation": 0.1, "held_out": 0.85, "seed": 3})
    assert command.places(exam)["sealed"] == "held_out", "choose another seed"
    later = Folder(tmp_path / "later")
    later._pictures = 500
    later.fill(groups=20)
    later.add(shown(later, "swallowed", "new-1", photograph(2, 40)))
    command.folder = later
    (refused,) = command.table(command.prepare(exams=[exam["held_out"]]), "refused.csv")
    assert (refused["row"], refused["code"]) == ("swallowed", "old_exam")
    assert "'sealed'" in refused["reason"]
    assert command.table(command.prepare(), "refused.csv") == []


def test_agreement_disagreements_and_where_rows_come_from(command: Command) -> None:
    command.folder.fill(groups=20)
    for item, answers in {"a": ("1", "1", "2"), "b": ("1", "2", "3"), "c": ("4", "4", "4")}.items():
        path = command.folder.image(f"{item}.png")
        for labeller, answer in zip(("ann", "bob", "eve"), answers, strict=True):
            row = labelled(command.folder, item, labeller, json.dumps({"n": answer}), path)
            origin = {"labeller": labeller, "source": "march", "licence": "CC0-1.0", "consent": "c-7"}
            command.folder.add(row | {"origin": origin | {"guideline": "v3"}})
    said = command.prepare(labels={"same": "item", "rule": "majority"})
    body = command.home.by_id(said["intake"]).body
    (field,) = body["agreement"]
    assert (field["field"], field["items"]) == ("n", 3)
    # Of nine pairs of labels four agree: one of a's, none of b's, all of c's.
    assert field["percent"] == pytest.approx(4 / 9)
    assert {each["item"] for each in command.table(said, "disagreements.csv")} == {"a", "b"}
    assert {row for row in command.places(said) if not row.startswith("good-")} == {"a-ann", "c-ann"}
    card = (command.home.by_id(said["dataset"]).path / "README.md").read_text(encoding="utf-8")
    for stated in ("march", "CC0-1.0"):
        assert stated in card
