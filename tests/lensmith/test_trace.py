"""The trace file: written and read back, broken lines named."""

from __future__ import annotations

import pytest

from lensmith.artifact import Artifact
from lensmith.errors import IntegrityError
from lensmith.home import Home
from lensmith.trace import TRACE_FILE, TraceRow, TraceSettings, read_trace, trace_settings, write_trace

SETTINGS = TraceSettings(
    subject="a" * 64,
    held_out="b" * 64,
    engine="transformers",
    engine_version="5.20.2",
    dtype="float32",
    max_new_tokens=16,
    rows=2,
    serving="none",
    template="c" * 64,
)


def row(name: str) -> TraceRow:
    return TraceRow(
        row=name,
        group="g",
        image_digests=["d"],
        prompt_ids=[1, 2, 2, 3],
        image_tokens=2,
        answer_ids=[4, 5],
        answer_text="line\u2028one\nline two é",
        answer_logprobs=[-0.1, -1e-30],
        margins=[0.30000000000000004, 12.0],
        finish="stop",
    )


def trace(home: Home, rows: list[TraceRow]) -> Artifact:
    with home.create("trace", "f" * 64, {}) as draft:
        write_trace(draft.path, rows)
        draft.body.update(SETTINGS.model_dump())
    return draft.artifact


def test_rows_and_settings_are_read_back_exactly(home: Home) -> None:
    rows = [row("one"), row("two")]
    made = trace(home, rows)
    assert list(read_trace(made)) == rows
    assert trace_settings(made) == SETTINGS


def test_a_trace_of_no_rows(home: Home) -> None:
    assert list(read_trace(trace(home, []))) == []


def test_a_broken_line_is_named(home: Home) -> None:
    made = trace(home, [row("one"), row("two")])
    path = made.path / TRACE_FILE
    path.write_text(path.read_text()[:-20])
    with pytest.raises(IntegrityError, match=r"trace\.jsonl:2 is not a row"):
        list(read_trace(made))
