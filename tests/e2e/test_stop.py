"""Ctrl-C in every stage: a clean stop, and the same command goes on."""

from __future__ import annotations

import signal
import time

import pytest

from tests.e2e.aftermath import assert_dead, assert_nothing_half
from tests.e2e.command import run, start

# A stage's line on stderr, and how the next Ctrl-C finds it under way.
STAGES = ("prepare", "train", "merge", "merge proof", "trace", "reference", "report", "release")
QUICK = ("report", "release")

pytestmark = [pytest.mark.slow, pytest.mark.vllm, pytest.mark.e2e]


def test_ctrl_c_in_every_stage(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("ctrl-c") / "home"
    for stage in STAGES:
        command = start([*arguments, "--home", str(home)])
        assert command.wait_for_line(f"  {stage} ..."), command.err
        time.sleep(0 if stage in QUICK else 0.3)
        command.signal_group(signal.SIGINT)
        code = command.wait(60)
        assert_dead(command)
        assert_nothing_half(home)
        if stage in QUICK and code == 0:
            # It takes a tenth of a second, and so does the rest: the signal may come when all is done.
            continue
        assert code == 130, f"{stage}: {code}\n{command.err}"
        assert "Traceback" not in command.err, command.err
        assert "stopped; the same command, given again, finishes it" in command.err
    command = run([*arguments, "--home", str(home)])
    assert command.process.returncode == 0, command.err
