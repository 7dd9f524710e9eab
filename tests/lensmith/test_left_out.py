"""Packages that a process leaves out are not there for it; others, and other processes, are as before."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest

from lensmith.left_out import leave_out


def test_left_out_it_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "this", raising=False)
    assert importlib.util.find_spec("this") is not None
    leave_out("this", "this")
    assert importlib.util.find_spec("this") is None
    with pytest.raises(ModuleNotFoundError):
        import this  # noqa: F401
    monkeypatch.delitem(sys.modules, "this")
    assert importlib.util.find_spec("this") is not None


def test_what_is_there_stays() -> None:
    leave_out("json")
    assert sys.modules["json"] is json
