"""lensmith export: a dataset's rows in a folder for others, mistakes back to the labellers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_prep.sources.label_studio import LabelStudio, LabelStudioOptions
from data_prep.sources.llava import Llava
from lensmith.artifact import Artifact
from lensmith.cli.main import main
from lensmith.cli.verbs.export import FORMATS
from lensmith.dataset import HELD_OUT_FILE, split_file
from lensmith.home import Home
from lensmith.row_file import Row, write_rows
from lensmith.sample import Image, Message, Sample, Text
from tests.data_prep.folder import picture


def row(number: int) -> Row:
    ask = Message("user", (Image(f"form-{number}.png", f"{number:04x}"), Text("Read the form.")))
    answer = Message("assistant", (Text(json.dumps({"n": str(number)})),))
    return Row(Sample(f"row-{number}", f"g{number}", (ask, answer)), (picture(number),))


@pytest.fixture
def dataset(home: Home) -> Artifact:
    with home.create("dataset", "a" * 64, {}) as draft:
        write_rows(draft.path / split_file("train"), [row(1), row(2)])
        write_rows(draft.path / split_file("validation"), [row(3)])
    return draft.artifact


def report(home: Home, *rows: str) -> Artifact:
    with home.create("report", "b" * 64, {}) as draft:
        lines = [json.dumps({"row": name, "answer": '{"n": "9"}'}) + "\n" for name in rows]
        (draft.path / "predictions.jsonl").write_text("".join(lines))
    return draft.artifact


def export(home: Home, *arguments: object) -> int:
    return main(["export", *map(str, arguments), "--home", str(home.root)])


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_written(
    home: Home, dataset: Artifact, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(home, dataset.id, "--to", name, "--out", tmp_path / "out", "--json") == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["images"], told["left_out"]) == (3, 3, {})
    text = (tmp_path / "out" / told["file"]).read_text()
    assert all(f"row-{number}" in text for number in (1, 2, 3))


def test_one_split_alone(home: Home, dataset: Artifact, tmp_path: Path) -> None:
    assert export(home, dataset.id, "--to", "llava", "--split", "validation", "--out", tmp_path / "out") == 0
    assert [found.row for found in Llava(tmp_path / "out" / "llava.json").rows()] == ["row-3"]


def test_answers_of_a_report_go_to_the_labellers(
    home: Home, dataset: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = report(home, "row-3")
    asked = ("--to", "label-studio", "--out", tmp_path / "out", "--predictions", judged.id)
    assert export(home, dataset.id, *asked) == 0
    assert "1 rows have a prediction to correct" in capsys.readouterr().out
    options = LabelStudioOptions(
        prompt_field="data.question", id="data.id", answer="json", labels="predictions"
    )
    found = list(LabelStudio(tmp_path / "out" / "tasks.json", options).rows())
    assert [each.sample and each.sample.answer for each in found] == [None, None, '{"n":"9"}']


def test_what_cannot_be_meant(
    home: Home, dataset: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = report(home, "row-77")
    with home.create("held_out", "c" * 64, {}) as draft:
        write_rows(draft.path / HELD_OUT_FILE, [row(4)])
    out = ("--out", tmp_path / "out")
    cases = [
        ((draft.artifact.id, "--to", "llava", *out), "the exam is not exported"),
        ((other.id, "--to", "llava", *out), "is not a dataset"),
        ((dataset.id, "--to", "llava", *out, "--predictions", other.id), "cannot hold predictions"),
        ((dataset.id, "--to", "label-studio", *out, "--predictions", other.id), "of other rows"),
        ((dataset.id, "--to", "label-studio", *out, "--predictions", dataset.id), "is not a report"),
        ((dataset.id, "--to", "llava", "--out", home.root), "nothing is written over"),
    ]
    for arguments, said in cases:
        assert export(home, *arguments) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
