"""Killed wherever a file gets its name, the same command finishes, under the same keys."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from lensmith.artifact import KINDS
from tests.e2e.aftermath import assert_dead, assert_nothing_half, keys
from tests.e2e.command import kill_at_renames, run

pytestmark = [pytest.mark.slow, pytest.mark.vllm, pytest.mark.e2e]

# Made by recipes that merge others' adapters in, and by `lensmith loadtest`.
OF_OTHERS = {"adapter", "loadtest"}


def test_killed_at_every_rename(
    arguments: list[str], unbroken: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("renames") / "home"
    hook = tmp_path_factory.mktemp("hook")
    seen, environment = hook / "seen", kill_at_renames(hook, home)
    kills = 0
    while True:
        command = run([*arguments, "--home", str(home)], environment)
        assert_dead(command)
        assert_nothing_half(home)
        if command.process.returncode == 0:
            break
        assert command.process.returncode == -signal.SIGKILL, command.err
        kills += 1
        assert kills == len(seen.read_text().splitlines()), "killed once at each place"
    places = seen.read_text()
    for kind in set(KINDS) - OF_OTHERS:
        assert f"artifacts/{kind}/" in places, f"no kill while a {kind} was written:\n{places}"
    assert keys(home) == keys(unbroken)
