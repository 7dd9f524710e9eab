"""What the page marks."""

from __future__ import annotations

from finetune.evaluation.diff import LONGEST, marks, shortened


def _show(spans) -> str:
    return "".join(f"[{span.text}]" if span.marked else span.text for span in spans)


def test_both_sides_are_marked_where_they_differ() -> None:
    label, answer = marks("2026-10-09", "2026-18-9")
    assert _show(label) == "2026-1[0]-[0]9"
    assert _show(answer) == "2026-1[8]-9"


def test_equal_texts_have_no_marks() -> None:
    assert [_show(side) for side in marks("abc", "abc")] == ["abc", "abc"]


def test_long_texts_are_cut_with_a_note() -> None:
    assert shortened("x" * LONGEST) == "x" * LONGEST
    assert shortened("x" * (LONGEST + 3)).endswith("3 more characters")
