"""A training step without memory: the model's own code on tensors of shapes alone, its storages counted.

What a step keeps is what autograd, PEFT, autocast and the loss really hold on to; no formula has to know it.
Integers are real, since a model looks at them to find its images; all other tensors are torch's FakeTensors.
Of the blocks of a tower that are alike four are run, and one of them stands for the others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from finetune.answer_loss import teach_answers_only
from finetune.collate import encoder_outputs
from finetune.encoded import Encoded
from finetune.features import Numbers, image_features
from finetune.ledger import Ledger
from finetune.preference import preference_loss, rewards, score_pairs

# Blocks of a kind that are run: the first one, whose input may need no gradient, and the last three. The last
# but one stands for those left out: no feature of an image enters beside it, and where the last one begins
# nothing is held any more but what it keeps.
_RUN = 4


@dataclass(frozen=True)
class Step:
    """Bytes that one pass, forward and backward, holds beside weights and optimizer state.

    held: the most at a time that are no gradients. gradients: of all trained weights, at the end. together:
    the most of both at a time, where the pass starts without gradients.
    """

    held: int
    gradients: int
    together: int


@dataclass(frozen=True)
class Seen:
    """Bytes of one pass over prompts, without gradients: the most at a time; a layer's keys and values."""

    held: int
    cache: int


class _Watched(nn.Module):
    """A block that notes when it is run, forward and backward."""

    def __init__(self, block: nn.Module, ledger: Ledger) -> None:
        super().__init__()
        self.block, self.ledger = block, ledger
        self.began = self.before = 0
        self.back: int | None = None
        self.ended: int | None = None

    @property
    def gradients(self) -> int:
        """Bytes of the gradients of one block."""
        return sum(each.nbytes for each in self.block.parameters() if each.requires_grad)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        self.began, self.before = self.ledger.now, self.ledger.live
        if hidden_states.requires_grad:
            hidden_states.register_hook(self._note_end)
        out = self.block(hidden_states, *args, **kwargs)
        if not isinstance(out, Tensor):
            raise TypeError(f"{type(self.block).__name__} gives no tensor")
        if out.requires_grad:
            out.register_hook(self._note_back)
        return out

    def _note_back(self, _: Tensor) -> None:
        self.back = self.ledger.now

    def _note_end(self, _: Tensor) -> None:
        self.ended = self.ledger.now


def base_of(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The model of transformers, under an adapter or not."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(base, PreTrainedModel):
        raise TypeError(f"{type(base).__name__} is not a model of transformers")
    return base


def dry_step(
    model: PreTrainedModel | PeftModel,
    batch: Mapping[str, Tensor],
    *,
    recomputed: int,
    autocast: bool,
    features: Mapping[str, Any] | None = None,
    pairs: bool = False,
) -> Step:
    """What one pass of `model` over `batch` holds; `model` lies on the meta device and is used up.

    batch: as the collator makes it, labels included; of pairs, it is scored by the reference too. features:
    its FEATURES, where they take the place of pixels.
    recomputed: every how many blocks one is computed again, 0 for none. autocast: to bfloat16, as the trainer
    does without DeepSpeed.
    """
    base = base_of(model)
    ledger = Ledger()
    teach_answers_only(base)
    model.train()
    if recomputed:
        base.gradient_checkpointing_enable({"use_reentrant": False}, every_n_layers=recomputed)
    left = _without_memory(model, ledger)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(
                lambda each: ledger.is_gradient(each.grad) if each.grad is not None else None
            )
    inputs: dict[str, Any] = {name: _input(values, ledger.shapes) for name, values in batch.items()}
    labels = inputs.pop("labels")
    seen = tree_map(lambda each: _input(each, ledger.shapes), features or {})
    with ledger:
        for each in (labels, *inputs.values(), *tree_leaves(seen)):
            if isinstance(each, Tensor):
                ledger.count(each)
        if seen:
            inputs["mm_encoder_outputs"] = encoder_outputs(seen)
        with torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext():
            loss = _loss(model, {**inputs, "use_cache": False, "answer_labels": labels}, pairs)
        forward = ledger.now
        loss.backward()
    return _whole(ledger, left, forward)


def dry_prompt(model: PreTrainedModel, batch: Mapping[str, Tensor], *, autocast: bool) -> Seen:
    """What the pass holds that reads `batch`, prompts of one length, before the first token is written.

    model: on the meta device, used up. autocast: to bfloat16, as in training.
    """
    ledger = Ledger()
    model.eval()
    left = _without_memory(model, ledger)
    inputs = {name: _input(values, ledger.shapes) for name, values in batch.items()}
    with torch.no_grad(), ledger:
        for each in inputs.values():
            ledger.count(each)
        with torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext():
            cache = model(**inputs, use_cache=True, logits_to_keep=1).past_key_values
    layers = [each for each in cache.layers if each.is_initialized]
    size = sum(each.keys.nbytes + each.values.nbytes for each in layers)
    return Seen(_whole(ledger, left, ledger.now).held, size // len(layers))


def dry_features(
    model: PreTrainedModel, rows: Sequence[Encoded], dtype: torch.dtype, numbers: Numbers, *, autocast: bool
) -> tuple[list[Encoded], int]:
    """What `image_features` makes of rows with images, as tensors of shapes alone, and the bytes that making
    it holds at most, the rows' own pixels among them.

    model: on the meta device, used up. autocast: to bfloat16, as in training.
    """
    ledger = Ledger()
    left = _without_memory(model, ledger)
    given = [
        replace(each, images={name: _input(values, ledger.shapes) for name, values in each.images.items()})
        for each in rows
    ]
    with ledger:
        for each in given:
            for values in each.images.values():
                ledger.count(values)
        with torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext():
            made = image_features(model, given, dtype, numbers)
    return made, _whole(ledger, left, ledger.now).held


def _without_memory(model: nn.Module, ledger: Ledger) -> list[_Left]:
    """Thin `model`, put shapes in the place of its tensors, and leave these out of the ledger."""
    left = _thin(model, ledger)
    _take_shapes(model, ledger.shapes)
    for weight in [*model.parameters(), *model.buffers()]:
        ledger.leave_out(weight)
    return left


def _loss(model: PreTrainedModel | PeftModel, asked: Mapping[str, Any], pairs: bool) -> Tensor:
    if not pairs:
        return model(**asked)[0]
    if not isinstance(model, PeftModel):
        raise TypeError(f"{type(model).__name__} has no adapter to switch off")
    scored = score_pairs(model, model, asked)
    return preference_loss(*rewards(scored.policy, scored.reference, 1.0)).sum()


def _input(values: Tensor, shapes: FakeTensorMode) -> Tensor:
    if not values.is_floating_point():
        return values
    # Of features only the shapes are known, which another pass has found.
    return FakeTensor(
        shapes, torch.empty(values.shape, dtype=values.dtype, device="meta"), torch.device("cpu")
    )


def _signature(block: GradientCheckpointingLayer) -> tuple[Any, ...]:
    shapes = ((name, each.shape, each.dtype, each.requires_grad) for name, each in block.named_parameters())
    return (type(block), block.gradient_checkpointing, *shapes)


@dataclass(frozen=True)
class _Left:
    """Blocks left out: how many, the one that stands for them, and the one behind it."""

    count: int
    like: _Watched
    behind: _Watched


def _thin(model: nn.Module, ledger: Ledger) -> list[_Left]:
    """Leave four of all blocks that are alike in each list of blocks."""
    found: list[_Left] = []
    for blocks in [each for each in model.modules() if isinstance(each, nn.ModuleList)]:
        alike: dict[tuple[Any, ...], list[int]] = {}
        for place, block in enumerate(blocks):
            if isinstance(block, GradientCheckpointingLayer):
                alike.setdefault(_signature(block), []).append(place)
        thinned = [places for places in alike.values() if len(places) > _RUN]
        for places in thinned:
            for place in places[1 : 1 - _RUN]:
                _stand(blocks[place])
        for places in thinned:
            # Behind it comes the next of the list, of whatever kind, run or not.
            like, behind = (_watched(blocks, place, ledger) for place in (places[-2], places[-2] + 1))
            found.append(_Left(len(places) - _RUN, like, behind))
    return found


def _stand(block: nn.Module) -> None:
    """Let `block` give what it is given; it stays of its class, by which Molmo2's vision tower finds the
    blocks whose states it hands on."""
    for name, _ in [*block.named_children(), *block.named_parameters(recurse=False)]:
        delattr(block, name)
    block.gradient_checkpointing = False  # pyright: ignore[reportArgumentType]
    block.forward = _same  # pyright: ignore[reportAttributeAccessIssue]


def _same(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden_states


def _watched(blocks: nn.ModuleList, place: int, ledger: Ledger) -> _Watched:
    block = blocks[place]
    watched = block if isinstance(block, _Watched) else _Watched(block, ledger)
    blocks[place] = watched
    return watched


def _take_shapes(model: nn.Module, shapes: FakeTensorMode) -> None:
    """Put shapes on the CPU in the place of all tensors of a model on the meta device."""
    done: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            if parameter not in done:
                fake = FakeTensor(shapes, parameter.detach(), torch.device("cpu"))
                done[parameter] = nn.Parameter(fake, parameter.requires_grad)
            module.register_parameter(name, done[parameter])
        for name, buffer in list(module.named_buffers(recurse=False)):
            kept = name not in module._non_persistent_buffers_set
            module.register_buffer(name, FakeTensor(shapes, buffer, torch.device("cpu")), persistent=kept)


def _whole(ledger: Ledger, left: Sequence[_Left], forward: int) -> Step:
    """The step of the whole model: at every time of the run, with what the blocks left out would add."""
    held: NDArray[np.int64] = np.array(ledger.held, np.int64)
    gradients = np.array(ledger.gradients, np.int64)
    # While the blocks of a kind go backward, what is kept falls as gradients grow: the most is at either end.
    first, last = np.zeros_like(held), np.zeros_like(held)
    grown, growing = np.zeros_like(held), np.zeros_like(held)
    for each in left:
        like = each.like
        kept = each.count * (each.behind.before - like.before)
        given = each.count * like.gradients
        back = forward if like.back is None else like.back
        ended = back if like.back is None else (like.ended or len(held))
        first[like.began : ended] += kept
        last[like.began : back] += kept
        growing[back:] += given
        grown[ended:] += given
    return Step(
        held=int((held + first).max()),
        gradients=int(gradients[-1] + growing[-1]),
        together=int(
            max((held + gradients + first + grown).max(), (held + gradients + last + growing).max())
        ),
    )
