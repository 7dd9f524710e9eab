"""From the command line: a run is merged with another run and an outside adapter, proven and verified."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lensmith.adapter_files import ADAPTER_WEIGHTS
from lensmith.base import pin_base
from lensmith.home import Home
from lensmith.recipe import load_recipe
from tests.artifacts import make_run
from tests.e2e.command import Command, run

pytestmark = [pytest.mark.slow, pytest.mark.e2e]
PROVEN = {"combination", "adapter", "adapter_1", "adapter_2", "weights", "loaded", "files", "logits"}


@pytest.fixture(scope="module")
def home(unbroken: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One in which the recipe's run is trained already."""
    return Path(shutil.copytree(unbroken, tmp_path_factory.mktemp("combined") / "home"))


def asked(verb: str, arguments: list[str], home: Path, *settings: str) -> Command:
    given = [word for each in settings for word in ("-s", each)]
    return run([verb, arguments[1], "--home", str(home), "--json", *given])


def merge_of(method: str, *adapters: dict[str, Any], **more: Any) -> str:
    return f"merge={json.dumps({'method': method, 'adapters': adapters} | more)}"


def test_a_run_is_merged_with_others(arguments: list[str], home: Path, outside: Path) -> None:
    held = Home(home)
    second = make_run(held, pin_base(load_recipe(Path(arguments[1])), held), ("language",), seed=2)
    other = {"run": second.short, "weight": 0.5}
    setting = merge_of("ties", other, {"path": str(outside), "weight": 0.3}, density=0.5, weight=0.7)

    merged = asked("merge", arguments, home, setting)
    assert merged.process.returncode == 0, merged.err
    model = held.by_id(json.loads("".join(merged.out))["id"])
    assert model.body["combination"] == {
        "method": "ties",
        "weights": [0.7, 0.5, 0.3],
        "density": 0.5,
        "seed": None,
    }
    assert set(model.manifest.inputs) == {"base", "run", "adapter_1", "adapter_2"}
    taken_in = held.by_id(model.manifest.inputs["adapter_2"])
    assert (taken_in.kind, taken_in.body["tensors"]) == ("adapter", 52)
    shown = run(["show", model.short, "--home", str(home), "--json"])
    (proof,) = json.loads("".join(shown.out))["attestations"]
    assert proof["passed"]
    assert proof["statement"].keys() >= PROVEN

    verified = run(["verify", model.short, "--home", str(home)])
    assert verified.process.returncode == 0, verified.err
    assert taken_in.short in "".join(verified.out)
    refused = run(["unmerge", model.short, "--home", str(home)])
    assert refused.process.returncode == 2
    assert "rounding lost the base's bits" in refused.err
    assert f"{load_recipe(Path(arguments[1])).base.path}: its base is base-" in refused.err

    # What was merged with it is watched over too.
    with (taken_in.path / ADAPTER_WEIGHTS).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    assert run(["verify", model.short, "--home", str(home)]).process.returncode == 4


def test_the_same_run_is_not_merged_with_itself(arguments: list[str], unbroken: Path, home: Path) -> None:
    (own,) = Home(unbroken).all("run")
    refused = asked("merge", arguments, home, merge_of("linear", {"run": own.short, "weight": 1.0}))
    assert refused.process.returncode == 2
    assert f"{own.short} has the tensors of {own.short}" in refused.err


def test_what_is_not_there_is_told_before_anything_is_done(arguments: list[str], tmp_path: Path) -> None:
    setting = merge_of("linear", {"run": "run-123456", "weight": 1.0}, {"path": "nowhere", "weight": 1.0})
    for verb in ("plan", "merge"):
        refused = asked(verb, arguments, tmp_path / verb, setting)
        assert refused.process.returncode == 2
        assert "merge.adapters.0 (run-123456): 'run-123456' names no artifact" in refused.err
        assert "merge.adapters.1 (nowhere): holds no adapter" in refused.err
        assert not Home(tmp_path / verb).all("dataset")
