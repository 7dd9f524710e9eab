"""The bank forms' labels as a Label Studio export say what labels.jsonl says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bank_forms.flaws import Planted
from bank_forms.label_studio import OPTIONS
from make_bank_forms import make_bank_forms

from data_prep.sources.label_studio import LabelStudio, LabelStudioOptions
from data_prep.sources.source import Found
from lensmith.cli.main import main
from lensmith.sample import Sample
from tests.conftest import ROOT
from tests.data_prep.canonical import parse_line

RECIPE = ROOT / "recipes/bank_forms/qwen3_vl_tiny_lora.yaml"

Handed = tuple[Path, list[Planted]]


@pytest.fixture(scope="module")
def handed_over(tmp_path_factory: pytest.TempPathFactory) -> Handed:
    out = tmp_path_factory.mktemp("handed") / "forms"
    return out, make_bank_forms(out, forms=80, customers=20, seed=17)


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


@pytest.mark.slow
def test_the_recipe_makes_the_same_dataset_of_both(
    handed_over: Handed, tmp_path: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = handed_over
    told: list[dict[str, Any]] = []
    for given in (["labels.jsonl"], ["export.json", "-s", f"data.options={json.dumps(OPTIONS)}"]):
        capsys.readouterr()
        source = ["-s", f"base.path={tiny_base}", "-s", f"data.source={out / given[0]}", *given[1:]]
        # Nine of a hundred rows are planted flaws, more than the recipe takes of so few.
        command = ["prepare", str(RECIPE), *source, "-s", "data.max_bad=0.3", "--json"]
        assert main([*command, "--home", str(tmp_path / "home")]) == 0
        told.append(json.loads(capsys.readouterr().out))
    lines, export = told
    assert (lines["dataset"], lines["held_out"]) == (export["dataset"], export["held_out"])
    assert [each["sources"][0]["format"] for each in told] == ["lensmith", "label_studio"]
    assert lines["intake"] != export["intake"]
    assert lines["refused"]["by_reason"]["not_json"] == export["refused"]["by_reason"]["unlabelled"] == 2


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
