"""Flags for rows whose texts speak to the model."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import groupby

from data_prep.flag import Flag
from data_prep.instructions.patterns import Kind, find_instructions
from data_prep.refusal import quoted
from lensmith.sample import Message, Sample, Text, Thinking

_WORDS: dict[Kind, str] = {
    "override": "tells the model to forget its instructions",
    "persona": "tells the model who it is",
    "prompt_leak": "asks for the model's hidden instructions",
    "role_marker": "imitates a chat between user and assistant",
    "chat_markup": "holds markup of a chat template",
}


def instruction_flags(sample: Sample, known: Collection[str] = ()) -> Iterator[Flag]:
    """One flag for each kind and message; a system message may say who the model is.

    known: texts that say nothing to be flagged: the family's markup, for which a row is refused, and the
    recipe's own new tokens.
    """
    for number, message in enumerate(sample.messages, start=1):
        seen: set[Kind] = set()
        for text in _texts(message):
            for each in known:
                text = text.replace(each, "")
            for found in find_instructions(text):
                if found.kind in seen or (message.role == "system" and found.kind == "persona"):
                    continue
                seen.add(found.kind)
                shown = quoted(text[found.start : found.end])
                what = f"message {number}, of the {message.role}, {_WORDS[found.kind]}: {shown}"
                yield Flag(
                    "instructions", what, "keep it only if the image shows these very words; else remove it"
                )


def _texts(message: Message) -> Iterator[str]:
    """Texts as they are read: neighbouring ones as one."""
    for kind, run in groupby(message.parts, key=type):
        if issubclass(kind, Text | Thinking):
            yield "".join(part.text for part in run if isinstance(part, Text | Thinking))
