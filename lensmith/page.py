"""The pages that people open, all in one design: each is one file that needs nothing beside it.

A room's template extends `frame.html.j2` of lensmith/templates and fills its blocks: title, style, main. What
rows and models say is hostile text: every value is escaped, and the page's own policy lets nothing be
fetched and no script run but the one that the room gives.
"""

from __future__ import annotations

import base64
import hashlib
import io
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL.Image import Image

from lensmith.files import digest_file

FRAME = Path(__file__).parent / "templates"
_KEPT = "\n\t"


@dataclass(frozen=True)
class Picture:
    """A picture that lies in the page itself: a data address, and its width and height in pixels."""

    address: str
    width: int
    height: int


def render(folder: Path, name: str, facts: Mapping[str, Any], *, script: str = "") -> str:
    """Fill `folder`/`name`. A value that the template names and `facts` lacks is an error."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment(folder)
        .get_template(name)
        .render({**facts, "script": Markup(script), "script_digest": digest})
    )


@cache
def _environment(folder: Path) -> Environment:
    # One for the process: it remembers the templates that it compiled.
    environment = Environment(
        loader=FileSystemLoader([folder, FRAME]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["share"] = lambda value: f"{value:.1%}"
    return environment


def template_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that a page of `folder` may be made of, by name: a part of its stage's key."""
    return {path.name: digest_file(path) for path in sorted([*folder.iterdir(), *FRAME.iterdir()])}


def picture(image: Image, edge: int) -> Picture:
    """`image` within `edge` x `edge` pixels: PNG where it was that small already, else JPEG."""
    stream = io.BytesIO()
    if max(image.size) <= edge:
        image.save(stream, "PNG")
        return encoded_picture(stream.getvalue(), "png", image.size)
    small = image.copy()
    small.thumbnail((edge, edge))
    small.save(stream, "JPEG", quality=82)
    return encoded_picture(stream.getvalue(), "jpeg", small.size)


def encoded_picture(data: bytes, kind: Literal["png", "jpeg"], size: tuple[int, int]) -> Picture:
    """A picture that is encoded already; `size` is (width, height)."""
    return Picture(f"data:image/{kind};base64,{base64.b64encode(data).decode()}", *size)


def visible(text: str) -> str:
    """`text` with control, format and unassigned characters written as \\u escapes.

    A row or a model can hold characters that turn the line around or cannot be seen.
    """
    return "".join(
        f"\\u{ord(each):04x}" if unicodedata.category(each)[0] == "C" and each not in _KEPT else each
        for each in text
    )
