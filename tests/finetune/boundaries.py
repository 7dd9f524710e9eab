"""The file boundaries of a save: between them stands what a process that is killed has written."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import safetensors.torch
import torch

WRITES = re.compile("[wax+]")


class Boundaries:
    """Calls `at` with a name before each change of a file below `home`, the first one whose name has `first`
    and all that follow; in the middle of tensor files, too, which are written outside Python."""

    def __init__(self, home: Path, first: str, at: Callable[[str], None]) -> None:
        self.home = home.resolve()
        self.first = first
        self.at = at
        self.counted = self.own = self.ended = False

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """While they are told."""
        sys.addaudithook(self._audit)
        try:
            with (
                patch.object(torch, "save", self._whole(torch.save, 1)),
                patch.object(
                    safetensors.torch, "serialize_file", self._whole(safetensors.torch.serialize_file, 1)
                ),
            ):
                yield
        finally:
            # Such a hook stays for good.
            self.ended = True

    def _audit(self, event: str, given: tuple[Any, ...]) -> None:
        if self.own or self.ended:
            return
        if event == "open":
            path, mode, flags = given
            writes = WRITES.search(mode) if mode else flags & (os.O_WRONLY | os.O_RDWR)
            if isinstance(path, (str, os.PathLike)) and writes:
                self._tell("write", os.fspath(path))
        elif event == "os.rename":
            self._tell("rename", given[1], given[3])
        elif event in ("os.remove", "os.rmdir"):
            self._tell(event.removeprefix("os."), given[0], given[1])
        elif event == "os.mkdir":
            self._tell("mkdir", given[0], given[2])

    def _whole(self, write: Callable[..., Any], at: int) -> Callable[..., Any]:
        def writing(*given: Any, **rest: Any) -> Any:
            path = Path(given[at])
            self._tell("write", path)
            done = write(*given, **rest)
            whole = path.read_bytes()
            os.truncate(path, len(whole) // 2)
            self._tell("half", path)
            self.own = True
            path.write_bytes(whole)
            self.own = False
            return done

        return writing

    def _tell(self, what: str, path: Any, folder: int = -1) -> None:
        root = Path(f"/proc/self/fd/{folder}").readlink() if folder >= 0 else Path.cwd()
        place = Path(os.path.normpath(root / os.fsdecode(path)))
        if not place.is_relative_to(self.home):
            return
        name = place.relative_to(self.home).as_posix()
        self.counted = self.counted or self.first in name
        if self.counted:
            self.at(f"{what} {re.sub(r'[0-9a-f]{12,}|(?<=[.])[0-9]+(?=[.]tmp)', '*', name)}")
