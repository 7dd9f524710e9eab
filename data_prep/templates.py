"""Turning a template of this folder and some facts into text; every value is escaped."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

FOLDER = Path(__file__).parent / "templates"


def render(name: str, facts: dict[str, Any]) -> str:
    """Fill `templates/<name>`. A value that the template names and `facts` lacks is an error."""
    return _environment().get_template(name).render(facts)


@cache
def _environment() -> Environment:
    # One for the process: it remembers the templates that it compiled.
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["cell"] = _cell
    environment.filters["share"] = lambda value: f"{value:.1%}"
    return environment


def _cell(text: str) -> str:
    """Text of a row within one line of a Markdown table; the characters that begin markup stay text."""
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", " ".join(text.split()))
