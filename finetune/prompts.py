"""A conversation as the model is asked it: rendered by the checkpoint's own template, images expanded."""

from __future__ import annotations

import io
from collections.abc import Sequence

import torch
from PIL import Image
from transformers import ProcessorMixin

from lensmith.sample import Message, chat_messages


def encode_conversation(
    processor: ProcessorMixin,
    messages: Sequence[Message],
    images: Sequence[bytes],
    *,
    add_generation_prompt: bool,
) -> dict[str, torch.Tensor]:
    """The model's inputs for one conversation: `input_ids` int64 [1, length] and what belongs to them.

    `images` are encoded pictures in the order of the messages' image parts; each becomes as many tokens as
    the processor's pixel budget gives it.
    """
    text = processor.apply_chat_template(
        chat_messages(messages), tokenize=False, add_generation_prompt=add_generation_prompt
    )
    pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in images]
    given = processor(
        text=[text],
        images=pictures or None,
        add_special_tokens=False,  # pyright: ignore[reportCallIssue]
        return_tensors="pt",  # pyright: ignore[reportCallIssue]
    )
    return dict(given)
