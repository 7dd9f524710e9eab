"""The families' tiny checkpoints, each made once, and recipes that train on them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from tiny_families import MAKERS, write_tiny
from transformers import PreTrainedModel, ProcessorMixin
from transformers.utils import logging

from lensmith import families
from lensmith.families.family import TOWERS, Family, Tower
from lensmith.images import encode_png
from lensmith.recipe import Recipe
from lensmith.row_file import Row
from lensmith.sample import Image, Message, Sample, Text, Video
from tests.artifacts import answering_here
from tests.conftest import recipe_content

Size = tuple[int, int]


@dataclass(frozen=True)
class Checkpoint:
    """A family's tiny checkpoint on disk."""

    family: Family
    root: Path

    def load(self) -> PreTrainedModel:
        import torch

        from finetune.model import load_model

        return load_model(self.root, torch.float32)

    @cached_property
    def processor(self) -> ProcessorMixin:
        from finetune.model import load_processor

        return load_processor(self.root, None)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The config as the class holds it."""
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(self.root, local_files_only=True).to_dict()

    def recipe(self, method: str = "lora", **modes: str) -> Recipe:
        """A recipe that trains `modes` by tower, the other towers frozen."""
        content = recipe_content(self.root, self.root)
        train = {"method": method, "towers": dict.fromkeys(TOWERS, "freeze") | modes, "max_length": 4096}
        return Recipe.model_validate(
            content | {"family": self.family.name, "train": content["train"] | train}
        )


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    """Every family's checkpoint; one takes a tenth of a second."""
    logging.disable_progress_bar()
    os.environ["HF_HUB_OFFLINE"] = "1"
    root = tmp_path_factory.mktemp("families")
    return {name: Checkpoint(families.get(name), write_tiny(name, root / name)) for name in families.FAMILIES}


@pytest.fixture
def answered_here() -> Iterator[None]:
    """The reference without its process, see `answering_here`."""
    with answering_here():
        yield


@pytest.fixture(params=list(families.FAMILIES))
def checkpoint(request: pytest.FixtureRequest, made: dict[str, Checkpoint]) -> Checkpoint:
    """The checkpoint of each family in turn."""
    return made[request.param]


def towers_of(family: str, method: str) -> list[Tower]:
    """The towers that a method can train."""
    return [tower for tower in TOWERS if method == "full" or families.get(family).adaptable(tower)]


def row_of(answer: str, *sizes: Size, question: str = "Read the form.") -> Row:
    """A row with images of these sizes (width, height)."""
    images = tuple(Image(f"{place}.png", f"{place:04x}", size) for place, size in enumerate(sizes))
    messages = (Message("user", (*images, Text(question))), Message("assistant", (Text(answer),)))
    pictures = tuple(_noise(f"{answer} {place}", size) for place, size in enumerate(sizes))
    return Row(Sample("a", "g", messages), pictures)


def video_row(frames: int, size: Size, *stills: Size, rate: float = 0.7, answer: str = "seven") -> Row:
    """A row with a video of so many frames, and images before and behind it in turn."""
    named = tuple(Image(f"{at}", f"{at:04x}", size) for at in range(frames))
    video = Video("a.mp4", named, tuple(each * rate for each in range(frames)), frames * rate)
    images = [Image(f"still {at}", f"{at:08x}", each) for at, each in enumerate(stills)]
    parts = (*images[1:], Text("See "), video, *images[:1], Text("Which digits?"))
    sample = Sample("v", "g", (Message("user", parts), Message("assistant", (Text(answer),))))
    return Row(sample, tuple(_noise(each.path, each.size) for each in sample.images))


def _noise(name: str, size: Size) -> bytes:
    """Grey noise as a PNG: the same for a name in every process, whatever was made before it."""
    width, height = size
    values = np.random.default_rng(list(name.encode())).normal(128, 60, (height, width))
    return encode_png(Picture.fromarray(values.clip(0, 255).astype(np.uint8)).convert("RGB"))


assert MAKERS.keys() == families.FAMILIES.keys(), "each family has a tiny checkpoint"
