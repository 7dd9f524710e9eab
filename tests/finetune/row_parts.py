"""What tests of encoding rows make them of: Qwen3-VL's rendering, noise, changed templates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image as Picture
from transformers import ProcessorMixin

from finetune.model import load_processor
from lensmith import families
from lensmith.images import encode_png
from lensmith.rendering import Rendering
from lensmith.row_file import Row
from lensmith.sample import Image, Message, Region, Sample, Text, Thinking, ToolCall

RENDERING = Rendering(families.get("qwen3_vl"))
ZOOM = {"type": "function", "function": {"name": "zoom", "description": "Cut out.", "parameters": {}}}
BOX = Region("box", (0.1, 0.2, 0.3, 0.4), "stamp")
LOOK = Message("assistant", (Text("I look."), ToolCall("zoom", {"bbox_2d": {"$box": [0.1, 0.2, 0.5, 0.75]}})))


def row_of(answer: str, *sizes: tuple[int, int], question: str = "Read the form.") -> Row:
    """A row with images of these sizes (width, height)."""
    images = tuple(Image(f"{place}.png", f"{place:04x}", size) for place, size in enumerate(sizes))
    sample = Sample(
        "a", "g", (Message("user", (*images, Text(question))), Message("assistant", (Text(answer),)))
    )
    pictures = tuple(encode_png(Picture.effect_noise(size, 60).convert("RGB")) for size in sizes)
    return Row(sample, pictures)


def with_template(base: Path, change: Callable[[str], str]) -> ProcessorMixin:
    processor = load_processor(base, None)
    assert processor.chat_template is not None
    changed = change(processor.chat_template)
    assert changed != processor.chat_template
    processor.chat_template = changed
    return processor


def tool_row(*last: Message) -> Row:
    """Asked, thought, called, answered with a picture; then `last`."""
    messages = (
        Message("system", (Text("Be brief."),)),
        Message("user", (Image("a.png"), Text("Read "), BOX)),
        Message("assistant", (Thinking("Too small."), *LOOK.parts)),
        Message("tool", (Text("cut: "), Image("b.png"))),
        *last,
    )
    pictures = tuple(encode_png(Picture.effect_noise((64, 64), 60).convert("RGB")) for _ in range(2))
    return Row(Sample("t", "g", messages, tools=(ZOOM,)), pictures)
