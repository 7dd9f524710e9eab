"""ShareGPT conversations with images, as LLaMA-Factory, ms-swift and Axolotl read them.

    {"conversations": [{"from": "human", "value": "<image>\\nRead the form."},
                       {"from": "gpt", "value": "{\\"amount\\": \\"12.50\\"}"}],
     "images": ["images/form-1.png"], "videos": [], "system": "...", "tools": "[...]"}

or the same with `messages` of `role` and `content`. A JSON list of rows, or one a line. `images` may also
be called `image`, `videos` `video`, and be one path instead of a list. `from` is human or user; gpt,
assistant, model, bot or chatgpt; system; function_call (its value the JSON of {name, arguments}, or a list of
them); observation or tool. `system` comes first. `tools` is JSON text or a list of definitions. Plain values
of other fields are kept in meta, nested ones (and fields of a turn such as `weight`) are left behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from data_prep.refusal import quoted
from data_prep.sources.json_lines import Record
from data_prep.sources.placeholders import VIDEO, check_count, image_list, split_text
from data_prep.sources.records import (
    ChatSource,
    Unusable,
    build_sample,
    object_of,
    schema,
)
from data_prep.sources.tools import read_calls, read_tools
from lensmith.sample import Message, Role, Sample, Text

ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "system": "system",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
}
_KNOWN = frozenset(
    {"conversations", "messages", "image", "images", "video", "videos", "system", "tools", "audios"}
)
_MEND = 'write "conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]'


class ShareGPT(ChatSource):
    """A file of ShareGPT rows; images and videos lie in its folder."""

    format = "sharegpt"

    def samples(self, record: Record) -> Iterator[Sample]:
        row = object_of(record.value)
        if row.get("audios"):
            raise Unusable(schema("the row names audios", "sound is not read: leave such rows out"))
        turns = list(_turns(row))
        if (system := row.get("system")) not in (None, ""):
            if not isinstance(system, str):
                raise Unusable(schema("system is not a text", "write it as a text"))
            turns.insert(0, ("system", system))
        messages = build_messages(turns, images_of(row), videos_of(row))
        yield build_sample(row, self.options, messages, _KNOWN, read_tools(row.get("tools")))


def images_of(row: dict[str, Any]) -> list[str]:
    """The paths under `images` or `image`. Raises Unusable for both, or what is no list of paths."""
    return _paths(row, "image")


def videos_of(row: dict[str, Any]) -> list[str]:
    """The paths under `videos` or `video`. Raises Unusable as `images_of` does."""
    return _paths(row, "video")


def _paths(row: dict[str, Any], kind: str) -> list[str]:
    several = f"{kind}s"
    if row.get(several) is not None and row.get(kind) is not None:
        raise Unusable(schema(f"the row has both {kind} and {several}", "keep one of them"))
    name = several if row.get(several) is not None else kind
    return image_list(row.get(name), name)


def build_messages(turns: list[tuple[str, str]], images: list[str], videos: list[str]) -> tuple[Message, ...]:
    """Messages of (from, value) turns; placeholders take images and videos in order. Raises Unusable."""
    texts = [text for who, text in turns if who != "function_call"]
    check_count(texts, images)
    check_count(texts, videos, VIDEO, "video")
    taken, filmed = iter(images), iter(videos)
    messages: list[Message] = []
    for who, text in turns:
        if who == "function_call":
            messages.append(Message("assistant", read_calls(text)))
        else:
            # An empty text stays a part: the checks then say that the message is empty.
            messages.append(Message(ROLES[who], tuple(split_text(text, taken, filmed)) or (Text(""),)))
    return tuple(messages)


def _turns(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "conversations" in row:
        yield from read_turns(row["conversations"], "conversations", "from", "value", ROLES)
    else:
        yield from read_turns(row.get("messages"), "messages", "role", "content", ROLES)


def read_turns(
    turns: Any, name: str, who_key: str, text_key: str, roles: dict[str, Role]
) -> Iterator[tuple[str, str]]:
    """(from, value) of each turn. Raises Unusable with every turn that is not of that shape."""
    if not isinstance(turns, list):
        what = f"{name} is missing" if turns is None else f"{name} is not a list"
        raise Unusable(schema(what, _MEND))
    flaws = []
    for at, turn in enumerate(turns):
        where = f"{name}[{at}]"
        who = turn.get(who_key) if isinstance(turn, dict) else None
        text = turn.get(text_key) if isinstance(turn, dict) else None
        if not isinstance(who, str) or who not in roles:
            said = "is missing" if who is None else f"{quoted(str(who))} is not known"
            flaws.append(schema(f"{where}.{who_key} {said}", f"known are {', '.join(roles)}"))
        elif not isinstance(text, str):
            said = "is missing" if text is None else "is not a text"
            flaws.append(schema(f"{where}.{text_key} {said}", "write it as a text"))
        else:
            yield who, text
    if flaws:
        raise Unusable(*flaws)
