"""Writes LLaVA's instruction data: texts and images only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.export.folder import CannotHold, Written, extras, one_answer, write_folder
from data_prep.export.sharegpt import plain_text
from lensmith.row_file import Row
from lensmith.sample import Message, Role

_NAMES: Mapping[Role, str] = {"system": "system", "user": "human", "assistant": "gpt"}


def write(rows: Iterable[Row], folder: Path) -> Written:
    """Write llava.json and images/. Raises InputError where `folder` is already there."""
    return write_folder(rows, folder, "llava.json", _row)


def _row(row: Row, paths: Sequence[str]) -> dict[str, Any]:
    sample = row.sample
    one_answer(sample)
    if sample.tools:
        raise CannotHold("tools")
    shown: dict[str, Any] = {"image": paths[0] if len(paths) == 1 else list(paths)} if paths else {}
    return {
        **extras(sample),
        **shown,
        "conversations": [_turn(message) for message in sample.messages],
    }


def _turn(message: Message) -> dict[str, str]:
    if message.role not in _NAMES:
        raise CannotHold("tools")
    return {"from": _NAMES[message.role], "value": plain_text(message.parts)}
