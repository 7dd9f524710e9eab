"""The demo itself: it learns, it is proven, it is promoted, it serves, and it leaves nothing running."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lensmith.dataset import read_held_out, read_split
from lensmith.home import Home
from lensmith.report import read_report
from tests.e2e.command import MARK, ROOT, run, survivors_of

pytestmark = [pytest.mark.slow, pytest.mark.vllm, pytest.mark.e2e]
RECIPE = "recipes/bank_forms/qwen3_vl_tiny_lora.yaml"
PROMOTION = ("--promote", "production", "--who", "demo", "--why", "again")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of one walk of scripts/demo.py; forms and base are taken from ./workspace where they are."""
    home = tmp_path_factory.mktemp("demo") / "home"
    mark = f"demo-{os.getpid()}"
    done = subprocess.run(
        [sys.executable, "scripts/demo.py", "--home", str(home)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), MARK: mark},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert survivors_of(mark) == []
    (home / "printed.txt").write_text(done.stdout)
    (home / "progress.txt").write_text(done.stderr)
    return home


def test_it_learns(home: Path) -> None:
    report = read_report(Home(home).all("report")[-1])
    comparison = report.comparison
    assert comparison is not None
    assert report.rows >= 200
    assert report.groups >= 50
    assert comparison.scores["field_f1"].value <= 0.3
    assert report.scores["field_f1"].value >= 0.9
    gain = comparison.differences["field_f1"].interval
    assert gain is not None
    assert gain.lower > 0


def test_it_says_what_it_did(home: Path) -> None:
    # Runs of spaces align the table; how many depends on its longest row.
    printed = " ".join((home / "printed.txt").read_text().split())
    for expected in (
        "rows refused",
        "field F1",
        "merge proof passed: 104 of 104 tensors bit-equal, 92 adapter tensors used once, logits",
        "serve proof passed: 64 of 64 rows equal token by token, transformers",
        "answers unlike the base's",
        "evaluation page",
        "lensmith serve bank-forms@production",
    ):
        assert expected in printed
    assert "vLLM answers" in (home / "progress.txt").read_text()


def test_held_out_digits_were_never_seen(home: Path) -> None:
    """Held-out forms share no source digit image with train or validation."""
    opened = Home(home)
    dataset, held_out = opened.all("dataset")[0], opened.all("held_out")[0]

    def digits(rows) -> set[int]:  # type: ignore[no-untyped-def]
        return {digit for row in rows for digit in row.sample.meta["digit_sources"]}

    learned = digits(read_split(dataset, "train")) | digits(read_split(dataset, "validation"))
    examined = digits(read_held_out(opened, held_out, "a test of the demo"))
    assert len(examined) > 500
    assert learned.isdisjoint(examined)


def test_a_second_run_makes_nothing(home: Path) -> None:
    before = len(Home(home).all())
    command = run(["run", RECIPE, "--home", str(home), "--json", *PROMOTION])
    assert command.process.returncode == 0, command.err
    assert "made in" not in command.err
    assert len(Home(home).all()) == before
    assert json.loads("".join(command.out))["promoted"]["why"] != "again", "the first promotion stands"


def test_production_verifies_back_to_the_rows(home: Path) -> None:
    command = run(["verify", "bank-forms@production", "--home", str(home)])
    assert command.process.returncode == 0, command.err
    for kind in ("release", "profile", "model", "run", "base", "intake", "dataset", "held_out"):
        assert f"  {kind}-" in "".join(command.out)
