"""One undisturbed run of the small recipe, shared by everything that looks at its home."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from lensmith.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lensmith.base import pin_base
from lensmith.home import Home
from lensmith.recipe import load_recipe
from tests.artifacts import make_run
from tests.conftest import shared_folder, write_recipe
from tests.e2e.command import run
from tests.finetune.test_outside_adapters import side_by_side


@pytest.fixture(scope="session")
def arguments(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, bank_forms: Path) -> list[str]:
    """The command line that makes everything: lensmith run RECIPE."""
    recipe = write_recipe(tmp_path_factory.mktemp("recipe") / "recipe.yaml", tiny_base, bank_forms)
    return ["run", str(recipe)]


@pytest.fixture(scope="session")
def outside(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random adapter on all linears, as a tool of the days of transformers 4.51 would have saved it."""
    scratch, target = (tmp_path_factory.mktemp(name) for name in ("scratch", "outside"))
    other = Home(scratch)
    made = make_run(other, pin_base(load_recipe(Path(arguments[1])), other), seed=7, scale=0.1)
    tensors = load_file(made.path / ADAPTER_WEIGHTS)
    save_file({side_by_side(name): each for name, each in tensors.items()}, target / ADAPTER_WEIGHTS)
    shutil.copyfile(made.path / ADAPTER_CONFIG, target / ADAPTER_CONFIG)
    (target / "README.md").write_text("---\nlicense: mit\ndatasets: acme/receipts\n---\n")
    return target


@pytest.fixture(scope="session")
def unbroken(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a run that nobody disturbed, one for all workers: a test that changes a home copies it."""

    def make(folder: Path) -> None:
        command = run([*arguments, "--home", str(folder / "home")])
        assert command.process.returncode == 0, command.err
        assert command.survivors() == []
        (folder / "stderr").write_text(command.err)

    return shared_folder(tmp_path_factory, "unbroken", make) / "home"
