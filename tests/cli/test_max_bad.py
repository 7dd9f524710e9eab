"""--max-bad goes over the recipe, as -s data.max_bad does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lensmith.cli.main import main
from lensmith.home import Home
from tests.conftest import write_recipe
from tests.data_prep.folder import Folder


@pytest.fixture
def recipe(tiny_base: Path, tmp_path: Path) -> Path:
    """Twenty good rows and three that cannot be read; the recipe allows none."""
    folder = Folder(tmp_path / "forms")
    folder.fill(groups=20)
    folder.add(b"{", b"{", b"{")
    folder.write()
    return write_recipe(tmp_path / "recipe.yaml", tiny_base, tmp_path / "forms", data__max_bad=0.0)


@pytest.mark.parametrize(("allowed", "code"), [("3", 0), ("2", 2), ("0.2", 0), ("0.1", 2), ("many", 2)])
def test_prepare(
    recipe: Path, home: Home, allowed: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", str(recipe), "--max-bad", allowed, "--home", str(home.root)]) == code
    assert len(home.all("dataset")) == (0 if code else 1)
    told = capsys.readouterr()
    assert ("max_bad" in told.err) == bool(code)
    if not code:
        (dataset,) = home.all("dataset")
        rows = dataset.body["rows"]
        counted = f"{rows['train']} train, {rows['validation']} validation, {rows['held_out']} held-out"
        assert f"rows    {counted}\n" in told.out
        assert "refused 3 rows: " in told.out
        assert "flagged 0 rows: " in told.out


def test_run(recipe: Path, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(recipe), "--max-bad", "2", "--home", str(home.root)]) == 2
    assert "3 of 23 rows are refused (13.0%), data.max_bad allows 2" in capsys.readouterr().err


def test_it_is_the_recipes_key_and_the_later_holds(
    recipe: Path, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    made = []
    place = ["--home", str(home.root)]
    for settings in (
        ["--max-bad", "5"],
        ["-s", "data.max_bad=5"],
        ["-s", "data.max_bad=1", "--max-bad", "5"],
    ):
        assert main(["prepare", str(recipe), *settings, "--json", *place]) == 0
        made.append(json.loads(capsys.readouterr().out)["dataset"])
    assert len(set(made)) == 1
    assert main(["prepare", str(recipe), "--max-bad", "5", "-s", "data.max_bad=1", *place]) == 2
