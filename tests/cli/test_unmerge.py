"""lensmith unmerge: no base is made of merged weights; where it lies is told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lensmith.artifact import Artifact
from lensmith.cli.main import main
from lensmith.home import Home


def merged(home: Home, checkpoint: Path) -> Artifact:
    """What a merge leaves of itself, as far as it is asked here."""
    with home.create("base", "b" * 24, {}) as base:
        base.body.update(revision="0c35")
        base.record.update(place=str(checkpoint))
    with home.create("model", "m" * 24, {"base": base.artifact}) as draft:
        (draft.path / "config.json").write_text("{}")
        draft.body.update(dtype="bfloat16", tensors_changed=1234)
    return draft.artifact


def refusal(home: Home, model: Artifact, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["unmerge", model.short, "--home", str(home.root)]) == 2
    return capsys.readouterr().err


def test_why_and_where_the_base_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home, checkpoint = Home(tmp_path / "home"), tmp_path / "models/base"
    model = merged(home, checkpoint)
    gone = refusal(home, model, capsys)
    assert "each weight of 1,234 tensors was rounded to bfloat16" in gone
    assert f"revision 0c35, and no longer at {checkpoint}" in gone
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"")
    assert f"{checkpoint}: its base is base-" in refusal(home, model, capsys)


def test_a_base_that_another_home_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model is pushed and pulled without its base, and a base never."""
    home, other = Home(tmp_path / "home"), Home(tmp_path / "other")
    model = merged(home, tmp_path / "base")
    shutil.copytree(model.path, other.artifact_path("model", model.manifest.key))
    told = refusal(other, model, capsys)
    assert f"is not in {other.root}" in told
    assert "lensmith pull" not in told


def test_what_was_not_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = Home(tmp_path / "home")
    merged(home, tmp_path / "base")
    assert "is no merged model" in refusal(home, home.all("base")[0], capsys)
