"""The verbs around a finished run, through the real command line."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import pytest

from lensmith.home import Home
from tests.e2e.command import run

pytestmark = [pytest.mark.slow, pytest.mark.vllm, pytest.mark.e2e]
DECISION = ("--who", "ada", "--why", "a test")


@pytest.fixture
def copied(unbroken: Path, tmp_path: Path) -> Path:
    """A home that a test may change."""
    return Path(shutil.copytree(unbroken, tmp_path / "home"))


def out(*arguments: str) -> str:
    """Stdout of a command that must succeed."""
    command = run(arguments)
    assert command.process.returncode == 0, command.err
    return "".join(command.out)


def release_of(home: Path) -> str:
    """The only release there."""
    return Home(home).all("release")[0].short


def test_second_run_changes_nothing(arguments: list[str], unbroken: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in unbroken.rglob("*") if path.is_file()}
    command = run([*arguments, "--home", str(unbroken)])
    assert command.process.returncode == 0, command.err
    assert "made in" not in command.err
    after = {path: path.stat().st_mtime_ns for path in unbroken.rglob("*") if path.is_file()}
    changed = {path.relative_to(unbroken).as_posix() for path in before if before[path] != after.get(path)}
    assert after.keys() == before.keys()
    assert {name for name in changed if not name.startswith("locks/")} == set()


def test_run_ends_with_the_table(arguments: list[str], unbroken: Path) -> None:
    text = out(*arguments, "--home", str(unbroken))
    for expected in ("rows refused", "field F1", "merge proof", "serve proof", "passed", "lensmith serve"):
        assert expected in text


def test_run_as_json(arguments: list[str], unbroken: Path) -> None:
    summary = json.loads(out(*arguments, "--home", str(unbroken), "--json"))
    assert [proof["passed"] for proof in summary["proofs"]] == [True, True]
    assert summary["promoted"] is None
    assert Path(summary["pages"]["evaluation"]).is_file()


def test_every_artifact_lists_shows_and_verifies(unbroken: Path) -> None:
    listed = json.loads(out("list", "--home", str(unbroken), "--json"))["artifacts"]
    assert len(listed) >= 9
    for each in listed:
        shown = out("show", f"{each['kind']}-{each['id'][:12]}", "--home", str(unbroken))
        assert each["id"] in shown
    assert "is whole" in out("verify", release_of(unbroken), "--home", str(unbroken))


def test_diff_names_what_two_profiles_serve(unbroken: Path) -> None:
    home = Home(unbroken)
    base, model = sorted(home.all("profile"), key=lambda profile: profile.body["mode"])
    assert (base.body["mode"], model.body["mode"]) == ("base", "merged")
    lines = out("diff", base.short, model.short, "--home", str(unbroken)).splitlines()
    (subject,) = [line for line in lines if line.startswith("subject ")]
    assert base.body["subject"][:12] in subject
    assert model.body["subject"][:12] in subject
    assert not any(line.startswith("dtype ") for line in lines), "what they share is not said"


def test_plan_and_preview(arguments: list[str], unbroken: Path, tmp_path: Path) -> None:
    plan = out("plan", arguments[1], "--home", str(unbroken))
    assert "to do" not in plan
    assert "trained, vision" in plan
    page = tmp_path / "page.html"
    preview = out("preview", arguments[1], "--home", str(unbroken), "--rows", "1", "--page", str(page))
    assert "<|image_pad|>" in preview
    assert "▶{" in preview, "the answer carries loss"
    assert "<mark>" in page.read_text()


def test_plan_leaves_nothing(arguments: list[str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert "to do" in out("plan", arguments[1], "--home", str(home))
    assert not any(home.iterdir())


def test_a_changed_weight_fails_verification(copied: Path) -> None:
    weights = next((copied / "artifacts/model").glob("*/model.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    command = run(["verify", release_of(copied), "--home", str(copied)])
    assert command.process.returncode == 4
    assert "model.safetensors" in command.err


def test_production_is_refused_without_a_gain_and_staging_is_not(copied: Path) -> None:
    home = ("--home", str(copied))
    command = run(["promote", release_of(copied), "--to", "production", *DECISION, *home])
    assert command.process.returncode == 3, command.err
    assert "gain" in command.err
    assert "is now" in out("promote", release_of(copied), "--to", "staging", *DECISION, *home)
    assert "ada" in out("log", *home)
    assert run(["rollback", "bank-forms@staging", *DECISION, *home]).process.returncode == 2
    assert release_of(copied).split("-")[1] in out("show", "bank-forms@staging", *home)


def test_a_port_that_is_taken_is_named(unbroken: Path) -> None:
    """What it does on a free one: the demo, and adapters that are live."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = run(["serve", release_of(unbroken), "--port", port, "--home", str(unbroken)])
    assert refused.process.returncode == 2
    assert port in refused.err
