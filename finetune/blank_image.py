"""A blank image for batches without one: every process runs the vision tower, whatever its rows hold.

Where weights or their gradients are shared out, processes wait for each other at every part of the model that
runs. One whose rows are text alone would not come to the vision tower, and the others would wait for it for
ever (DeepSpeed#7170), or its gradients would be summed with those of other weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, cast

import torch
from PIL import Image
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel, ProcessorMixin

from finetune.launcher import Launcher
from lensmith.families.family import Family
from lensmith.families.vision_run import VisionRun
from lensmith.recipe import Recipe

_GREY = (127, 127, 127)


class _Seeing(Protocol):
    """What a model of every family has below its output head."""

    def get_image_features(self, **given: Tensor) -> Mapping[str, Any]: ...


def needs_blank_image(recipe: Recipe, launcher: Launcher) -> bool:
    """Whether a batch without an image must run the vision tower nevertheless.

    Weights that are divided over the processes are gathered by all of them together. A tower that learns has
    gradients of zero after a step of text alone, for one process too: without any, AdamW would leave out its
    momentum, and another number of processes would be another run.
    """
    frozen = recipe.train.towers.in_mode("freeze")
    return launcher.divides_weights or not {"vision", "connector"} <= set(frozen)


def blank_image(family: Family, processor: ProcessorMixin) -> dict[str, Tensor]:
    """The image tensors of a small grey image, as `processor` makes them for a batch of it alone."""
    picture = Image.new("RGB", family.vision_run.blank, _GREY)
    given = processor.image_processor(images=[picture], return_tensors="pt")
    return {name: torch.as_tensor(given[name]) for name in family.vision_run.takes}


def see_blank_image(model: PreTrainedModel, family: Family, blank: Mapping[str, Tensor]) -> None:
    """Let `model` run its vision tower and connector on `blank` wherever a batch leaves them out.

    Tokens, loss and gradients stay what they are: what comes out is thrown away, its gradients are zero. It
    runs where the batch's own images would, before the language model: the order in which weights are
    gathered is the same. To be called before DeepSpeed or FSDP hooks into the modules.
    """
    filler = _Filler(model, family, blank)
    model.base_model.register_forward_pre_hook(filler.notice, with_kwargs=True)
    language, *_ = family.towers["language"]
    model.get_submodule(language).register_forward_pre_hook(filler.fill, with_kwargs=True)


class _Filler:
    """The two hooks of a model: what the batch has, and what it lacks."""

    def __init__(self, model: PreTrainedModel, family: Family, blank: Mapping[str, Tensor]) -> None:
        self.model = model
        self.run: VisionRun = family.vision_run
        self.vision, self.connector = (family.towers[tower][0] for tower in ("vision", "connector"))
        self.blank = blank
        self.present: set[str] = set()

    def notice(self, _: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        """Before the whole model: which image tensors the batch has."""
        self.present = {name for name in self.run.takes if given.get(name) is not None}

    def fill(
        self, _: nn.Module, args: tuple[Any, ...], given: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Before the language model: run what the batch left out."""
        cache = given.get("past_key_values")
        if cache is not None and cache.get_seq_length():
            # A token that is being generated; its prompt has run the tower.
            return None
        embeddings = given["inputs_embeds"]
        features = list(self._features(embeddings))
        if not features:
            return None
        return args, {**given, "inputs_embeds": _Unchanged.apply(embeddings, *features)}

    def _features(self, embeddings: Tensor) -> Iterator[Tensor]:
        blank = {
            name: values.to(embeddings.device, embeddings.dtype if values.is_floating_point() else None)
            for name, values in self.blank.items()
        }
        if not self.present:
            found = cast(_Seeing, self.model.base_model).get_image_features(**blank)
            for name in self.run.gives:
                yield from _tensors(found[name])
        elif self.run.views and self.run.views not in self.present:
            seen = self.model.get_submodule(self.vision)(blank[self.run.views][:1])
            yield self.model.get_submodule(self.connector)(seen.last_hidden_state)


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    else:
        for each in values:
            yield from _tensors(each)


class _Unchanged(torch.autograd.Function):
    """Its first tensor, bit by bit; the others get gradients of zero, infinite or not as they may be."""

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, *features: Tensor) -> Tensor:
        ctx.save_for_backward(*features)
        return embeddings.view_as(embeddings)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, upstream: Tensor
    ) -> tuple[Tensor, ...]:
        return upstream, *(torch.zeros_like(each) for each in ctx.saved_tensors)
