"""OpenAI's chat fine-tuning rows: one a line, or a JSON list.

    {"messages": [{"role": "system", "content": "You read forms."},
                  {"role": "user", "content": [{"type": "text", "text": "Read the form."},
                                               {"type": "image_url", "image_url": {"url": "images/a.png"}}]},
                  {"role": "assistant", "content": "{\\"amount\\": \\"12.50\\"}"}], "tools": [...]}

An image's url is a path relative to the file, a `data:` address with the picture typed in, or http(s), which
is passed on for whoever downloads it. `developer` is read as `system`, `reasoning_content` as thinking.
Tool results are put into the order of the calls they answer, as templates without call ids need them. `name`,
`detail`, `refusal: null`, `parallel_tool_calls` are left behind; of other fields of the row plain values are
kept in meta. Refused by name: preference pairs, the older `functions`, audio and file parts, and a last
answer of weight 0, which is not to be learned.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.refusal import Flaw, quoted
from data_prep.sources.json_lines import Record, read_at
from data_prep.sources.records import (
    INLINE,
    ChatSource,
    Unusable,
    build_sample,
    object_of,
    schema,
)
from data_prep.sources.tools import read_call, read_tools
from lensmith.sample import Image, Message, Part, Role, Sample, Text, Thinking

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_KNOWN = frozenset({"messages", "tools", "parallel_tool_calls"})
_DATA = "data:"
_TYPED_MEND = "write data:image/png;base64,..., or name the image's file"


class OpenAIMessages(ChatSource):
    """A file of OpenAI chat rows; images lie in its folder, or in the rows."""

    format = "openai"
    # OpenAI takes ten pictures of 10 MB a row.
    max_row_bytes = 128 << 20

    def samples(self, record: Record) -> Iterator[Sample]:
        row = object_of(record.value)
        _check_kind(row)
        content = row.get("messages")
        if not isinstance(content, list):
            what = "messages is missing" if content is None else "messages is not a list"
            raise Unusable(schema(what, 'write "messages": [{"role": "user", "content": ...}, ...]'))
        reader = _Messages(f"{self.name}@{record.offset}+{record.size}")
        messages = reader.read(content)
        yield build_sample(row, self.options, messages, _KNOWN, read_tools(row.get("tools")))

    def picture(self, path: str) -> Path | bytes | Flaw:
        typed = INLINE.fullmatch(path)
        if typed is None or not path.startswith(f"{self.name}@"):
            return super().picture(path)
        offset, size, number = (int(group) for group in typed.groups())
        try:
            row = read_at(self.path, offset, min(size, self.max_row_bytes))
            urls = list(_typed_in(row))
            return decode_address(urls[number])
        except (OSError, ValueError, IndexError):
            return Flaw("image_missing", f"there is no picture {quoted(path)}", "read the file again")

    def picture_stamp(self, path: str) -> list[Any]:
        return [] if INLINE.fullmatch(path) else super().picture_stamp(path)


def decode_address(address: str) -> bytes | Flaw:
    """The picture in a `data:` address."""
    head, comma, body = address.partition(",")
    if not comma or not head.endswith(";base64"):
        return Flaw("image_unreadable", f"the picture {quoted(head)} is not in base64", _TYPED_MEND)
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        return Flaw("image_unreadable", f"the picture {quoted(head)} is broken: {error}", _TYPED_MEND)


def _check_kind(row: dict[str, Any]) -> None:
    if "preferred_output" in row:
        mend = "keep the preferred answer as the last of `messages`"
        raise Unusable(schema("the row is a pair of preferences, not an example", mend))
    for name in ("functions", "function_call"):
        if name in row:
            raise Unusable(schema(f"{name} is the older form of tools", "write tools and tool_calls"))


class _Messages:
    """Reads the messages of one row; `inline` names the row's place for pictures typed into it."""

    def __init__(self, inline: str) -> None:
        self._inline = inline
        self._typed_in = 0
        self._flaws: list[Flaw] = []

    def read(self, content: list[Any]) -> tuple[Message, ...]:
        messages = [self._message(each, f"messages[{at}]") for at, each in enumerate(content)]
        if content and isinstance(content[-1], dict) and content[-1].get("weight") == 0:
            self._flaws.append(schema("the last answer has weight 0", "leave rows out that teach nothing"))
        messages = self._in_order_of_calls(content, messages)
        if self._flaws:
            raise Unusable(*self._flaws)
        return tuple(messages)

    def _message(self, message: Any, where: str) -> Message:
        role = message.get("role") if isinstance(message, dict) else None
        if not isinstance(role, str) or role not in ROLES:
            said = "is missing" if role is None else f"{quoted(str(role))} is not known"
            self._flaws.append(schema(f"{where}.role {said}", f"known are {', '.join(ROLES)}"))
            return Message("user", ())
        parts: list[Part] = []
        thinking = message.get("reasoning_content")
        if isinstance(thinking, str) and thinking:
            parts.append(Thinking(thinking))
        parts += self._content(message, where)
        calls = message.get("tool_calls") or []
        if not isinstance(calls, list):
            self._flaws.append(schema(f"{where}.tool_calls is not a list", "write a list of calls"))
            calls = []
        for at, call in enumerate(calls):
            function = call.get("function") if isinstance(call, dict) else None
            try:
                parts.append(read_call(function, f"{where}.tool_calls[{at}]"))
            except Unusable as error:
                self._flaws += error.flaws
        return Message(ROLES[role], tuple(parts))

    def _content(self, message: dict[str, Any], where: str) -> Iterator[Part]:
        content = message.get("content")
        if content is None:
            if not message.get("tool_calls"):
                self._flaws.append(schema(f"{where}.content is missing", "add it"))
        elif isinstance(content, str):
            if content or not message.get("tool_calls"):
                yield Text(content)
        elif not isinstance(content, list):
            self._flaws.append(schema(f"{where}.content is neither text nor a list of parts", "write a text"))
        else:
            for at, part in enumerate(content):
                yield from self._part(part, f"{where}.content[{at}]")

    def _part(self, part: Any, where: str) -> Iterator[Part]:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("text", "refusal") and isinstance(part.get(kind), str):
            yield Text(part[kind])
        elif kind == "image_url":
            image = part.get("image_url")
            url = image.get("url") if isinstance(image, dict) else image
            if not isinstance(url, str):
                self._flaws.append(schema(f"{where}.image_url has no url", "name the image's file there"))
            elif not url.startswith(_DATA):
                yield Image(url)
            else:
                yield Image(f"{self._inline}#{self._typed_in}")
                self._typed_in += 1
        else:
            said = "has no type" if kind is None else f"of type {quoted(str(kind))} cannot be read"
            self._flaws.append(schema(f"{where} {said}", "a part is a text or an image_url"))

    def _in_order_of_calls(self, content: list[Any], messages: list[Message]) -> list[Message]:
        """Each run of tool messages, sorted by the calls before it; one that answers no call is a flaw."""
        order: dict[str, int] = {}
        ranks: list[tuple[int, int]] = []
        block = 0
        for at, (given, message) in enumerate(zip(content, messages, strict=True)):
            if message.role != "tool":
                block = at
                ranks.append((at, 0))
                calls = given.get("tool_calls") if isinstance(given, dict) else None
                listed = calls if isinstance(calls, list) else []
                named = [call.get("id") for call in listed if isinstance(call, dict)]
                order |= {name: rank for rank, name in enumerate(named, 1) if isinstance(name, str)}
                continue
            name = given.get("tool_call_id")
            if not isinstance(name, str) or name not in order:
                what = f"messages[{at}] answers no tool call before it"
                self._flaws.append(schema(what, "give it the tool_call_id of the call it answers"))
            ranks.append((block, order.get(name, 0) if isinstance(name, str) else 0))
        return [messages[at] for at in sorted(range(len(messages)), key=lambda at: ranks[at])]


def _typed_in(row: Any) -> Iterator[str]:
    """The `data:` addresses of a row's pictures, in order."""
    for message in row["messages"]:
        content = message.get("content")
        for part in content if isinstance(content, list) else []:
            image = part.get("image_url") if part.get("type") == "image_url" else None
            url = image.get("url") if isinstance(image, dict) else image
            if isinstance(url, str) and url.startswith(_DATA):
                yield url
