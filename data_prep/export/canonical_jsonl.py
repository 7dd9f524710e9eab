"""Writes Lensmith's own format; it holds everything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_prep.export.folder import Written, extras, write_folder
from lensmith.row_file import Row
from lensmith.sample import Image, Message, Part, Region, Text, Thinking, ToolCall, Video


def write(rows: Iterable[Row], folder: Path) -> Written:
    """Write labels.jsonl and images/. Raises InputError where `folder` is already there."""
    return write_folder(rows, folder, "labels.jsonl", _row)


def _row(row: Row, paths: Sequence[str]) -> dict[str, Any]:
    sample = row.sample
    left = iter(paths)
    return {
        **extras(sample),
        "messages": [_message(message, left) for message in sample.messages],
        **({"rejected": [_part(part, left) for part in sample.rejected]} if sample.rejected else {}),
        **({"tools": list(sample.tools)} if sample.tools else {}),
    }


def _message(message: Message, paths: Iterator[str]) -> dict[str, Any]:
    return {"role": message.role, "content": [_part(part, paths) for part in message.parts]}


def _part(part: Part, paths: Iterator[str]) -> dict[str, Any]:
    match part:
        case Image():
            return {"type": "image", "path": next(paths)}
        case Video():
            raise AssertionError("rows with videos are left out before")
        case Text(text):
            return {"type": "text", "text": text}
        case Thinking(text):
            return {"type": "thinking", "text": text}
        case ToolCall(name, arguments):
            return {"type": "tool_call", "name": name, "arguments": arguments}
        case Region(kind, values, label, image):
            return {"type": "region", "kind": kind, "values": list(values), "label": label, "image": image}
