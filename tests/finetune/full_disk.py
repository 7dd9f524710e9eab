"""Lets `scripts/train.py`, and `lensmith train`, run out of disk in a save; with space each goes on.

PYTHONPATH=.:scripts python tests/finetune/full_disk.py RECIPE HOME SCRATCH DISK

RECIPE's base and data are prepared in HOME; DISK is a small file system of its own. Writes a line of JSON for
the undisturbed run, and one for each time that the disk was full.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from finetune.checkpoint import last_whole
from tests.finetune.killed_saves import FIRST, load, result, start

# Of a checkpoint's size, what is left on the disk when the second one is saved.
SHARES = (0.1, 0.5, 0.9)


def kill_before(words: str) -> Callable[[str], None]:
    """Ends the process without a word where it comes to a file of such a name."""

    def at(name: str) -> None:
        if words in name:
            os.kill(os.getpid(), signal.SIGKILL)

    return at


def fill(disk: Path, left: int) -> Path:
    """A file that leaves `left` bytes."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free - left)
    return ballast


def main(recipe: Path, prepared: Path, scratch: Path, disk: Path) -> None:
    load(recipe, prepared)
    log = scratch / "log"
    unbroken, begun, ended = (Path(shutil.copytree(prepared, scratch / name)) for name in ("u", "b", "e"))
    assert start(recipe, unbroken, log) == 0, log.read_text()
    print(json.dumps({"id": result(unbroken)}), flush=True)
    assert start(recipe, begun, log, kill_before(FIRST)) == -signal.SIGKILL, log.read_text()
    assert start(recipe, ended, log, kill_before("artifacts/run")) == -signal.SIGKILL, log.read_text()
    size = sum(each.stat().st_size for each in begun.glob("work/*/checkpoint-1/*"))
    home = disk / "home"

    def full(left: int, of: Path, run: Callable[[], int]) -> None:
        shutil.copytree(of, home)
        ballast = fill(disk, left)
        log.write_bytes(b"")
        code, said = run(), log.read_text()
        steps = [found[1].step for work in home.glob("work/*") if (found := last_whole(work))]
        told = {"left": left, "size": size, "code": code, "said": said[-3000:], "steps": steps}
        ballast.unlink()
        again = start(recipe, home, log)
        print(json.dumps({**told, "again": again, "id": result(home)}), flush=True)
        shutil.rmtree(home)

    def typed() -> int:
        words = [str(Path(sys.executable).with_name("lensmith")), "train", str(recipe), "--home", str(home)]
        with log.open("ab") as out:
            return subprocess.run(words, stdout=out, stderr=out, check=False).returncode

    for share in SHARES:
        full(round(size * share), begun, lambda: start(recipe, home, log))
    full(4096, ended, lambda: start(recipe, home, log))
    full(round(size * SHARES[0]), begun, typed)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
