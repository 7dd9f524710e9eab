"""lensmith export: a dataset's rows in a folder for others, mistakes back to the labellers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data_prep.sources.label_studio import LabelStudio, LabelStudioOptions
from data_prep.sources.llava import Llava
from lensmith.artifact import Artifact
from lensmith.attestation import attestations
from lensmith.cli.main import main
from lensmith.cli.verbs.export import FORMATS
from lensmith.dataset import HELD_OUT_FILE, held_out_reads, split_file
from lensmith.errors import GateRefused
from lensmith.home import Home
from lensmith.retirement import check_in_force, retirement
from lensmith.row_file import Row, write_rows
from lensmith.sample import Image, Message, Sample, Text
from tests.data_prep.folder import picture


def row(number: int) -> Row:
    ask = Message("user", (Image(f"form-{number}.png", f"{number:04x}"), Text("Read the form.")))
    answer = Message("assistant", (Text(json.dumps({"n": str(number)})),))
    return Row(Sample(f"row-{number}", f"g{number}", (ask, answer)), (picture(number),))


@pytest.fixture
def sealed(home: Home) -> Artifact:
    with home.create("held_out", "d" * 64, {}) as draft:
        write_rows(draft.path / HELD_OUT_FILE, [row(5), row(6)])
    return draft.artifact


@pytest.fixture
def dataset(home: Home, sealed: Artifact) -> Artifact:
    with home.create("dataset", "a" * 64, {}) as draft:
        draft.body["held_out"] = sealed.id
        write_rows(draft.path / split_file("train"), [row(1), row(2)])
        write_rows(draft.path / split_file("validation"), [row(3), row(4)])
    return draft.artifact


def report(home: Home, wrong: Sequence[str], right: Sequence[str] = (), **inputs: Artifact) -> Artifact:
    """What evaluation says of these rows."""
    key = hashlib.sha256(repr((wrong, right, sorted(inputs))).encode()).hexdigest()
    with home.create("report", key, inputs) as draft:
        lines = [
            {"row": name, "answer": '{"n": "9"}', "exact": False, "json": True, "fields": {"n": verdict}}
            for names, verdict in ((wrong, "wrong"), (right, "right"))
            for name in names
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (draft.path / "predictions.jsonl").write_text(text)
    return draft.artifact


def export(home: Home, *arguments: object) -> int:
    return main(["export", *map(str, arguments), "--home", str(home.root)])


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_written(
    home: Home, dataset: Artifact, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(home, dataset.id, "--to", name, "--out", tmp_path / "out", "--json") == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["images"], told["left_out"], told["retired"]) == (4, 4, {}, None)
    text = (tmp_path / "out" / told["file"]).read_text()
    assert all(f"row-{number}" in text for number in (1, 2, 3, 4))


def test_one_split_alone(home: Home, dataset: Artifact, tmp_path: Path) -> None:
    assert export(home, dataset.id, "--to", "llava", "--split", "validation", "--out", tmp_path / "out") == 0
    assert [found.row for found in Llava(tmp_path / "out" / "llava.json").rows()] == ["row-3", "row-4"]


def test_mistakes_on_validation_rows_go_to_the_labellers(
    home: Home, dataset: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only those: row 1 is a training row, row 4 was read right."""
    judged = report(home, ["row-1", "row-3"], ["row-4"], validation=dataset)
    asked = ("--to", "label-studio", "--out", tmp_path / "out", "--predictions", judged.id)
    assert export(home, dataset.id, *asked) == 0
    told = capsys.readouterr().out
    assert told.startswith("1 row, 1 image  ")
    assert told.endswith("\n1 row has a prediction to correct\n")
    options = LabelStudioOptions(
        prompt_field="data.question", id="data.id", answer="json", labels="predictions"
    )
    found = list(LabelStudio(tmp_path / "out" / "tasks.json", options).rows())
    assert [each.sample and (each.sample.id, each.sample.answer) for each in found] == [
        ("row-3", '{"n":"9"}')
    ]


def test_mistakes_of_the_exam_end_it(
    home: Home, sealed: Artifact, dataset: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = report(home, ["row-5"], ["row-6"], held_out=sealed)
    asked = (dataset.id, "--to", "label-studio", "--out", tmp_path / "out", "--predictions", judged.id)
    decision = ("--retire-exam", "--who", "ada", "--why", "the labels of spring are wrong")
    # Nothing is shown, and nothing ends, unless that was asked for, by somebody, for a reason.
    for arguments, said in (
        ((), "mistakes that are shown come from validation rows"),
        (("--retire-exam",), "a decision needs a person and a reason"),
        ((*decision[:3], "--why", " "), "a decision needs a person and a reason"),
        (("--who", "ada"), "is asked for --retire-exam only"),
        ((*decision, "--split", "validation"), "the exam is no split of the dataset"),
    ):
        assert export(home, *asked, *arguments) == 2
        assert said in capsys.readouterr().err
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").touch()
    assert export(home, *asked[:4], tmp_path / "there", *asked[5:], *decision) == 2
    assert retirement(home, sealed.id) == ""
    assert held_out_reads(home, sealed) == []
    capsys.readouterr()

    assert export(home, *asked, *decision) == 0
    told = capsys.readouterr().out
    assert f"{sealed.short} is retired: no model is evaluated or promoted by it any more." in told
    tasks = json.loads((tmp_path / "out/tasks.json").read_text())
    assert [task["data"]["id"] for task in tasks] == ["row-5"]
    (read,) = held_out_reads(home, sealed)
    assert read.reason == (
        "export for relabelling, which retires the exam, by ada: the labels of spring are wrong"
    )
    (record,) = attestations(home, sealed.id, "retirement")
    assert record.statement == {"who": "ada", "why": "the labels of spring are wrong", "rows": 1}
    assert record.evidence == {"report": judged.id}
    with pytest.raises(GateRefused, match=f"{sealed.short} is no exam any more") as refused:
        check_in_force(home, sealed)
    assert f"ada retired it at {record.second}: the labels of spring are wrong" in str(refused.value)
    assert main(["show", sealed.id, "--home", str(home.root)]) == 0
    shown = capsys.readouterr().out
    assert "read 1 times" in shown
    assert "export for relabelling" in shown
    assert "retirement" in shown


def test_only_its_own_exam_is_retired(
    home: Home, sealed: Artifact, dataset: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with home.create("held_out", "e" * 64, {}) as draft:
        write_rows(draft.path / HELD_OUT_FILE, [row(9)])
    decision = ("--retire-exam", "--who", "ada", "--why", "to see")
    out = ("--to", "label-studio", "--out", tmp_path / "out")
    for judged in (
        report(home, ["row-9"], held_out=draft.artifact),
        report(home, ["row-3"], validation=dataset),
    ):
        assert export(home, dataset.id, *out, "--predictions", judged.id, *decision) == 2
        assert f"the exam of {dataset.short} is {sealed.short}" in capsys.readouterr().err
    right = report(home, [], ["row-5"], held_out=sealed)
    assert export(home, dataset.id, *out, "--predictions", right.id, *decision) == 2
    assert "there is nothing to correct" in capsys.readouterr().err
    assert [retirement(home, each.id) for each in (sealed, draft.artifact)] == ["", ""]
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_meant(
    home: Home, dataset: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = report(home, ["row-77"])
    with home.create("held_out", "c" * 64, {}) as draft:
        write_rows(draft.path / HELD_OUT_FILE, [row(4)])
    out = ("--out", tmp_path / "out")
    cases = [
        ((draft.artifact.id, "--to", "llava", *out), "the exam is not exported"),
        ((other.id, "--to", "llava", *out), "is not a dataset"),
        ((dataset.id, "--to", "llava", *out, "--predictions", other.id), "only label-studio has predictions"),
        ((dataset.id, "--to", "label-studio", *out, "--predictions", other.id), "of other rows"),
        ((dataset.id, "--to", "label-studio", *out, "--predictions", dataset.id), "is not a report"),
        ((dataset.id, "--to", "llava", "--out", home.root), "nothing is written over"),
    ]
    for arguments, said in cases:
        assert export(home, *arguments) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
