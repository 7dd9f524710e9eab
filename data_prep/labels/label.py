"""One label of an item, and its fields."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from data_prep.labels.labelling import Labelling
from lensmith.files import canonical_json, digest_json
from lensmith.sample import Image, Sample, Text, Video

WHOLE = "answer"
# What a field holds: JSON text for lists, the value itself otherwise.
Value = str | float | bool | None


@dataclass(frozen=True)
class Label:
    """An answer that one labeller gave; `place` and `row` say where, `image` is the first image's path."""

    row: str
    place: str
    labelling: Labelling
    answer: str
    image: str = ""
    fields: dict[str, Value] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", fields_of(self.answer))

    @property
    def same(self) -> bytes:
        """Equal for answers that say the same, however their JSON is spaced and ordered."""
        try:
            return canonical_json(json.loads(self.answer))
        except (ValueError, RecursionError):
            return self.answer.strip().encode("utf-8", "surrogatepass")


def fields_of(answer: str) -> dict[str, Value]:
    """Field path to value: `{"payment": {"amount": "3"}}` has `payment.amount`. A list is one field, in JSON.

    An answer that is not a JSON object is one field, `answer`.
    """
    try:
        content = json.loads(answer)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        return {WHOLE: answer.strip()}
    fields: dict[str, Value] = {}
    _flatten(content, "", fields)
    return fields


def _flatten(content: dict[str, Any], prefix: str, fields: dict[str, Value]) -> None:
    for name, value in content.items():
        if isinstance(value, dict) and value:
            _flatten(value, f"{prefix}{name}.", fields)
        elif isinstance(value, dict | list):
            fields[prefix + name] = json.dumps(value, sort_keys=True, ensure_ascii=False)
        else:
            fields[prefix + name] = value


def item_of(sample: Sample, same: Literal["none", "item", "question"]) -> str:
    """The name of the thing that the row labels, "" where it stands alone.

    `item`: `meta.item`, text or a whole number. `question`: a digest of the images and of all that is said
    before the answer.
    """
    if same == "item":
        item = sample.meta.get("item", "")
        return str(item) if isinstance(item, str | int) and not isinstance(item, bool) else ""
    if same == "none":
        return ""
    said = [
        [message.role, *(_seen(part) for part in message.parts if isinstance(part, Text | Image | Video))]
        for message in sample.prompt
    ]
    return digest_json(said)


def _seen(part: Text | Image | Video) -> list[str]:
    match part:
        case Text(text):
            return ["text", text]
        case Image(path, digest):
            return ["image", digest or path]
        case Video(path):
            return ["video", path]
