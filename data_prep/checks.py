"""What a row's conversation must be, whatever its images show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, Literal

from data_prep.refusal import Flaw, quoted
from data_prep.tools import tool_flaws
from data_prep.turns import place_flaws, turn_flaws
from lensmith.sample import Image, Message, Part, Region, Sample, Text, Thinking, ToolCall, Video
from lensmith.strict_json import parse_strict_json


def check_sample(
    sample: Sample,
    answer: Literal["json", "text"],
    markup: tuple[str, ...],
    max_images: int,
    text_only: bool = False,
) -> list[Flaw]:
    """Every flaw of a sample's conversation.

    `answer` is what `data.answer` asks for; `markup` the texts that the family's chat template gives a
    meaning to (`Family.markup`); `max_images` how many images a request may show (`serve.max_images`);
    `text_only` whether it may show none (`data.text_only`).
    """
    flaws = [
        *turn_flaws(sample),
        *_contents(sample, text_only),
        *place_flaws(sample),
        *tool_flaws(sample),
        *_too_many_images(sample, max_images),
        *_markup(sample, markup),
    ]
    if sample.messages and sample.messages[-1].role == "assistant":
        flaws += _answer(sample.messages[-1], _without(sample.answer, markup), answer)
    return flaws


def _contents(sample: Sample, text_only: bool) -> Iterator[Flaw]:
    if not sample.stills and not sample.videos and not text_only:
        mend = 'add {"type": "image", "path": ...} to the question, or set data.text_only where none is meant'
        yield Flaw("no_image", "no message shows an image", mend)
    for number, message in enumerate(sample.messages, start=1):
        is_answer = number == len(sample.messages) and message.role == "assistant"
        # A tool may well give nothing back; what the answer lacks is said of the answer.
        if not _says_something(message) and not is_answer and message.role != "tool":
            yield Flaw(
                "empty_message", f"message {number}, of the {message.role}, is empty", "fill or remove it"
            )


def _says_something(message: Message) -> bool:
    return bool(message.text.strip()) or any(
        isinstance(part, (Image, Video, Region, ToolCall)) for part in message.parts
    )


def _too_many_images(sample: Sample, most: int) -> Iterator[Flaw]:
    # Counted as a request counts them: those of every message, one that is shown twice two times.
    count = len(sample.stills)
    if count > most:
        mend = "raise serve.max_images, or give fewer images"
        yield Flaw("too_many_images", f"{count} images, a request may show {most}", mend)
    # The engine is told the times of one video a request.
    if (videos := len(sample.videos)) > 1:
        yield Flaw("too_many_images", f"{videos} videos, a request may show one", "divide the row")


def _markup(sample: Sample, markup: tuple[str, ...]) -> Iterator[Flaw]:
    for number, message in enumerate(sample.messages, start=1):
        for token in _held(_written(message), markup):
            what = f"message {number}, of the {message.role}, holds the text {token}"
            yield Flaw("markup", what, "remove it: the model would take it for a command")
    for token in _held(_strings(list(sample.tools)), markup):
        what = f"a tool definition holds the text {token}"
        yield Flaw("markup", what, "remove it: the model would take it for a command")


def _held(texts: Iterable[str], markup: tuple[str, ...]) -> list[str]:
    """The markup that any of the texts holds, in the family's order."""
    every = list(texts)
    return [token for token in markup if any(token in text for text in every)]


def _written(message: Message) -> Iterator[str]:
    """All text that a template would write; parts that it writes without a word between them are one text."""
    for touching, run in groupby(message.parts, key=lambda part: isinstance(part, Text | Region)):
        texts = (text for part in run for text in _texts(part))
        if touching:
            yield "".join(texts)
        else:
            yield from texts


def _texts(part: Part) -> Iterator[str]:
    """All text of a part that a template would write."""
    match part:
        case Text(text) | Thinking(text):
            yield text
        case Region(label=label):
            yield label
        case ToolCall(name, arguments):
            yield name
            yield from _strings(arguments)


def _strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, the keys of objects included."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            waiting += [*each, *each.values()]
        elif isinstance(each, list):
            waiting += each


def _without(text: str, markup: tuple[str, ...]) -> str:
    """The text as it will be once the markup, which is a flaw of its own, is removed."""
    for token in markup:
        text = text.replace(token, "")
    return text


def _answer(message: Message, text: str, wanted: Literal["json", "text"]) -> Iterator[Flaw]:
    if any(isinstance(part, ToolCall) for part in message.parts):
        return
    places = any(isinstance(part, Region) for part in message.parts)
    if wanted == "json" and places:
        what = "the answer holds boxes, points or spans, which each model writes its own way"
        yield Flaw("answer_not_json", what, 'set data.answer to "text"')
    elif not text.strip() and not places:
        yield Flaw(
            "empty_answer", "nothing is typed in the last message", "type the answer, or remove the row"
        )
    elif wanted == "json":
        try:
            value = parse_strict_json(text)
        except ValueError as error:
            what = f"the answer {quoted(text)} is not JSON: {error}"
            yield Flaw("answer_not_json", what, 'correct it, or set data.answer to "text"')
        else:
            if not isinstance(value, dict):
                what = f"the answer {quoted(text)} is JSON, but not an object with fields"
                yield Flaw("answer_not_json", what, "write it as {...}")
