"""One labelled conversation with its images: the only conversation type in Lensmith."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = get_args(Role)
RegionKind = Literal["box", "point", "span"]
# How many numbers each kind of region has.
REGION_VALUES: dict[RegionKind, int] = {"box": 4, "point": 2, "span": 2}


@dataclass(frozen=True)
class Text:
    """A stretch of text in a message."""

    text: str


@dataclass(frozen=True)
class Image:
    """An image in a message.

    `path` is relative to the data's root. `digest` is of its upright pixels (see `images.pixel_digest`),
    empty until the image was decoded. `size` is (width, height) in pixels: as handed over the size that
    regions were drawn on, (0, 0) where nobody says; once decoded the upright image's.
    """

    path: str
    digest: str = ""
    size: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Video:
    """A video in a message, as frames that were sampled of it; without sound.

    `path` as an image's. `frames` are in the order of time, an even number; `seconds` says when each is
    shown, counted from the first frame of the video, and `duration` how long it all lasts; empty and 0 until
    the video was opened.
    """

    path: str
    frames: tuple[Image, ...] = ()
    seconds: tuple[float, ...] = ()
    duration: float = 0.0


@dataclass(frozen=True)
class Region:
    """A place in an image, in the one form it is stored in, whatever form a family writes it in.

    box: (x0, y0, x1, y1) and point: (x, y), relative to the upright original, 0 to 1, y downwards; span:
    (start, end) in seconds of a video. `image` counts the images of the sample's messages from 0, of a span
    its videos where it has any.
    """

    kind: RegionKind
    values: tuple[float, ...]
    label: str = ""
    image: int = 0


@dataclass(frozen=True)
class Thinking:
    """Reasoning before an assistant's answer; whether it carries loss is the recipe's choice."""

    text: str


@dataclass(frozen=True)
class ToolCall:
    """An assistant's call of a tool that the sample defines; a `tool` message answers it."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


Part = Text | Image | Video | Region | Thinking | ToolCall


@dataclass(frozen=True)
class Message:
    """What one side says: its parts in order.

    rejected: of an answer, the parts of one that people found worse (preference data); else empty.
    """

    role: Role
    parts: tuple[Part, ...]
    rejected: tuple[Part, ...] = ()

    @property
    def text(self) -> str:
        """All text of the message, joined; without regions, thinking and calls."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


@dataclass(frozen=True)
class Origin:
    """Where a row comes from and who labelled it, as far as anyone said; "" is unknown.

    `labelled_at` is an ISO 8601 date or time; `licence` an SPDX name or the owner's words.
    """

    source: str = ""
    licence: str = ""
    consent: str = ""
    labeller: str = ""
    guideline: str = ""
    labelled_at: str = ""


@dataclass(frozen=True)
class Sample:
    """A row: a conversation that ends with the answer to be learned.

    `group` ties rows that must not be split apart (a customer, a document). `tools` are JSON Schema
    function definitions, as chat templates read them.
    """

    id: str
    group: str
    messages: tuple[Message, ...]
    meta: dict[str, Any] = field(default_factory=dict)
    tools: tuple[dict[str, Any], ...] = ()
    origin: Origin = Origin()

    @property
    def images(self) -> tuple[Image, ...]:
        """Every picture that the row shows, in order: its images, and the frames of its videos."""
        return tuple(picture for part in self.parts() for picture in pictures_of(part))

    @property
    def stills(self) -> tuple[Image, ...]:
        """The images alone."""
        return tuple(part for part in self.parts() if isinstance(part, Image))

    @property
    def videos(self) -> tuple[Video, ...]:
        """The videos alone."""
        return tuple(part for part in self.parts() if isinstance(part, Video))

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The conversation up to, not including, the final answer."""
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        """The text of the final assistant message."""
        return self.messages[-1].text

    @property
    def rejected(self) -> tuple[Part, ...]:
        """The parts of the answer that people found worse, empty where there is none."""
        return self.messages[-1].rejected if self.messages else ()

    def with_rejected(self) -> Sample:
        """The same conversation ending with the rejected answer."""
        return replace(self, messages=(*self.prompt, Message(self.messages[-1].role, self.rejected)))

    def parts(self) -> Iterator[Part]:
        """Every part of every message, in order; of no rejected answer."""
        return (part for message in self.messages for part in message.parts)


def pictures_of(part: Part) -> tuple[Image, ...]:
    """The pictures that a part shows, in order."""
    match part:
        case Image():
            return (part,)
        case Video(frames=frames):
            return frames
        case _:
            return ()


def dump_messages(messages: Sequence[Message]) -> str:
    """Messages as the JSON text of a dataset artifact's `messages` column."""
    return json.dumps(
        [
            {
                "role": message.role,
                "content": [_dump_part(part) for part in message.parts],
                # Only where there is one: datasets without preferences stay what they are.
                **({"rejected": [_dump_part(part) for part in message.rejected]} if message.rejected else {}),
            }
            for message in messages
        ],
        ensure_ascii=False,
    )


_NAMES: dict[type[Part], str] = {
    Text: "text",
    Image: "image",
    Video: "video",
    Region: "region",
    Thinking: "thinking",
    ToolCall: "tool_call",
}


def _dump_part(part: Part) -> dict[str, Any]:
    return {"type": _NAMES[type(part)], **asdict(part)}


def _load_part(content: dict[str, Any]) -> Part:
    # JSON has no tuples.
    match content["type"]:
        case "text":
            return Text(content["text"])
        case "image":
            return _load_image(content)
        case "video":
            frames = tuple(_load_image(each) for each in content["frames"])
            return Video(content["path"], frames, tuple(content["seconds"]), content["duration"])
        case "region":
            return Region(content["kind"], tuple(content["values"]), content["label"], content["image"])
        case "thinking":
            return Thinking(content["text"])
        case _:
            return ToolCall(content["name"], content["arguments"])


def _load_image(content: dict[str, Any]) -> Image:
    width, height = content["size"]
    return Image(content["path"], content["digest"], (width, height))


def load_messages(text: str) -> tuple[Message, ...]:
    """The inverse of `dump_messages`."""
    return tuple(
        Message(
            message["role"],
            tuple(_load_part(part) for part in message["content"]),
            tuple(_load_part(part) for part in message.get("rejected", ())),
        )
        for message in json.loads(text)
    )
