"""One conversation, one rendering: what a chat template reads, for training and for serving alike.

Whatever asks or teaches a model goes through `Rendering`: regions become the family's text, thoughts and
tool calls the fields that chat templates know, calls get ids, and tool definitions are completed to what vLLM
makes of them, so that the prompt over HTTP has the same tokens as the one that was trained on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from lensmith.coordinates import CoordinateForm, written_values
from lensmith.errors import InputError, Problem
from lensmith.families.family import Family
from lensmith.region_text import write_regions
from lensmith.sample import Image, Message, Part, Region, Sample, Text, Thinking, ToolCall, Video

ThinkingChoice = Literal["keep", "mask", "drop"]
# In the arguments of a call: {"$image": 0} is an image of the sample, {"$box": [x0, y0, x1, y1]} and
# {"$point": [x, y]} a place in the stored, relative form. Each family writes them its own way.
IMAGE_ARGUMENT, BOX_ARGUMENT, POINT_ARGUMENT = "$image", "$box", "$point"


@dataclass(frozen=True)
class Rendering:
    """How samples are put to a family's models.

    thinking: "keep" renders a sample's thoughts (the final answer's carries loss), "mask" renders them too
    (none carries loss), "drop" leaves them out.
    """

    family: Family
    thinking: ThinkingChoice = "keep"

    @property
    def writes_tools(self) -> bool:
        """Whether the family's chat template knows tools and their calls."""
        return self.family.speech.call is not None

    @property
    def writes_thoughts(self) -> bool:
        """Whether a sample's thoughts can be there: the template knows them, or they are left out."""
        return self.family.speech.thinking is not None or self.thinking == "drop"

    def takes(self, messages: Sequence[Message]) -> bool:
        """Whether the family's chat template has a place for each: one family's has none for the system."""
        return self.family.speech.system or not any(each.role == "system" for each in messages)

    def messages(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Messages as chat templates of transformers read them; images are bare places.

        role; content: parts of type text, image and video, neighbouring texts joined; of an assistant besides
        reasoning_content (a string) and tool_calls (id, type, function with name and arguments, a mapping);
        of a tool tool_call_id, and its content is a string where it shows no image. Raises InputError for
        thoughts, calls and videos that the family's chat template would leave out.
        """
        if not self.takes(messages):
            raise self._cannot("system messages", "begin with the user's")
        rendered: list[dict[str, Any]] = []
        called = 0
        waiting: list[str] = []
        for message in messages:
            each: dict[str, Any] = {"role": message.role, "content": self._content(message.parts)}
            if message.role == "tool" and not any(isinstance(part, Image) for part in message.parts):
                # Many templates take a list for several results; vLLM makes one string of texts.
                each["content"] = "".join(part["text"] for part in each["content"])
            if thought := self._thought(message):
                each["reasoning_content"] = thought
            if calls := [part for part in message.parts if isinstance(part, ToolCall)]:
                if not self.writes_tools:
                    raise self._cannot("tool calls", "leave out its rows, or choose another family")
                waiting = [f"call_{called + at}" for at in range(len(calls))]
                called += len(calls)
                each["tool_calls"] = [
                    {"id": name, "type": "function", "function": self._function(call)}
                    for name, call in zip(waiting, calls, strict=True)
                ]
            if message.role == "tool" and waiting:
                each["tool_call_id"] = waiting.pop(0)
            rendered.append(each)
        return rendered

    def tools(self, sample: Sample) -> list[dict[str, Any]] | None:
        """The sample's tool definitions with every field that vLLM fills in, in its order; None for none.

        Raises InputError for a family whose chat template knows no tools.
        """
        if sample.tools and not self.writes_tools:
            raise self._cannot("tools", f"leave out row {sample.id}, or choose another family")
        return [_tool(each) for each in sample.tools] or None

    def answer(self, message: Message) -> str:
        """The text that a model gives to say `message`, without what its prompt and end-of-turn hold."""
        thought = self._thought(message)
        tags = self.family.speech.thinking
        return (f"{tags[0]}{thought}{tags[1]}" if thought and tags else "") + self.said(message)

    def said(self, message: Message) -> str:
        """As `answer`, without the thought: what answers are judged by."""
        text = "".join(part["text"] for part in self._content(message.parts) if part["type"] == "text")
        calls = [self._call(part) for part in message.parts if isinstance(part, ToolCall)]
        return "\n".join([*([text] if text else []), *calls])

    def learned(self, message: Message) -> str:
        """As `answer`, without what carries no loss: what a row teaches."""
        return self.said(message) if self.thinking == "mask" else self.answer(message)

    def masked_end(self, message: Message) -> str:
        """The tag up to which a model's `answer` carries no loss, "" where all of it does."""
        tags = self.family.speech.thinking
        return tags[1].strip() if tags and self.thinking == "mask" and self._thought(message) else ""

    def spoken(self, answer: str) -> str:
        """A model's answer without its thought, to be held against `said`."""
        if self.family.speech.thinking is None:
            return answer
        before, behind = (each.strip() for each in self.family.speech.thinking)
        head, closed, rest = answer.partition(behind)
        if closed:
            return rest.lstrip("\n")
        # A thought that was never ended says nothing.
        return "" if head.lstrip().startswith(before) else answer

    def _thought(self, message: Message) -> str:
        if self.thinking == "drop":
            return ""
        thought = "".join(part.text for part in message.parts if isinstance(part, Thinking)).strip("\n")
        if thought and not self.writes_thoughts:
            raise self._cannot("thoughts", "set train.thinking: drop")
        return thought

    def _content(self, parts: Sequence[Part]) -> list[dict[str, Any]]:
        if self.family.video is None and any(isinstance(part, Video) for part in parts):
            raise self._cannot("videos", "leave out its rows, or choose another family")
        content: list[dict[str, Any]] = []
        for kind, run in groupby(_merged(parts, self.family.coordinates), key=lambda each: each[0]):
            if kind == "text":
                content.append({"type": kind, "text": "".join(text for _, text in run)})
            else:
                content += [{"type": kind} for _ in run]
        return content

    def _cannot(self, what: str, mend: str) -> InputError:
        title = self.family.title
        return InputError(f"{title} has no {what}", [Problem("its chat template knows none", title, mend)])

    def _function(self, call: ToolCall) -> dict[str, Any]:
        return {"name": call.name, "arguments": self._arguments(call.arguments)}

    def _arguments(self, value: Any) -> Any:
        """Arguments with images and places as the family writes them."""
        if isinstance(value, list):
            return [self._arguments(each) for each in value]
        if not isinstance(value, Mapping):
            return value
        match dict(value):
            case {"$image": int(number), **rest} if not rest:
                name = self.family.speech.image
                return number if name == "{}" else name.format(number)
            case {"$box": list(numbers), **rest} if not rest:
                return _place(Region("box", tuple(numbers)), self.family.coordinates)
            case {"$point": list(numbers), **rest} if not rest:
                return _place(Region("point", tuple(numbers)), self.family.coordinates)
        return {key: self._arguments(each) for key, each in value.items()}

    def _call(self, call: ToolCall) -> str:
        if not self.writes_tools:
            raise self._cannot("tool calls", "leave out its rows, or choose another family")
        arguments = self._arguments(call.arguments)
        if self.family.speech.call == "json":
            return f'<tool_call>\n{{"name": "{call.name}", "arguments": {_json(arguments)}}}\n</tool_call>'
        values = "".join(
            f"<arg_key>{key}</arg_key>\n"
            f"<arg_value>{each if isinstance(each, str) else _json(each)}</arg_value>\n"
            for key, each in arguments.items()
        )
        return f"<tool_call>{call.name}\n{values}</tool_call>"


def _json(value: Any) -> str:
    # As the `tojson` filter of transformers' chat templates writes it.
    return json.dumps(value, ensure_ascii=False)


def _place(region: Region, form: CoordinateForm) -> list[float]:
    return [int(each) if form.decimals == 0 else each for each in written_values(region, form)]


def _merged(parts: Sequence[Part], form: CoordinateForm) -> Iterator[tuple[str, str]]:
    """("text", its text) of each part that is text, one of each run of regions; "image" or "video" and ""."""
    for kind, run in groupby(parts, key=type):
        if kind is Region:
            yield "text", write_regions([part for part in run if isinstance(part, Region)], form)
            continue
        for part in run:
            if isinstance(part, Text):
                yield "text", part.text
            elif isinstance(part, Image | Video):
                yield ("image" if isinstance(part, Image) else "video"), ""


def _tool(definition: dict[str, Any]) -> dict[str, Any]:
    function = definition["function"]
    return {
        "type": "function",
        "function": {
            "name": function["name"],
            "description": function.get("description", ""),
            "parameters": function.get("parameters", {"type": "object", "properties": {}}),
        },
    }
