"""The trainer's settings that follow from the launcher."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.arguments import training_arguments
from finetune.launcher import read_launcher
from lensmith.recipe import load_recipe
from tests.conftest import ROOT, RecipeMaker

LAUNCHERS = sorted((ROOT / "recipes/accelerate").glob("*.yaml"))


@pytest.mark.parametrize("path", LAUNCHERS, ids=lambda path: path.stem)
def test_rows_are_decoded_beside_the_steps_on_gpus(
    make_recipe: RecipeMaker, tmp_path: Path, path: Path
) -> None:
    """Without workers a GPU waits for every picture; on a CPU they would take the model's cores."""
    launcher = read_launcher(path)
    made = training_arguments(load_recipe(make_recipe()), launcher, tmp_path)
    assert (made.dataloader_num_workers > 1) is not launcher.cpu
    # What a worker holds open would be opened anew in each epoch.
    assert made.dataloader_persistent_workers is not launcher.cpu
    assert made.dataloader_pin_memory is not launcher.cpu
