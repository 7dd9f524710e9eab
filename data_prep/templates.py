"""Turning a template of this folder and some facts into text; every value is escaped."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lensmith import page

FOLDER = Path(__file__).parent / "templates"


def render(name: str, facts: dict[str, Any]) -> str:
    """Fill `templates/<name>`. A value that the template names and `facts` lacks is an error."""
    return page.render(FOLDER, name, {**facts, "cell": _cell})


def _cell(text: str) -> str:
    """Text of a row within one line of a Markdown table; the characters that begin markup stay text."""
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", " ".join(text.split()))
