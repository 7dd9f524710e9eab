"""The rows of new tokens in a model: where they lie, what they start from, and whether they are trained."""

from __future__ import annotations

from collections.abc import Iterator
from types import MethodType

import torch
from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.utils.other import TrainableTokensWrapper
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from finetune.new_tokens import NewTokens
from lensmith.errors import IntegrityError, Problem

_ACTIVE = "default"


def row_modules(model: PreTrainedModel) -> list[str]:
    """The full names of the modules with a row for each token: the embeddings, and a head of its own.

    A head that is tied to the embeddings shares their rows and is not named.
    """
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    found: list[nn.Module] = [embeddings]
    if head is not None and head.get_parameter("weight") is not embeddings.get_parameter("weight"):
        found.append(head)
    names = {module: name for name, module in model.named_modules()}
    return [names[each] for each in found]


def start_rows(model: PreTrainedModel, new: NewTokens) -> None:
    """Set each new token's rows to the mean of those of its pieces: what its text was on average before.

    In float32, rounded once. Without effect on the meta device.
    """
    for name in row_modules(model):
        weight = model.get_submodule(name).get_parameter("weight")
        with torch.no_grad():
            for token, number in new.ids.items():
                weight[number] = weight[new.pieces[token]].float().mean(0).to(weight.dtype)


def trained_rows(model: nn.Module) -> dict[str, tuple[list[int], Tensor]]:
    """By full name of each module that PEFT trains rows of: their numbers, and what they are [rows, width].

    A tied head's are the embeddings' and are not named.
    """
    return {
        name: (list(wrapper.token_adapter.token_indices[_ACTIVE]), _rows(wrapper))
        for name, wrapper in _wrappers(model)
        if wrapper.token_adapter.tied_adapter is None
    }


def _rows(wrapper: TrainableTokensWrapper) -> Tensor:
    return wrapper.token_adapter.trainable_tokens_delta[_ACTIVE]


def _wrappers(model: nn.Module) -> Iterator[tuple[str, TrainableTokensWrapper]]:
    return ((n, each) for n, each in model.named_modules() if isinstance(each, TrainableTokensWrapper))


def compute_apart(model: nn.Module) -> None:
    """Let a wrapped model compute with its rows beside the matrix that they belong to.

    The same function as PEFT 0.21's (tuners/trainable_tokens/layer.py), which writes the rows into a copy of
    the whole matrix at every pass, and takes a gradient of all of it.
    """
    for _, wrapper in _wrappers(model):
        layer = wrapper.token_adapter
        forward = _embedded if isinstance(layer.base_layer, nn.Embedding) else _scored
        layer.forward = MethodType(forward, layer)


def _embedded(layer: TrainableTokensLayer, ids: Tensor) -> Tensor:
    """ids int64 [...] to [..., width]."""
    known = layer.base_layer(ids)
    new = ids[..., None] == torch.tensor(layer.token_indices[_ACTIVE], device=ids.device)
    rows = layer.trainable_tokens_delta[_ACTIVE].to(known.dtype)
    own = functional.embedding(new.int().argmax(-1), rows)
    # Gemma 3's class multiplies what it looks up.
    scale = layer._get_embed_scale()  # pyright: ignore[reportPrivateUsage]
    own = own if scale is None else own * scale.to(own.dtype)
    return torch.where(new.any(-1, keepdim=True), own, known)


def _scored(layer: TrainableTokensLayer, states: Tensor) -> Tensor:
    """states [..., width] to logits [..., vocabulary]; no head of these families has a bias."""
    logits = layer.base_layer(states)
    rows = layer.trainable_tokens_delta[_ACTIVE].to(layer.base_layer.weight.dtype)
    numbers = torch.tensor(layer.token_indices[_ACTIVE], device=logits.device)
    # In place: a copy of all logits would be the largest tensor of the step.
    return logits.index_copy_(-1, numbers, functional.linear(states, rows).to(logits.dtype))


def check_rows(model: nn.Module, prefix: str, modules: list[str], new: NewTokens, tied: bool) -> None:
    """Raise IntegrityError unless a wrapped model trains exactly the new tokens' rows of `modules`.

    `prefix` stands before their names. tied: the output head must compute with the embeddings' rows.
    """
    found = {name.removeprefix(prefix): numbers for name, (numbers, _) in trained_rows(model).items()}
    wanted = {name: list(new.ids.values()) for name in modules} if new else {}
    problems = [
        Problem(f"trains rows {found.get(name, 'none')}, of new tokens are {wanted.get(name, 'none')}", name)
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]
    shared = [wrapper for _, wrapper in _wrappers(model) if wrapper.token_adapter.tied_adapter is not None]
    if len(shared) != (1 if new and tied else 0):
        problems.append(Problem(f"{len(shared)} output heads share the embeddings' rows", "tied weights"))
    if problems:
        raise IntegrityError("the rows that are trained are not the new tokens'", problems)
