"""Lensmith's own format: one JSON object a line.

    {"id": "form-1", "group": "customer-7", "meta": {...},
     "messages": [{"role": "user", "content": [{"type": "image", "path": "images/form-1.png"},
                                               {"type": "text", "text": "Read the form."}]},
                  {"role": "assistant", "content": "{\"amount\": \"12.50\"}"}]}

`content` is a list of parts (see `canonical_parts`) or plain text; image paths are relative to the file.
`meta`, `tools` (function definitions) and `origin` (source, licence, consent, labeller, guideline,
labelled_at) may be left out. `rejected`, content as that of a message, is an answer that people found worse.
A byte-order mark, blank lines and one JSON list of rows are accepted. A line that cannot be used never stops
the reader.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from data_prep.refusal import Flaw, quoted
from data_prep.sources.canonical_parts import (
    PARTS,
    CanonicalPart,
    ImagePart,
    OriginField,
    Strict,
    sample_parts,
)
from data_prep.sources.json_lines import Record
from data_prep.sources.records import RecordSource, Unusable
from lensmith.sample import Message, Role, Sample


def _as_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class _Message(Strict):
    role: Role
    content: Annotated[list[CanonicalPart], BeforeValidator(_as_parts)]


class _Row(Strict):
    id: str
    group: str
    messages: list[_Message]
    rejected: Annotated[list[CanonicalPart], BeforeValidator(_as_parts)] = Field(default_factory=list)
    meta: dict[str, Any] = Field(default_factory=dict)
    tools: list[dict[str, Any]] = Field(default_factory=list)
    origin: OriginField = Field(default_factory=OriginField)


class CanonicalJsonl(RecordSource):
    """A JSONL file with the images in its folder."""

    format = "lensmith"

    def row_id(self, value: Any) -> str:
        found = value.get("id") if isinstance(value, dict) else None
        return found if isinstance(found, str) and found.isprintable() else ""

    def samples(self, record: Record) -> Iterator[Sample]:
        try:
            parsed = _Row.model_validate(record.value)
        except ValidationError as error:
            raise Unusable(
                *(_flaw(each["type"], each["loc"], each["msg"]) for each in error.errors())
            ) from error
        sample, places = _sample(parsed)
        if flaws := [*_name_flaws(parsed), *places]:
            raise Unusable(*flaws)
        yield sample


def _name_flaws(row: _Row) -> Iterator[Flaw]:
    for name, value in (("id", row.id), ("group", row.group)):
        if not value.strip():
            yield Flaw("schema", f"{name} is empty", _MENDS[name])
        elif not value.isprintable():
            yield Flaw("schema", f"{name} {quoted(value)} holds control characters", "use plain characters")


def _sample(row: _Row) -> tuple[Sample, list[Flaw]]:
    images = [part for message in row.messages for part in message.content if isinstance(part, ImagePart)]
    messages: list[Message] = []
    flaws: list[Flaw] = []
    for number, message in enumerate(row.messages):
        parts, wrong = sample_parts(message.content, images, f"messages[{number}]")
        messages.append(Message(message.role, parts))
        flaws += wrong
    rejected, wrong = sample_parts(row.rejected, images, "rejected")
    flaws += wrong
    if rejected and messages:
        messages[-1] = replace(messages[-1], rejected=rejected)
    sample = Sample(row.id, row.group, tuple(messages), row.meta, tuple(row.tools), row.origin.origin())
    return sample, flaws


_MENDS = {
    "id": "give every row a name of its own",
    "group": "name what must stay together (a customer, a document); the row's id where it stands alone",
}
_KEYS = {
    "row": list(_Row.model_fields),
    "message": list(_Message.model_fields),
    **{name: list(part.model_fields) for name, part in PARTS.items()},
}


def _flaw(kind: str, location: tuple[int | str, ...], message: str) -> Flaw:
    # ("messages", i, "content", j, "image", "path"): pydantic puts the part's type behind its index.
    part = str(location[4]) if len(location) > 4 else ""
    where = [*location[:4], *location[5:]]
    name = _dotted(where)
    if kind == "extra_forbidden":
        level = part if part in _KEYS else ("message" if len(where) > 1 else "row")
        close = difflib.get_close_matches(str(where[-1]), _KEYS[level], n=1)
        mend = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(_KEYS[level])}"
        return Flaw("schema", f"{name} is not a known field", mend)
    if kind == "missing":
        return Flaw("schema", f"{name} is missing", _MENDS.get(name, "add it"))
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return Flaw("schema", f"{name} is no known part", f"its type is one of {', '.join(PARTS)}")
    return Flaw(
        "schema", f"{name or 'the row'}: {message[:1].lower()}{message[1:]}", "see the format in the guide"
    )


def _dotted(location: list[int | str]) -> str:
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            shown = part if part.isidentifier() else quoted(part)
            text += f".{shown}" if text else shown
    return text
