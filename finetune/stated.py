"""What the card beside another's adapter states of it, as model hubs read it: its licence and its data.

No torch. A card is another's word: it is carried into ours, and nothing is decided by it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lensmith.errors import InputError
from lensmith.yaml_file import parse_yaml

CARD = "README.md"
# Hubs' own names of licences and data sets; anything else could be text for a reader of our card, or the end
# of its table. The first 64 KiB hold every front matter.
_NAME = re.compile(r"[\w./+-]{1,100}")
_FRONT = re.compile(r"\A\ufeff?---\s*\n(.*?)\n---\s*(\n|\Z)", re.DOTALL)
_READ = 64 << 10


@dataclass(frozen=True)
class Stated:
    """licence: as hubs name it, "" where none is stated. datasets: by their names."""

    licence: str = ""
    datasets: list[str] = field(default_factory=list)


def read_stated(root: Path) -> Stated:
    """What the card in the folder `root` states; nothing where there is none, or none that can be read."""
    path = root / CARD
    if not path.is_file():
        return Stated()
    with path.open("rb") as stream:
        text = stream.read(_READ).decode(errors="replace")
    front = _FRONT.match(text)
    if front is None:
        return Stated()
    try:
        content = parse_yaml(front.group(1), path).content
    except InputError:
        return Stated()
    licence = _names(content.get("license"))
    if licence == ["other"]:
        licence = _names(content.get("license_name")) or licence
    return Stated(" and ".join(licence), _names(content.get("datasets")))


def _names(value: Any) -> list[str]:
    every = value if isinstance(value, list) else [value]
    return [each for each in every if isinstance(each, str) and _NAME.fullmatch(each)]
