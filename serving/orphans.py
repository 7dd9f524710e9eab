"""Engines that killed servers left: they end by themselves, and hold port and memory until then."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from lensmith.errors import InputError, Problem
from lensmith.process import ORPHAN_GRACE_S, stated_owner
from serving.api_server import PROGRAM

# The supervisor gives the engine `ORPHAN_GRACE_S` to end, and what is then left as long again at most.
LIMIT_S = 2 * ORPHAN_GRACE_S + 10.0
_POLL_S = 0.2
_ENGINE = str(Path(*PROGRAM.parts[-2:]))


def wait_for_orphans(limit_s: float = LIMIT_S) -> None:
    """Wait until the engines have ended whose servers were killed: this account's, whatever their port.

    Says so where there are any. Raises InputError where one is still there after `limit_s` seconds.
    """
    left = find_orphans()
    if not left:
        return
    names = ", ".join(str(each.pid) for each in left)
    print(f"waiting for what a killed server left to end: process {names}", file=sys.stderr, flush=True)
    deadline = time.monotonic() + limit_s
    while left := [each for each in left if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]:
        if time.monotonic() > deadline:
            raise InputError(
                "the engine of a server that was killed does not end",
                [_still_there(each) for each in left],
            )
        time.sleep(_POLL_S)


def is_engine(command: Sequence[str]) -> bool:
    """Whether a command line is, or is to start, vLLM as we start it."""
    return any(word.endswith(_ENGINE) for word in command)


def find_orphans() -> list[psutil.Process]:
    """The supervisors of engines whose servers are not above them any more."""
    found: list[psutil.Process] = []
    for each in psutil.process_iter():
        try:
            command = each.cmdline()
            owner = stated_owner(command)
            if owner is None or not is_engine(command) or each.uids().real != os.getuid():
                continue
            if each.ppid() != owner and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
        except psutil.Error:
            continue
    return found


def _still_there(supervisor: psutil.Process) -> Problem:
    try:
        family = [supervisor, *supervisor.children(recursive=True)]
    except psutil.NoSuchProcess:
        family = [supervisor]
    pids = " ".join(str(each.pid) for each in family)
    return Problem(f"it is process {supervisor.pid}, with what it started", mend=f"kill -9 {pids}")
