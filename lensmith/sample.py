"""One labelled conversation with its images: the only conversation type in Lensmith."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant")


@dataclass(frozen=True)
class Text:
    """A stretch of text in a message."""

    text: str


@dataclass(frozen=True)
class Image:
    """An image in a message. `path` is relative to the data's root; `digest` is of its upright pixels
    (see `images.pixel_digest`), empty until the image was decoded."""

    path: str
    digest: str = ""


@dataclass(frozen=True)
class Message:
    """What one side says: texts and images in order."""

    role: Role
    parts: tuple[Text | Image, ...]

    @property
    def text(self) -> str:
        """All text of the message, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


@dataclass(frozen=True)
class Sample:
    """A row: a conversation that ends with the answer to be learned.

    `group` ties rows that must not be split apart (a customer, a document).
    """

    id: str
    group: str
    messages: tuple[Message, ...]
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def images(self) -> tuple[Image, ...]:
        return tuple(part for message in self.messages for part in message.parts if isinstance(part, Image))

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The conversation up to, not including, the final answer."""
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        """The text of the final assistant message."""
        return self.messages[-1].text


def chat_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as a chat template of transformers reads them; images are bare placeholders."""
    return [
        {
            "role": message.role,
            "content": [
                {"type": "text", "text": part.text} if isinstance(part, Text) else {"type": "image"}
                for part in message.parts
            ],
        }
        for message in messages
    ]


def dump_messages(messages: Sequence[Message]) -> str:
    """Messages as the JSON text of a dataset artifact's `messages` column."""
    return json.dumps(
        [
            {
                "role": message.role,
                "content": [
                    {"type": "text", "text": part.text}
                    if isinstance(part, Text)
                    else {"type": "image", "path": part.path, "digest": part.digest}
                    for part in message.parts
                ],
            }
            for message in messages
        ],
        ensure_ascii=False,
    )


def load_messages(text: str) -> tuple[Message, ...]:
    """The inverse of `dump_messages`."""
    return tuple(
        Message(
            message["role"],
            tuple(
                Text(part["text"]) if part["type"] == "text" else Image(part["path"], part["digest"])
                for part in message["content"]
            ),
        )
        for message in json.loads(text)
    )
