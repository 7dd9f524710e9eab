"""An error of ours as a JSON file: how a child process tells the one that started it what ended it.

`python -m lensmith.failure CODE FILE...` ends with the exit code of the first such file that is there, 130
for what was stopped before its end; with CODE where none is. For shell scripts, whose launchers end with 1
whatever happened, and with 0 where all their processes have saved and stopped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from lensmith.errors import GateRefused, InputError, IntegrityError, LensmithError, Problem, StoppedEarly
from lensmith.files import write_json

_KINDS: dict[int, type[LensmithError]] = {
    each.exit_code: each for each in (LensmithError, InputError, GateRefused, IntegrityError, StoppedEarly)
}
# Of what was stopped, for schedulers: 0 would tell them that it is done.
UNFINISHED = 130


def write_failure(path: Path, error: LensmithError) -> None:
    """Leave `error` at `path`, whole or not at all."""
    problems = [[problem.what, problem.where, problem.mend] for problem in error.problems]
    write_json(path, {"exit_code": error.exit_code, "summary": error.summary, "problems": problems})


def read_failure(path: Path) -> LensmithError:
    """The error that `write_failure` left at `path`: its class in lensmith/errors.py, by the exit code."""
    content = json.loads(path.read_bytes())
    return _KINDS[content["exit_code"]](
        content["summary"], [Problem(*problem) for problem in content["problems"]]
    )


def exit_code(otherwise: int, paths: Sequence[Path]) -> int:
    """The exit code of the first error that was left at one of `paths`; `otherwise` where none was."""
    codes = (read_failure(path).exit_code or UNFINISHED for path in paths if path.is_file())
    return next(codes, otherwise)


if __name__ == "__main__":
    sys.exit(exit_code(int(sys.argv[1]), [Path(each) for each in sys.argv[2:]]))
