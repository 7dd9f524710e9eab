"""Who may speak when: user and assistant in turn, and the results of tools behind the calls."""

from __future__ import annotations

from collections.abc import Iterator

from data_prep.refusal import Flaw
from lensmith.sample import Image, Message, Sample, Text, Thinking, ToolCall, Video

_ORDER = "a system message may come first, then user and assistant in turn"


def turn_flaws(sample: Sample) -> Iterator[Flaw]:
    """What is wrong with the order of messages: the answer last, each tool call followed by its result.

    An assistant that calls tools is followed by one tool message a call, then speaks again; a row may end
    with a call.
    """
    roles = [message.role for message in sample.messages]
    if not roles:
        yield Flaw("turns", "there are no messages", "give the question and the answer")
        return
    if roles[-1] != "assistant":
        mend = "add the answer as an assistant message"
        yield Flaw("turns", f"the last message is of the {roles[-1]}, not the assistant", mend)
        return
    wanted, waiting = "user", 0
    for number, message in enumerate(sample.messages, start=1):
        if number == 1 and message.role == "system":
            continue
        if message.role == "tool" and wanted != "tool":
            what = f"message {number}, of the tool, answers no call"
            yield Flaw("turns", what, "put it behind the assistant message that calls the tool")
            return
        if message.role != wanted:
            if wanted == "tool":
                what = f"message {number} is of the {message.role}, {waiting} tool results are still to come"
                yield Flaw("turns", what, "give one tool message for each call, in their order")
            else:
                yield Flaw("turns", f"the messages are {', '.join(roles)}", _ORDER)
            return
        if message.role == "assistant":
            waiting = sum(isinstance(part, ToolCall) for part in message.parts)
            wanted = "tool" if waiting else "user"
        elif message.role == "tool":
            waiting -= 1
            wanted = "tool" if waiting else "assistant"
        else:
            wanted = "assistant"


def place_flaws(sample: Sample) -> Iterator[Flaw]:
    """Parts that stand where no template would write them: it would drop them or change their order."""
    for number, message in enumerate(sample.messages, start=1):
        who = f"message {number}, of the {message.role},"
        if message.role not in ("user", "tool") and any(isinstance(part, Image) for part in message.parts):
            yield Flaw("image_place", f"{who} shows an image", "move it to the question")
        if message.role != "user" and any(isinstance(part, Video) for part in message.parts):
            yield Flaw("image_place", f"{who} shows a video", "move it to the question")
        if message.role != "assistant":
            if any(isinstance(part, (Thinking, ToolCall)) for part in message.parts):
                yield Flaw("part_place", f"{who} thinks or calls a tool", "only the assistant does")
            continue
        yield from _assistant_flaws(message, who)


def _assistant_flaws(message: Message, who: str) -> Iterator[Flaw]:
    said = [part for part in message.parts if not (isinstance(part, Text) and not part.text.strip())]
    thoughts = [at for at, part in enumerate(said) if isinstance(part, Thinking)]
    if len(thoughts) > 1 or thoughts not in ([], [0]):
        yield Flaw(
            "part_place", f"{who} thinks after it has spoken", "put one thought before everything else"
        )
    calls = [at for at, part in enumerate(said) if isinstance(part, ToolCall)]
    if calls and calls != list(range(len(said) - len(calls), len(said))):
        yield Flaw("part_place", f"{who} speaks after a tool call", "put the calls last")
