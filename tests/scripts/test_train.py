"""scripts/train.py: what is missing is said at once, before anything heavy is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.launch import ERROR_FILE, RUN_KEY
from lensmith.errors import InputError, IntegrityError
from lensmith.failure import read_failure
from lensmith.process import LAUNCHED_BY
from lensmith.recipe import load_recipe
from scripts.train import unused
from tests.conftest import ROOT, RecipeMaker

SCRIPT = ROOT / "scripts" / "train.py"


def run(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "importtime", str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def imported(done: subprocess.CompletedProcess[str]) -> set[str]:
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}


def test_it_ends_at_once_where_its_launcher_is_gone(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    arguments = [str(make_recipe()), "--home", str(tmp_path / "home")]
    done = run(arguments, **{LAUNCHED_BY: str(gone.pid)})
    assert done.returncode == 143
    assert "lensmith.process" in imported(done)
    assert not {"pydantic", "yaml", "tqdm", "finetune", "data_prep"} & imported(done)
    assert "has no dataset for" in run(arguments, **{LAUNCHED_BY: str(os.getpid())}).stderr


def test_unprepared_data(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    recipe, error = make_recipe(), tmp_path / "error.json"
    done = run([str(recipe), "--home", str(tmp_path / "home")], LENSMITH_ERROR_FILE=str(error))
    assert done.returncode == 2
    assert "has no dataset for" in done.stderr
    assert f"lensmith prepare {recipe} --home {tmp_path / 'home'}" in done.stderr
    assert "Traceback" not in done.stderr
    assert "torch" not in imported(done)
    left = read_failure(error)
    assert type(left) is InputError
    assert "has no dataset for" in left.summary


def test_data_of_another_code(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """What launched it had prepared its data; by the code as it is now, nothing is prepared."""
    error = tmp_path / "error.json"
    environment = {RUN_KEY: "1" * 64, ERROR_FILE: str(error)}
    done = run([str(make_recipe()), "--home", str(tmp_path / "home")], **environment)
    assert done.returncode == 4
    left = read_failure(error)
    assert type(left) is IntegrityError
    assert "launched for key 111111111111, finds data that is not prepared (run it again)" in str(left)


def test_wrong_recipe(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    done = run([str(make_recipe()), "--home", str(tmp_path / "home"), "-s", "train.epoch=2"])
    assert done.returncode == 2
    assert "did you mean 'epochs'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("settings", "left_out"),
    [
        ([], ["sklearn", "scipy", "bitsandbytes"]),
        (["train.wandb=disabled"], ["sklearn", "scipy", "bitsandbytes", "wandb"]),
        (["train.method=qlora", "train.wandb=disabled"], ["sklearn", "scipy", "wandb"]),
    ],
)
def test_what_a_training_leaves_out(
    settings: list[str], left_out: list[str], make_recipe: RecipeMaker
) -> None:
    assert unused(load_recipe(make_recipe(), ["train.wandb=offline", *settings])) == left_out


@pytest.mark.slow
def test_what_is_left_out_nothing_needs() -> None:
    program = "from finetune.train import train_process; import sys; print(*sys.modules)"
    start = "from lensmith.left_out import leave_out; leave_out('sklearn', 'scipy', 'bitsandbytes', 'wandb');"
    done = subprocess.run(
        [sys.executable, "-c", start + program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    modules = set(done.stdout.split())
    assert {"torch", "transformers", "peft", "trl"} <= modules
    # What comes along only with one of them.
    theirs = {"sklearn.utils", "scipy.optimize", "bitsandbytes.nn", "wandb.sdk", "torch._inductor.compile_fx"}
    assert not theirs & modules
