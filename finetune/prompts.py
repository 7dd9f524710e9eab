"""A conversation as the model is asked it: rendered by the checkpoint's own template, images expanded."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import ProcessorMixin

from finetune.videos import as_images, check_scaled, videos_given
from lensmith.families.family import Family
from lensmith.rendering import Rendering
from lensmith.sample import Sample
from lensmith.video_tokens import apart


def render_text(processor: ProcessorMixin, rendering: Rendering, sample: Sample, *, answered: bool) -> str:
    """The conversation as the checkpoint's template writes it, one placeholder an image.

    Up to its answer and with the generation prompt, as the served model is asked, or answered: by the
    template, or for a family that keeps answers apart by the answer's text and the end-of-turn token. A token
    that the family's processor puts before every prompt is there too.
    """
    family = rendering.family
    apart = answered and family.answers == "apart"
    text = processor.apply_chat_template(
        rendering.messages(sample.messages if answered and not apart else sample.prompt),
        tools=rendering.tools(sample),
        tokenize=False,
        add_generation_prompt=not answered or apart,
    )
    if family.leads:
        tokenizer = processor.tokenizer
        lead = tokenizer.bos_token or tokenizer.eos_token
        text = text if text.startswith(lead) else lead + text
    if apart:
        text += rendering.answer(sample.messages[-1]) + processor.tokenizer.eos_token
    return text


def encode_conversation(
    processor: ProcessorMixin,
    rendering: Rendering,
    sample: Sample,
    images: Sequence[bytes],
    *,
    answered: bool,
) -> dict[str, torch.Tensor]:
    """The model's inputs for one conversation: `input_ids` int64 [1, length] and what belongs to them.

    `images` are encoded pictures in the order of `sample.images`; each becomes as many tokens as the
    processor's pixel budget gives it.
    """
    text = render_text(processor, rendering, sample, answered=answered)
    return processed(processor, rendering.family, text, sample, images)


def processed(
    processor: ProcessorMixin, family: Family, text: str, sample: Sample, images: Sequence[bytes]
) -> dict[str, torch.Tensor]:
    """What `processor` makes of a rendered conversation and the encoded pictures of `sample`, batch of one.

    Groups of frames of a video are images there (see `finetune.videos`). Raises InputError as `as_images` and
    `check_scaled`.
    """
    pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in images]
    stills, videos = apart(sample, pictures)
    asked: dict[str, Any] = {}
    if family.video and videos:
        check_scaled(processor)
        asked = videos_given(family.video, videos)
    given = processor(
        text=[text],
        images=stills or None,
        add_special_tokens=False,  # pyright: ignore[reportCallIssue]
        return_tensors="pt",  # pyright: ignore[reportCallIssue]
        **asked,
    )
    return as_images(given, family, text, sample, processor) if videos else dict(given)
