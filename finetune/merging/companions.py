"""The files beside the weights: copied from the base byte by byte, but for the recipe's pixel budget."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from lensmith.adapter_files import ADAPTER_CONFIG
from lensmith.artifact import MANIFEST, RECORD
from lensmith.base import is_legal
from lensmith.tokens import PixelBudget

# What a checkpoint is made of beside its weights. Everything else stays behind: code, pickles, readmes.
_SUFFIXES = (".json", ".jinja", ".txt", ".model", ".tiktoken")
_NOT_COMPANIONS = (
    "model.safetensors.index.json",
    MANIFEST,
    RECORD,
    ADAPTER_CONFIG,
    "trainer_state.json",
)

# Where a checkpoint's image processor is described, and under which key ("" for the whole file).
IMAGE_PROCESSORS = {"preprocessor_config.json": "", "processor_config.json": "image_processor"}
PIXEL_KEYS = ("size", "min_pixels", "max_pixels")


def companions(root: Path) -> list[Path]:
    """The files beside the weights in the checkpoint `root`, by name."""
    return [
        path
        for path in sorted(root.iterdir())
        if path.is_file()
        and path.name not in _NOT_COMPANIONS
        and (path.suffix in _SUFFIXES or is_legal(path.name))
    ]


def copy_companions(root: Path, target: Path, pixels: PixelBudget | None) -> None:
    """Copy the files beside the weights from `root` to `target`, with `pixels` written into the processor."""
    for path in companions(root):
        if pixels is not None and path.name in IMAGE_PROCESSORS:
            content = json.loads(path.read_bytes())
            set_pixels(content, IMAGE_PROCESSORS[path.name], pixels)
            text = json.dumps(content, indent=2, ensure_ascii=False)
            (target / path.name).write_text(text + "\n", encoding="utf-8")
        else:
            shutil.copyfile(path, target / path.name)


def set_pixels(content: dict[str, Any], section: str, pixels: PixelBudget) -> None:
    """Put the pixel budget into an image processor's settings, in the keys that the checkpoint has."""
    settings = content.get(section) if section else content
    if settings is None:
        return
    settings["size"] = {"shortest_edge": pixels.min_pixels, "longest_edge": pixels.max_pixels}
    for key, value in (("min_pixels", pixels.min_pixels), ("max_pixels", pixels.max_pixels)):
        if key in settings:
            settings[key] = value
