"""The evaluation page: what was won, with intervals, and every mistake beside its picture.

What a model answered is hostile text: control characters are shown as escapes (the rest: `lensmith.page`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from finetune.evaluation.exam import ExamRow
from finetune.evaluation.metrics import Judged
from finetune.evaluation.mistakes import mended, mistakes
from lensmith.page import render
from lensmith.report import LOWER_IS_BETTER, PAGE_FILE, TITLES, Difference, MetricName, Report, Score

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Mark:
    """A point with whiskers on the track of a metric, in percent of its width (0 to 1 on the scale)."""

    at: float
    lower: float
    upper: float


def write_page(
    folder: Path,
    report: Report,
    name: str,
    contestants: Sequence[str],
    asked: Literal["held_out", "validation"],
    rows: dict[str, ExamRow],
    judged: Sequence[list[Judged]],
) -> None:
    """Write page.html into the draft `folder`, which already holds the images.

    contestants: what to call what answered, the subject first; `judged` has the verdicts in this order.
    asked: which rows they were.
    """
    facts = {
        "report": report,
        "name": name,
        "head": "field_f1" if report.answer == "json" else "exact_match",
        "titles": TITLES,
        "lower_is_better": LOWER_IS_BETTER,
        "contestants": contestants,
        "asked": asked,
        "mark": _mark,
        "better": _better,
        "mistakes": mistakes(folder, rows, judged),
        "mended": mended(folder, rows, judged),
        "figure": _figure,
        "signed": _signed,
    }
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8")
    page = render(TEMPLATES, "page.html.j2", facts, script=script)
    (folder / PAGE_FILE).write_text(page, encoding="utf-8")


def _mark(score: Score) -> Mark:
    interval = score.interval
    lower, upper = (interval.lower, interval.upper) if interval else (score.value, score.value)
    return Mark(*(round(100 * min(1.0, max(0.0, value)), 2) for value in (score.value, lower, upper)))


def _better(name: MetricName, difference: Difference) -> str:
    """Say "up" or "down" where the whole interval lies on one side of no difference, else "level"."""
    if difference.interval is None:
        return "level"
    up = difference.interval.lower > 0
    down = difference.interval.upper < 0
    if not up and not down:
        return "level"
    return "up" if up != (name in LOWER_IS_BETTER) else "down"


def _figure(value: float) -> str:
    return f"{value:.3f}"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")
