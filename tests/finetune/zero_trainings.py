"""Run by accelerate launch on two processes: trainings one after the other, each by its own DeepSpeed config.

PYTHONPATH=.:scripts accelerate launch --config_file CONFIG tests/finetune/zero_trainings.py OUT CASE...

A CASE is NAME:RECIPE:HOME, what scripts/train.py is given. What accelerate would tell its processes of the
recipe's launcher config, its own functions say. Process N writes the error that ended a case, or null, to
OUT/NAME.N.json. Where there is a case "NAME resumed", it goes on from what a kill in the last save of NAME
leaves, and process N writes what `WatchedSave` was told of that save to OUT/NAME.N.save.json. What its
evaluations were answered is in OUT/NAME.N.said.json.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from lensmith.left_out import UNUSED, leave_out

# Before anything looks for them, as scripts/train.py does.
leave_out(*UNUSED)

import train  # noqa: E402
from accelerate.commands import launch  # noqa: E402
from accelerate.state import AcceleratorState  # noqa: E402
from accelerate.utils import DeepSpeedPlugin  # noqa: E402
from accelerate.utils.launch import prepare_deepspeed_cmd_env  # noqa: E402
from transformers import training_args  # noqa: E402
from transformers.integrations.deepspeed import unset_hf_deepspeed_config  # noqa: E402

import finetune.train  # noqa: E402
from finetune.ending import leave  # noqa: E402
from finetune.launcher import Launcher  # noqa: E402
from finetune.started import engine_facts  # noqa: E402
from finetune.trainer import AnswerTrainer  # noqa: E402
from lensmith.errors import LensmithError  # noqa: E402
from lensmith.home import Home  # noqa: E402
from lensmith.large_imports import QuickExit  # noqa: E402
from lensmith.recipe import load_recipe  # noqa: E402
from tests.finetune.examined import noting  # noqa: E402
from tests.finetune.watched_save import WatchedSave  # noqa: E402

OWN = "ACCELERATE_"
# In elements, the largest tensor that stage 3 leaves whole in every process: norms, biases and adapters, as
# of a model of 8B. By its default it would be every tensor of a tiny one.
WHOLE = 1000


def environment(config: Path) -> dict[str, str]:
    """The variables of the environment that tell accelerate's processes of a launcher config."""
    arguments = ["--config_file", str(config), "--main_process_port", "0", "train.py"]
    started: list[Any] = []
    with patch.object(launch, "deepspeed_launcher", started.append):
        launch.launch_command(launch.launch_command_parser().parse_args(arguments))
    _, told = prepare_deepspeed_cmd_env(*started)
    return {name: value for name, value in told.items() if name.startswith(OWN)}


@contextlib.contextmanager
def matrices_divided() -> Iterator[None]:
    """Stage 3 as it divides a large model."""
    set_up = DeepSpeedPlugin.__post_init__

    def divided(plugin: DeepSpeedPlugin) -> None:
        set_up(plugin)
        zero = plugin.deepspeed_config["zero_optimization"]
        if zero["stage"] == 3:
            zero["stage3_param_persistence_threshold"] = WHOLE

    def seen(trainer: AnswerTrainer, launcher: Launcher) -> dict[str, Any]:
        if launcher.zero_stage == 3:
            assert trainer.model is not None
            parameters: list[Any] = list(trainer.model.parameters())
            assert {each.ds_persist for each in parameters if each.ds_numel > WHOLE} == {False}
        return engine_facts(trainer, launcher)

    with (
        patch.object(DeepSpeedPlugin, "__post_init__", divided),
        patch.object(finetune.train, "engine_facts", seen),
    ):
        yield


def main(out: Path, cases: list[str]) -> None:
    """Train each case."""
    rank = os.environ["RANK"]
    # The first config's: each case has its own, and nothing of another's.
    for name in [each for each in os.environ if each.startswith(OWN)]:
        del os.environ[name]
    given = [case.split(":") for case in cases]
    homes = {name: Home(Path(home)) for name, _, home in given}
    for name, recipe, _ in given:
        error, began = None, time.monotonic()
        killed = homes.get(f"{name} resumed")
        save = WatchedSave(homes[name], killed) if killed else None
        AcceleratorState._reset_state(reset_partial_state=True)
        unset_hf_deepspeed_config()
        with (
            patch.dict(os.environ, environment(load_recipe(Path(recipe)).train.launcher)),
            save.boundaries.watched() if save else contextlib.nullcontext(),
            # Its check is as it is with GPUs.
            patch.object(training_args, "is_torch_bf16_gpu_available", lambda: True),
            noting() as said,
        ):
            try:
                train.train(Path(recipe), [], homes[name])
            except LensmithError as caught:
                error = str(caught)
        print(name, rank, "took", time.monotonic() - began, flush=True)
        (out / f"{name}.{rank}.json").write_text(json.dumps(error))
        (out / f"{name}.{rank}.said.json").write_text(json.dumps(said))
        if save:
            (out / f"{name}.{rank}.save.json").write_text(json.dumps(save.told))


if __name__ == "__main__":
    with matrices_divided():
        main(Path(sys.argv[1]), sys.argv[2:])
    leave(QuickExit(), 0)
