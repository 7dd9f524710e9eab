"""One undisturbed run of the small recipe, shared by everything that looks at its home."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import shared_folder, write_recipe
from tests.e2e.command import run


@pytest.fixture(scope="session")
def arguments(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, bank_forms: Path) -> list[str]:
    """The command line that makes everything: lensmith run RECIPE."""
    recipe = write_recipe(tmp_path_factory.mktemp("recipe") / "recipe.yaml", tiny_base, bank_forms)
    return ["run", str(recipe)]


@pytest.fixture(scope="session")
def unbroken(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a run that nobody disturbed, one for all workers: a test that changes a home copies it."""

    def make(folder: Path) -> None:
        command = run([*arguments, "--home", str(folder / "home")])
        assert command.process.returncode == 0, command.err
        assert command.survivors() == []

    return shared_folder(tmp_path_factory, "unbroken", make) / "home"
