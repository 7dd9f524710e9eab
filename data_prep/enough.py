"""Whether what is left after all checks is enough to be written."""

from __future__ import annotations

from itertools import islice

from data_prep.body import by_reason
from data_prep.refusal import TITLES
from data_prep.split import SPLITS
from data_prep.statistics import counts
from data_prep.workbook import Workbook
from lensmith.data_settings import Data
from lensmith.errors import InputError, Problem

_ROWS_IN_ERROR = 10


def stop_if_too_many(book: Workbook, data: Data) -> None:
    """Raise InputError, with the reasons and the first rows, where more than `data.max_bad` are refused."""
    # What was forgotten on purpose is no mistake of the hand-over.
    forgotten = dict(by_reason(book.refusals())).get("forgotten", 0)
    refused, rows = book.refused() - forgotten, book.count() - forgotten
    share = refused / rows if rows else 0.0
    # From 1 on it is a count.
    if (refused if data.max_bad >= 1 else share) <= data.max_bad:
        return
    allowed = f"{data.max_bad:,}" if data.max_bad >= 1 else f"{data.max_bad:.1%}"
    problems = [
        Problem(f"{count:,} row{'s' if count > 1 else ''}", TITLES[code])
        for code, count in by_reason(book.refusals())
    ]
    problems += [
        Problem(flaw.what, refusal.place, flaw.mend)
        for refusal in islice(book.refusals(), _ROWS_IN_ERROR)
        for flaw in refusal.flaws
    ]
    if refused > _ROWS_IN_ERROR:
        more = refused - _ROWS_IN_ERROR
        mend = f"to have them all in refused.csv: lensmith prepare RECIPE --max-bad {refused}"
        problems.append(Problem(f"and {more:,} more row{'s' if more > 1 else ''}", mend=mend))
    raise InputError(
        f"{refused:,} of {rows:,} rows are refused ({share:.1%}), data.max_bad allows"
        f" {allowed}: nothing was written",
        problems,
    )


def stop_if_empty(book: Workbook, data: Data) -> None:
    """Raise InputError where a split that the recipe asks for is left without rows."""
    rows, groups = counts(book)
    asked = {
        "train": 1 - data.split.held_out - data.split.validation,
        "validation": data.split.validation,
        "held_out": data.split.held_out,
    }
    problems = [
        Problem(
            f"no row left, {asked[split]:.0%} of the groups were to go there",
            split,
            "hand over rows of more groups, or change data.split",
        )
        for split in SPLITS
        if asked[split] and not rows[split]
    ]
    if problems:
        raise InputError(
            f"{sum(rows.values()):,} rows of {sum(groups.values()):,} groups do not fill every split",
            problems,
        )
