"""An error passes between processes as it was raised."""

from __future__ import annotations

from pathlib import Path

import pytest

from lensmith.errors import GateRefused, InputError, IntegrityError, LensmithError, Problem, StoppedEarly
from lensmith.failure import exit_code, read_failure, write_failure


@pytest.mark.parametrize("kind", [LensmithError, InputError, GateRefused, IntegrityError])
def test_an_error_comes_back_as_it_was(tmp_path: Path, kind: type[LensmithError]) -> None:
    error = kind("it failed: Größe", [Problem("what", "where", "mend"), Problem("more")])
    write_failure(tmp_path / "error.json", error)
    back = read_failure(tmp_path / "error.json")
    assert type(back) is kind
    assert back.problems == error.problems
    assert str(back) == str(error)


def test_a_class_that_only_the_child_knows_comes_back_as_its_parent(tmp_path: Path) -> None:
    class TooLong(InputError):
        pass

    write_failure(tmp_path / "error.json", TooLong("one row"))
    assert type(read_failure(tmp_path / "error.json")) is InputError


def test_what_was_stopped_is_not_done(tmp_path: Path) -> None:
    """For schedulers, to whom 0 says that there is nothing left to do."""
    path = tmp_path / "error.json"
    assert exit_code(0, [path]) == 0
    write_failure(path, StoppedEarly("stopped at step 3"))
    assert type(read_failure(path)) is StoppedEarly
    assert exit_code(0, [path]) == exit_code(1, [path]) == 130
    write_failure(path, InputError("wrong"))
    assert exit_code(1, [path]) == 2
