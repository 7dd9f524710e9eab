"""What every decision that is kept for good needs: a person and a reason, in plain text."""

from __future__ import annotations

import unicodedata

from lensmith.errors import InputError, Problem


def check_decision(who: str, why: str) -> None:
    """Raise InputError where a decision has no person or reason, or one that is not plain text."""
    problems: list[Problem] = []
    for name, text, mend in (("who", who, "say who decides"), ("why", why, "say the reason, for the log")):
        if not text.strip():
            problems.append(Problem("is empty", f"--{name}", mend))
        elif any(unicodedata.category(each) == "Cc" for each in text):
            problems.append(Problem("holds a control character", f"--{name}", "write one line of plain text"))
    if problems:
        raise InputError("a decision needs a person and a reason", problems)
