"""The preview as a page: for those who label, and for those who train."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from finetune.preview import PreviewRow
from lensmith.files import write_atomically
from lensmith.page import Picture, encoded_picture, render, visible

_TEMPLATES = Path(__file__).parent / "templates"


def write_page(rows: Sequence[PreviewRow], path: Path, name: str) -> None:
    """Write the rows as one HTML file that needs nothing else; `name` is the release's."""
    facts = {
        "name": name,
        "rows": [(row, _pictures(row)) for row in rows],
        "visible": visible,
        "pairs": any(row.rejected for row in rows),
        "tokens": sum(row.tokens for row in rows),
        "image_tokens": sum(row.image_tokens for row in rows),
        "learned": sum(row.learned for row in rows),
    }
    write_atomically(path, render(_TEMPLATES, "preview.html.j2", facts).encode())


def _pictures(row: PreviewRow) -> list[Picture]:
    return [encoded_picture(data, "png", size) for data, size in zip(row.images, row.sizes, strict=True)]
