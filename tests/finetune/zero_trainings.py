"""Run by accelerate launch on two processes: trainings one after the other, each by its own DeepSpeed config.

PYTHONPATH=.:scripts accelerate launch --config_file CONFIG tests/finetune/zero_trainings.py OUT CASE...

A CASE is NAME:RECIPE:HOME, what scripts/train.py is given. What accelerate would tell its processes of the
recipe's launcher config, its own functions say. Process N writes the error that ended a case, or null, to
OUT/NAME.N.json.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from lensmith.left_out import UNUSED, leave_out

# Before anything looks for them, as scripts/train.py does.
leave_out(*UNUSED)

import train  # noqa: E402
from accelerate.commands import launch  # noqa: E402
from accelerate.state import AcceleratorState  # noqa: E402
from accelerate.utils.launch import prepare_deepspeed_cmd_env  # noqa: E402
from transformers.integrations.deepspeed import unset_hf_deepspeed_config  # noqa: E402

from finetune.ending import leave  # noqa: E402
from lensmith.errors import LensmithError  # noqa: E402
from lensmith.home import Home  # noqa: E402
from lensmith.large_imports import QuickExit  # noqa: E402
from lensmith.recipe import load_recipe  # noqa: E402

OWN = "ACCELERATE_"


def environment(config: Path) -> dict[str, str]:
    """The variables of the environment that tell accelerate's processes of a launcher config."""
    arguments = ["--config_file", str(config), "--main_process_port", "0", "train.py"]
    started: list[Any] = []
    with patch.object(launch, "deepspeed_launcher", started.append):
        launch.launch_command(launch.launch_command_parser().parse_args(arguments))
    _, told = prepare_deepspeed_cmd_env(*started)
    return {name: value for name, value in told.items() if name.startswith(OWN)}


def main(out: Path, cases: list[str]) -> None:
    """Train each case."""
    rank = os.environ["RANK"]
    # The first config's: each case has its own, and nothing of another's.
    for name in [each for each in os.environ if each.startswith(OWN)]:
        del os.environ[name]
    for case in cases:
        name, recipe, home = case.split(":")
        error, began = None, time.monotonic()
        AcceleratorState._reset_state(reset_partial_state=True)
        unset_hf_deepspeed_config()
        with patch.dict(os.environ, environment(load_recipe(Path(recipe)).train.launcher)):
            try:
                train.train(Path(recipe), [], Home(Path(home)))
            except LensmithError as caught:
                error = str(caught)
        print(name, rank, "took", time.monotonic() - began, flush=True)
        (out / f"{name}.{rank}.json").write_text(json.dumps(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
    leave(QuickExit(), 0)
