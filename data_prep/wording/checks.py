"""Flaws and flags of a row's wording."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from data_prep.flag import Flag
from data_prep.refusal import Flaw, quoted
from data_prep.wording.characters import hidden, misleading, mixed
from lensmith.data_settings import Wording
from lensmith.sample import Message, Region, Sample, Text, Thinking

_SHOWN = 5
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


def wording_flaws(sample: Sample) -> Iterator[Flaw]:
    """Characters that change how a text is shown: what was checked is not what is read."""
    for number, message in enumerate(sample.messages, start=1):
        names = list(dict.fromkeys(name for text in _texts(message) for name in misleading(text)))
        if names:
            what = f"message {number}, of the {message.role}, holds {_listed(names)}"
            yield Flaw("control_characters", what, "type the text again, or remove these characters")


def wording_flags(sample: Sample, settings: Wording) -> Iterator[Flag]:
    """What a person should look at. The sample's last message is its answer."""
    for number, message in enumerate(sample.messages, start=1):
        where = f"message {number}, of the {message.role},"
        names = list(dict.fromkeys(name for text in _texts(message) for name in hidden(text)))
        if names:
            yield Flag("hidden_characters", f"{where} holds {_listed(names)}", "type the text again")
        words = list(dict.fromkeys(word for text in _texts(message) for word in mixed(text)))
        if words:
            what = f"{where} mixes alphabets in {_listed([quoted(word) for word in words])}"
            yield Flag("mixed_scripts", what, "type the word again with one keyboard")
    if not sample.messages:
        return
    answer = sample.answer
    if answer and answer != answer.strip():
        what = f"the answer is {quoted(answer)}"
        yield Flag("outer_space", what, "remove the empty space: the model would learn to write it")
    fields = _fields(answer)
    # An empty list says that nothing was found; an object without a value looks like a label forgotten.
    if (
        answer.lstrip().startswith("{")
        and fields is not None
        and all(_is_blank(value) for _, value in fields)
    ):
        mend = "fill it, unless there is nothing to be read"
        yield Flag("empty_fields", f"the answer is {quoted(answer)}", mend)
    for name, value in fields or ():
        if isinstance(value, str) and value != value.strip():
            what = f"the answer has {quoted(value)}" + (f" in {quoted(name)}" if name else "")
            yield Flag("outer_space", what, "remove the empty space: the model would learn to write it")
    if len(answer) > settings.longest_answer:
        what = f"the answer has {len(answer):,} characters, more than {settings.longest_answer:,}"
        yield Flag("long_answer", what, "make sure that it is one answer, not a file pasted in")
    yield from _repeats(sample, settings)


def _is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _fields(answer: str) -> list[tuple[str, Any]] | None:
    """Name and plain value of every field of a JSON answer, nested ones too; None for what is no JSON."""
    if not answer.lstrip().startswith(("{", "[")):
        return None
    try:
        waiting: list[tuple[str, Any]] = [("", json.loads(answer))]
    except (ValueError, RecursionError):
        # It is a text, or refused as an answer.
        return None
    fields: list[tuple[str, Any]] = []
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting += reversed(value.items())
        elif isinstance(value, list):
            waiting += [(name, each) for each in reversed(value)]
        else:
            fields.append((name, value))
    return fields


def _repeats(sample: Sample, settings: Wording) -> Iterator[Flag]:
    said = _folded(sample.answer)
    for number, message in enumerate(sample.prompt, start=1):
        asked = _folded(message.text)
        if message.role != "user" or not asked:
            continue
        if asked == said or (len(asked) >= settings.shortest_repeat and asked in said):
            what = f"the answer holds all of message {number}: {quoted(message.text.strip())}"
            yield Flag("repeats_question", what, "leave only the answer")
            return


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _texts(message: Message) -> Iterator[str]:
    for part in message.parts:
        match part:
            case Text(text) | Thinking(text):
                yield _unescaped(text)
            case Region(label=label):
                yield label


def _unescaped(text: str) -> str:
    """JSON hides characters behind \\u: they are looked at as they will be read."""
    if "\\u" not in text:
        return text
    shown = _ESCAPE.sub(lambda match: chr(int(match.group(1), 16)), text)
    # Two halves of a pair are one character again; a half alone stays one.
    return shown.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
