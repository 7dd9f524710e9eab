"""Kills the whole process group just before a rename that was not seen before.

Installed into a command's processes as `sitecustomize`: the product itself has no hook for it. The file
LENSMITH_RENAMES keeps the places seen so far, so that each run gets one rename further.
"""

import os
import re
import signal
from pathlib import Path

_seen_file = Path(os.environ["LENSMITH_RENAMES"])
_root = Path(os.environ["LENSMITH_RENAMES_BELOW"]).resolve()
_rename, _replace = os.rename, os.replace


def _place(target: "str | os.PathLike[str]") -> str:
    relative = Path(target).resolve().relative_to(_root).as_posix()
    return re.sub(r"\d{3,}|[0-9a-f]{12,}", "*", relative)


def _maybe_die(target: "str | os.PathLike[str]") -> None:
    if not Path(target).resolve().is_relative_to(_root):
        return
    place = _place(target)
    with _seen_file.open("a+") as seen:
        seen.seek(0)
        if place in seen.read().splitlines():
            return
        seen.write(place + "\n")
        seen.flush()
        os.fsync(seen.fileno())
    os.killpg(0, signal.SIGKILL)


def _dying_rename(source, target, **rest):  # type: ignore[no-untyped-def]
    _maybe_die(target)
    return _rename(source, target, **rest)


def _dying_replace(source, target, **rest):  # type: ignore[no-untyped-def]
    _maybe_die(target)
    return _replace(source, target, **rest)


os.rename, os.replace = _dying_rename, _dying_replace
