"""What a client may send in a picture's place, type as text, or ask another path, to harm an engine."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from functools import partial

from PIL import Image as Picture


def picture(*size: int, cut: int | None = None) -> str:
    data = io.BytesIO()
    Picture.new("1", size).save(data, "PNG")
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()[:cut]).decode()}"


PAD = "<|vision_start|><|image_pad|><|vision_end|>"
# By what it is: what makes the picture's address (a bomb takes seconds), None without one, and the text
# beside it.
HOSTILE: dict[str, tuple[Callable[[], str] | None, str]] = {
    "one pixel": (partial(picture, 1, 1), "Read it."),
    "thinner than 200:1": (partial(picture, 1, 4000), "Read it."),
    "a bomb": (partial(picture, 30_000, 30_000), "Read it."),
    "truncated": (partial(picture, 64, 64, cut=40), "Read it."),
    "no picture": (lambda: "data:image/png;base64,", "Read it."),
    "one image, two places for it": (partial(picture, 64, 64), f"Read {PAD} it."),
    "no image, a place for one": (None, f"Read {PAD} it."),
}
# Paths beside /v1 that vLLM 0.32 answers without its key: with answers, work, or a change of the engine.
BESIDE = ("/invocations", "/generative_scoring", "/tokenize", "/detokenize", "/scale_elastic_ep")
