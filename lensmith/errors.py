"""The errors Lensmith raises on purpose. Only the command line turns them into exit codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: what it is, where it stands, and how to mend it."""

    what: str
    where: str = ""
    mend: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text} ({self.mend})" if self.mend else text


class LensmithError(Exception):
    """Base of all errors that a user can act on; carries every problem found, not the first."""

    exit_code = 1

    def __init__(self, summary: str, problems: Sequence[Problem] = ()) -> None:
        self.summary = summary
        self.problems = tuple(problems)
        super().__init__(summary)

    def __str__(self) -> str:
        return "\n".join([self.summary, *(f"  - {problem}" for problem in self.problems)])


class InputError(LensmithError):
    """What the user gave (recipe, data, base, machine) cannot be used as it is."""

    exit_code = 2


class GateRefused(LensmithError):
    """A proof or a gate said no; nothing was promoted."""

    exit_code = 3


class IntegrityError(LensmithError):
    """Bytes on disk are not what their manifest says."""

    exit_code = 4


class StoppedEarly(LensmithError):
    """Told to stop before the end, and all that was done is kept: no failure. The same start goes on."""

    exit_code = 0
