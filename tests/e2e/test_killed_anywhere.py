"""Killed anywhere, the same command finishes, under the same keys; nothing half and no child is left.

One home is killed wherever a file gets its name and at random moments of the whole: a run has to be walked
through once for each home.
"""

from __future__ import annotations

import random
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from lensmith.artifact import KINDS
from tests.e2e.aftermath import assert_dead, assert_nothing_half, keys
from tests.e2e.command import Command, kill_at_renames, start

pytestmark = [pytest.mark.slow, pytest.mark.vllm, pytest.mark.e2e]

# What takes time in a run.
LONG = {"prepare", "train", "merge", "merge proof", "trace", "reference", "trace of the baseline"}
SEED = 9
RANDOM_KILLS = 20
# Made by recipes that merge others' adapters in, and by `lensmith loadtest`.
OF_OTHERS = {"adapter", "loadtest"}


@dataclass
class Killed:
    """A command that is killed again and again on one home, first of all at each rename not `seen` before."""

    arguments: list[str]
    home: Path
    environment: Mapping[str, str]
    seen: Path
    kills: int = 0

    def places(self) -> int:
        """How many renames it was killed at."""
        return len(self.seen.read_text().splitlines()) if self.seen.is_file() else 0

    def killed_in(self, stages: Sequence[str], seconds: float) -> Command:
        """Kill it so long after it begins with the first of `stages` that is not done, as soon as no rename
        comes before."""
        while True:
            command = start([*self.arguments, "--home", str(self.home)], self.environment)
            if command.wait_for_line(*(f"  {stage} ..." for stage in stages)):
                wait(command, seconds)
                command.signal_group(signal.SIGKILL)
            if not self.was_at_rename(command):
                return command

    def finished(self) -> Command:
        """Give the command until it is killed no more."""
        while True:
            command = start([*self.arguments, "--home", str(self.home)], self.environment)
            if not self.was_at_rename(command):
                return command

    def was_at_rename(self, command: Command) -> bool:
        """Whether that is what ended it; nothing is half and nobody is left, whatever it was."""
        code = command.wait()
        assert_dead(command)
        assert_nothing_half(self.home)
        if self.places() == self.kills:
            return False
        self.kills += 1
        assert self.kills == self.places(), "killed once at each place"
        assert code == -signal.SIGKILL, command.err
        return True


def wait(command: Command, seconds: float) -> None:
    """So long, or until the command has ended."""
    try:
        command.process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def stages(told: str) -> dict[str, float]:
    """The stages that an undisturbed run told of, in order, and the seconds that each took."""
    found = re.findall(r"^  (\S.*?)  +\S+ +(?:made )?in ([\d.]+) s$", told, re.MULTILINE)
    assert {stage for stage, _ in found} >= LONG, told
    return {stage: float(seconds) for stage, seconds in found}


def test_killed_anywhere_it_finishes(
    arguments: list[str], unbroken: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    hook = tmp_path_factory.mktemp("hook")
    home = tmp_path_factory.mktemp("killed") / "home"
    killed = Killed(arguments, home, kill_at_renames(hook, home), hook / "seen")
    took = stages((unbroken.parent / "stderr").read_text())
    moments = random.Random(SEED)
    kills = sorted(moments.uniform(0, sum(took.values())) for _ in range(RANDOM_KILLS))
    begun, hits = 0.0, 0
    for number, seconds in enumerate(took.values()):
        while kills and kills[0] < begun + seconds:
            command = killed.killed_in(list(took)[number:], kills.pop(0) - begun)
            hits += command.process.returncode == -signal.SIGKILL
        begun += seconds
    assert not kills
    # A run that is quicker than the undisturbed was may end before the last moments.
    assert hits >= RANDOM_KILLS * 3 // 4
    command = killed.finished()
    assert command.process.returncode == 0, command.err
    places = killed.seen.read_text()
    for kind in set(KINDS) - OF_OTHERS:
        assert f"artifacts/{kind}/" in places, f"no kill while a {kind} was written:\n{places}"
    assert keys(home) == keys(unbroken)
