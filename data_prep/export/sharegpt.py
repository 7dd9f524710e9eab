"""Writes ShareGPT conversations: no thinking, no regions, no text beside a tool call."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.export.folder import CannotHold, Written, extras, one_answer, write_folder
from data_prep.sources.placeholders import PLACEHOLDER, join_parts
from lensmith.row_file import Row
from lensmith.sample import Image, Message, Part, Region, Role, Text, Thinking, ToolCall

_NAMES: Mapping[Role, str] = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}


def write(rows: Iterable[Row], folder: Path) -> Written:
    """Write sharegpt.json and images/. Raises InputError where `folder` is already there."""
    return write_folder(rows, folder, "sharegpt.json", _row)


def _row(row: Row, paths: Sequence[str]) -> dict[str, Any]:
    sample = row.sample
    one_answer(sample)
    return {
        **extras(sample),
        "conversations": [_turn(message) for message in sample.messages],
        **({"images": list(paths)} if paths else {}),
        **({"tools": json.dumps(sample.tools, ensure_ascii=False)} if sample.tools else {}),
    }


def _turn(message: Message) -> dict[str, str]:
    calls = [part for part in message.parts if isinstance(part, ToolCall)]
    if not calls:
        return {"from": _NAMES[message.role], "value": plain_text(message.parts)}
    if len(calls) < len(message.parts):
        raise CannotHold("text beside a tool call")
    said = [{"name": call.name, "arguments": call.arguments} for call in calls]
    value = json.dumps(said if len(said) > 1 else said[0], ensure_ascii=False)
    return {"from": "function_call", "value": value}


def plain_text(parts: Iterable[Part]) -> str:
    """Text with a placeholder for each image. Raises CannotHold for anything else."""
    kept: list[Image | Text] = []
    for part in parts:
        match part:
            case Text(text):
                if PLACEHOLDER in text:
                    raise CannotHold(f"a text that says {PLACEHOLDER}")
                before = kept[-1] if kept else None
                if isinstance(before, Text):
                    # Two texts in a row are one to every reader.
                    kept[-1] = Text(before.text + text)
                else:
                    kept.append(part)
            case Image():
                kept.append(part)
            case Region():
                raise CannotHold("regions")
            case Thinking():
                raise CannotHold("thinking")
            case ToolCall():
                raise CannotHold("tool calls")
    return join_parts(kept)
