"""The data card: what a person must know before training on a dataset, on one page of Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_prep.refusal import TITLES
from data_prep.statistics import measures
from data_prep.templates import render
from lensmith.files import write_atomically

CARD = "data_card.md"


def write_card(folder: Path, body: dict[str, Any]) -> None:
    """Write `data_card.md` from the body of a dataset artifact."""
    facts = {"body": body, "titles": TITLES, "measures": measures(body)}
    write_atomically(folder / CARD, render("data_card.md.j2", facts).encode())
