"""Writes OpenAI's chat rows: no regions; thinking first, tool calls last in a message."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_prep.export.folder import CannotHold, Written, extras, one_answer, write_folder
from lensmith.row_file import Row
from lensmith.sample import Image, Message, Region, Text, Thinking, ToolCall


def write(rows: Iterable[Row], folder: Path) -> Written:
    """Write messages.jsonl and images/. Raises InputError where `folder` is already there."""
    return write_folder(rows, folder, "messages.jsonl", _row)


def _row(row: Row, paths: Sequence[str]) -> dict[str, Any]:
    sample = row.sample
    one_answer(sample)
    writer = _Messages(paths)
    return {
        **extras(sample),
        "messages": [writer.message(message) for message in sample.messages],
        **({"tools": list(sample.tools)} if sample.tools else {}),
    }


class _Messages:
    """Writes one row's messages; calls are numbered through, and answered in the order they were made."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths: Iterator[str] = iter(paths)
        self._called = 0
        self._answered = 0

    def message(self, message: Message) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        calls: list[dict[str, Any]] = []
        thinking: list[str] = []
        for part in message.parts:
            if calls and not isinstance(part, ToolCall):
                raise CannotHold("text behind a tool call")
            match part:
                case Thinking(text):
                    if content or thinking or message.role != "assistant":
                        raise CannotHold("thinking in the middle of a message")
                    thinking.append(text)
                case Text(text):
                    content.append({"type": "text", "text": text})
                case Image():
                    content.append({"type": "image_url", "image_url": {"url": next(self._paths)}})
                case ToolCall():
                    calls.append(self._call(part))
                case Region():
                    raise CannotHold("regions")
        written: dict[str, Any] = {"role": message.role}
        if message.role == "tool":
            if self._answered == self._called:
                raise CannotHold("a tool's result without a call")
            self._answered += 1
            written["tool_call_id"] = f"call-{self._answered}"
        if thinking:
            written["reasoning_content"] = thinking[0]
        plain = len(content) == 1 and content[0]["type"] == "text" and content[0]["text"]
        written["content"] = content[0]["text"] if plain else content
        if calls:
            written["tool_calls"] = calls
        return written

    def _call(self, call: ToolCall) -> dict[str, Any]:
        self._called += 1
        arguments = json.dumps(call.arguments, ensure_ascii=False)
        function = {"name": call.name, "arguments": arguments}
        return {"id": f"call-{self._called}", "type": "function", "function": function}
