"""A model's tensors as its family's published checkpoints keep them: other names, joined, cut, transposed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lensmith.families.experts import value_at
from lensmith.families.family import Family

_GATE_UP, _HALVES = "gate_up_proj", ("gate_proj", "up_proj")


def published(state: Mapping[str, Tensor], family: Family, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of `state`, by the names of transformers' class, as a published checkpoint holds them.

    `config` is the config as the class holds it. A head that is tied to the embeddings is left out.
    """
    tensors = dict(state)
    if config.get("tie_word_embeddings"):
        tensors.pop("lm_head.weight", None)
    if family.experts is not None:
        for name in family.experts.fused(config):
            fused = tensors.pop(name)
            if family.experts.stored == "transposed":
                tensors[name] = fused.transpose(1, 2)
            else:
                tensors |= _apart(name, fused)
    for joined in family.layout.joined:
        for name in [each for each in tensors if _is_first(each, joined.block, joined.parts[0])]:
            # All parts have the endings of the first.
            names = [name.replace(joined.parts[0], part) for part in joined.parts]
            tensors[name.replace(joined.parts[0], joined.disk)] = torch.cat(
                [tensors.pop(each) for each in names]
            )
    for cut in family.layout.cut:
        whole, rows = tensors.pop(cut.name), value_at(config, cut.rows)
        tensors |= {cut.first: whole[:rows], cut.rest: whole[rows:]}
    # Copies: a file cannot hold two tensors that share memory.
    return {
        family.layout.disk_name(name): each.detach().clone().contiguous() for name, each in tensors.items()
    }


def _is_first(name: str, block: str, part: str) -> bool:
    before, _, behind = block.partition("{}")
    return name.startswith(before) and behind in name and f".{part}." in name


def _apart(name: str, fused: Tensor) -> dict[str, Tensor]:
    """One matrix an expert and projection of a fused parameter [experts, out, in]."""
    module, _, parameter = name.rpartition(".")
    pieces = (
        zip(_HALVES, fused.chunk(2, dim=1), strict=True) if parameter == _GATE_UP else [(parameter, fused)]
    )
    return {
        f"{module}.{number}.{part}.weight": matrix
        for part, matrices in pieces
        for number, matrix in enumerate(matrices)
    }
