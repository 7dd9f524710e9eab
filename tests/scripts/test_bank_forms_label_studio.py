"""The bank forms' labels as a Label Studio export say what labels.jsonl says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bank_forms.flaws import Planted
from bank_forms.label_studio import OPTIONS
from make_bank_forms import make_bank_forms

from data_prep.sources.label_studio import LabelStudio, LabelStudioOptions
from data_prep.sources.source import Found
from lensmith.sample import Sample
from tests.data_prep.canonical import parse_line

Handed = tuple[Path, list[Planted]]


@pytest.fixture(scope="module")
def handed_over(tmp_path_factory: pytest.TempPathFactory) -> Handed:
    out = tmp_path_factory.mktemp("handed") / "forms"
    return out, make_bank_forms(out, forms=80, customers=20, seed=17, label_studio=True)


def exported(out: Path) -> list[Found]:
    return list(LabelStudio(out / "export.json", LabelStudioOptions.model_validate(OPTIONS)).rows())


def lines(out: Path) -> list[Sample | None]:
    text = (out / "labels.jsonl").read_bytes().splitlines()
    return [parse_line(line, f"labels.jsonl:{number}").sample for number, line in enumerate(text, start=1)]


def test_every_row_reads_the_same(handed_over: Handed) -> None:
    out, planted = handed_over
    marked = {one.line for one in planted if one.flaw == "image token in the label"}
    found = exported(out)
    assert len(found) == len(lines(out))
    for number, (task, sample) in enumerate(zip(found, lines(out), strict=True), start=1):
        if sample is None:
            assert [flaw.code for flaw in task.flaws] == ["unlabelled"]
        elif number in marked:
            assert task.sample is not None
            assert "<|image_pad|>" in task.sample.answer
            assert task.sample.messages[:-1] == sample.messages[:-1]
        else:
            assert task.sample == sample


def test_the_other_files_are_the_same_bytes(handed_over: Handed, tmp_path: Path) -> None:
    out, _ = handed_over
    make_bank_forms(tmp_path / "plain", forms=80, customers=20, seed=17)
    plain = {path.relative_to(tmp_path / "plain") for path in (tmp_path / "plain").rglob("*.*")}
    both = {path.relative_to(out) for path in out.rglob("*.*")}
    assert both - plain == {Path("export.json"), Path("labelling.xml")}
    assert (out / "labels.jsonl").read_bytes() == (tmp_path / "plain" / "labels.jsonl").read_bytes()


def test_a_changed_label_would_be_noticed(handed_over: Handed) -> None:
    out, _ = handed_over
    tasks = json.loads((out / "export.json").read_text())
    good = next(at for at, sample in enumerate(lines(out)) if sample and sample.answer.endswith("}"))
    tasks[good]["annotations"][0]["result"].reverse()
    (out / "other.json").write_text(json.dumps(tasks))
    options = LabelStudioOptions.model_validate(OPTIONS)
    again = list(LabelStudio(out / "other.json", options).rows())
    # The configuration orders the keys, not the order of typing.
    assert again[good].sample == lines(out)[good]
    tasks[good]["annotations"][0]["result"][0]["value"]["text"] = ["other"]
    (out / "other.json").write_text(json.dumps(tasks))
    assert list(LabelStudio(out / "other.json", options).rows())[good].sample != lines(out)[good]
    (out / "other.json").unlink()
