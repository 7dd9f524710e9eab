"""Rows packed into one sequence, each of which sees itself alone and keeps its own positions.

Classes with a rope of three dimensions read position ids of four rows: the first counts each document's
tokens from 0, the others are the rope's time, height and width. The others read the first row alone.
Attention is told where documents begin by `cu_seq_lens_q`, which every class hands on as it is: by positions
GLM-4.6V's would not know, and Molmo2's masks would let the images of all documents see each other.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import AttentionInterface

from finetune.collate import COLUMN, image_tensors
from finetune.encoded import Encoded, Positions
from lensmith.families.family import Family
from lensmith.families.packs import Whole

# Registered with transformers under this name; without a mask function, so no mask is ever made for it.
PER_DOCUMENT = "lensmith_per_document"
# What a processor says of each token with 1 where it stands for an image, under one of these names.
TYPES = {"token_type_ids", "mm_token_type_ids"}
# A name that no class has one of its own for, and that none takes for a tensor of its vision tower.
BLOCKS = "whole_blocks"


class _RopeIndex(Protocol):
    """What a model with a rope of three dimensions has below its output head."""

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


def row_positions(model: PreTrainedModel, family: Family) -> Positions:
    """What gives a row of `family` its positions. Raises ValueError for one that does not pack."""
    if family.packs is None:
        raise ValueError(f"rows of {family.title} are not packed")
    return rope_positions(model) if family.packs.positions == "rope" else _no_positions


def _no_positions(tokens: Mapping[str, Tensor], images: Mapping[str, Tensor]) -> Tensor:
    """int64 [0, length]: the rope counts tokens alone."""
    return torch.empty((0, len(tokens["input_ids"])), dtype=torch.int64)


@dataclass(frozen=True)
class PackCollator:
    """Puts encoded rows one after the other into one sequence, without a pad and without a mask.

    whole: as in `Packs`. numbers: as in `Family`.
    """

    whole: Whole = ""
    numbers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, family: Family) -> PackCollator:
        """The collator of a family that packs."""
        return cls(family.packs.whole if family.packs else "", family.numbers)

    def __call__(self, rows: Sequence[dict[str, Encoded]]) -> dict[str, Any]:
        """input_ids, labels int64 [1, length]; position_ids int64 [4, 1, length], or [1, length] where the
        rope counts tokens alone; cu_seq_lens_q int32 [rows + 1], 0 and where each row ends; image tensors.

        With `whole` also what kind each token is, as the class asks for it, and whole_blocks, int64
        [1, length]: the tokens of a row that have a number in common see each other, but those with -1.
        """
        encoded = [row[COLUMN] for row in rows]
        positions = []
        for each in encoded:
            if each.positions is None:
                raise ValueError(f"{each.row} was encoded without its positions")
            positions.append(torch.cat([torch.arange(len(each.labels))[None], each.positions]))
        placed = torch.cat(positions, dim=1)
        ends = list(itertools.accumulate((len(each.labels) for each in encoded), initial=0))
        batch = {
            "input_ids": torch.cat([each.tokens["input_ids"] for each in encoded])[None],
            "position_ids": placed if len(placed) == 1 else placed[:, None],
            "cu_seq_lens_q": torch.tensor(ends, dtype=torch.int32),
            "labels": torch.cat([each.labels for each in encoded])[None],
            **image_tensors(encoded, self.numbers),
        }
        if self.whole:
            for name in TYPES & encoded[0].tokens.keys():
                batch[name] = torch.cat([each.tokens[name] for each in encoded])[None]
                blocks = [_blocks(each.tokens[name] == 1, self.whole) for each in encoded]
                batch[BLOCKS] = torch.cat(blocks)[None]
        return batch


def _blocks(image: Tensor, whole: Whole) -> Tensor:
    """int64 [length]: -1 where `image`, bool [length], is false, else the number of the token's block."""
    begins = image & ~image.roll(1)
    begins[0] = image[0]
    number = begins.cumsum(0) if whole == "image" else torch.zeros(len(image), dtype=torch.int64)
    return torch.where(image, number, -1)


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
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    whole_blocks: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention within each document: causal, and whole within its blocks.

    query, key, value: [1, heads, length, size]; gives [1, length, heads, size]. cu_seq_lens_q, whole_blocks:
    as `PackCollator` gives them. sliding_window: how many tokens a token sees, itself and those before it;
    None is all. A causal kernel a document: a mask over the whole pack costs the square of its length, and
    keeps flash kernels from being used. Documents that need a mask have one of their own.
    """
    if cu_seq_lens_q is None or attention_mask is not None or len(query) != 1:
        raise ValueError("per-document attention needs one packed sequence with the ends of its rows")
    documents = _documents(cu_seq_lens_q, whole_blocks, sliding_window)
    lengths = [each.length for each in documents]
    parts = zip(*(each.split(lengths, dim=2) for each in (query, key, value)), strict=True)
    attended: list[Tensor] = []
    for each, (asked, read, told) in zip(documents, parts, strict=True):
        given = (module, asked, read, told, each.mask, dropout, scaling)
        attended.append(sdpa_attention_forward(*given, is_causal=each.mask is None)[0])
    return torch.cat(attended, dim=1), None


@dataclass(frozen=True)
class _Document:
    """A row of a pack: its tokens, and what each of them sees where that is not all before it."""

    length: int
    mask: Tensor | None


# By a pass's own `cu_seq_lens_q`, which all layers are handed: what it came with, by a layer's window. To
# read the ends and to look for blocks a GPU must have done all it was given: once a pass, not in each layer.
_PASSES: MutableMapping[Tensor, dict[int | None, tuple[Tensor | None, list[_Document]]]] = (
    WeakTensorKeyDictionary()
)


def _documents(cu_seq_lens_q: Tensor, whole_blocks: Tensor | None, window: int | None) -> list[_Document]:
    windows = _PASSES.setdefault(cu_seq_lens_q, {})
    if window not in windows or windows[window][0] is not whole_blocks:
        pairs = list(itertools.pairwise(cu_seq_lens_q.tolist()))
        blocks = [None if whole_blocks is None else whole_blocks[0, start:end] for start, end in pairs]
        device = cu_seq_lens_q.device
        documents = [
            _Document(end - start, _mask(end - start, each, window, device))
            for (start, end), each in zip(pairs, blocks, strict=True)
        ]
        windows[window] = whole_blocks, documents
    return windows[window][1]


def _mask(length: int, blocks: Tensor | None, window: int | None, device: torch.device) -> Tensor | None:
    """bool [1, 1, length, length], what each token of a document sees; None where that is all before it."""
    blocked = blocks is not None and bool((blocks >= 0).any())
    if not blocked and (window is None or length <= window):
        return None
    place = torch.arange(length, device=device)
    sees = place[:, None] >= place
    if blocks is not None:
        sees |= (blocks[:, None] == blocks) & (blocks >= 0)
    if window is not None:
        sees &= place > place[:, None] - window
    return sees[None, None]


AttentionInterface.register(PER_DOCUMENT, _attend)
