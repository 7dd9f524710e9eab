"""Rows packed into one sequence, each of which sees itself alone and keeps its own positions.

transformers' classes read position ids of four rows: the first counts each document's tokens from 0 and tells
masks and flash attention where they begin; the others are the rope's time, height and width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import AttentionInterface

from finetune.collate import COLUMN, image_tensors
from finetune.encoded import Encoded, Positions

# Registered with transformers under this name; without a mask function, so no mask is ever made for it.
PER_DOCUMENT = "lensmith_per_document"


class _RopeIndex(Protocol):
    """What a model of a family that `packs` has below its output head."""

    def get_rope_index(self, **given: Tensor) -> tuple[Tensor, Tensor]: ...


def rope_positions(model: PreTrainedModel) -> Positions:
    """What gives a row its positions from its tokens and image tensors, as the model counts them itself.

    `model` may lie on the meta device: only its configuration is read.
    """
    own = cast(_RopeIndex, model.base_model)

    def positions(tokens: Mapping[str, Tensor], images: Mapping[str, Tensor]) -> Tensor:
        given = {name: tokens[name][None] for name in ("input_ids", "mm_token_type_ids")}
        if "image_grid_thw" in images:
            given["image_grid_thw"] = images["image_grid_thw"]
        return own.get_rope_index(**given)[0][:, 0]

    return positions


@dataclass(frozen=True)
class PackCollator:
    """Puts encoded rows one after the other into one sequence, without a pad and without a mask."""

    def __call__(self, rows: Sequence[dict[str, Encoded]]) -> dict[str, Any]:
        """input_ids, labels int64 [1, length], position_ids int64 [4, 1, length]; all rows' image tensors."""
        encoded = [row[COLUMN] for row in rows]
        positions = []
        for each in encoded:
            if each.positions is None:
                raise ValueError(f"{each.row} was encoded without its positions")
            positions.append(torch.cat([torch.arange(len(each.labels))[None], each.positions]))
        return {
            "input_ids": torch.cat([each.tokens["input_ids"] for each in encoded])[None],
            "position_ids": torch.cat(positions, dim=1)[:, None],
            "labels": torch.cat([each.labels for each in encoded])[None],
            **image_tensors(encoded),
        }


def attend_per_document(model: PreTrainedModel) -> None:
    """Let the language model attend document by document; from now on a padded batch is an error."""
    model.set_attn_implementation({"text_config": PER_DOCUMENT})


@contextlib.contextmanager
def attend_whole(model: PreTrainedModel) -> Iterator[None]:
    """Undo `attend_per_document` for a block in which the model gets whole rows, a cache and a mask."""
    model.set_attn_implementation({"text_config": "sdpa"})
    try:
        yield
    finally:
        attend_per_document(model)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    position_ids: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each document.

    query, key, value: [1, heads, length, size]; gives [1, length, heads, size]. position_ids: int64
    [1, length], 0 where a document begins. A causal kernel a document: a mask over the whole pack costs the
    square of its length, and keeps flash kernels from being used.
    """
    if position_ids is None or position_ids.ndim != 2 or attention_mask is not None or len(query) != 1:
        raise ValueError("per-document attention needs one packed sequence with its text positions")
    starts = (position_ids[0] == 0).nonzero()[:, 0].tolist()
    lengths = [end - start for start, end in zip(starts, [*starts[1:], query.shape[2]], strict=True)]
    parts = zip(*(each.split(lengths, dim=2) for each in (query, key, value)), strict=True)
    attended = [
        sdpa_attention_forward(module, asked, read, told, None, dropout, scaling, is_causal=True)[0]
        for asked, read, told in parts
    ]
    return torch.cat(attended, dim=1), None


AttentionInterface.register(PER_DOCUMENT, _attend)
