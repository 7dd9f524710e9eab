"""Rows of new tokens as PEFT saves them in an adapter: whole values, which take the place of the base's."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.merging.change import Compute, Piece
from finetune.merging.late import torch
from finetune.merging.tensor_file import FLOATS, TensorFile
from lensmith.errors import Problem

_PREFIX, _SUFFIX = "base_model.model.", ".token_adapter.trainable_tokens_delta"
SETTING = "trainable_token_indices"


@dataclass(frozen=True)
class Rows:
    """What some rows of a weight become: their numbers; the name in the adapter's file of [rows, width]."""

    numbers: Sequence[int]
    tensor: str

    def pieces(self, weight: str, file: TensorFile, first: int, end: int) -> list[Piece]:
        """The rows `[first, end)` of `weight`, first to last: the new values where it has some."""
        pieces: list[Piece] = []
        at = first
        for number, place in sorted((number, place) for place, number in enumerate(self.numbers)):
            if first <= number < end:
                pieces.append(Piece(weight, number - at))
                pieces.append(Piece(weight, 1, functools.partial(self._start, file, place)))
                at = number + 1
        return [*pieces, Piece(weight, end - at)]

    def _start(self, file: TensorFile, place: int) -> Compute:
        row = file.read_rows(self.tensor, place, 1).to(torch.float32)
        return lambda base, first: row


def read_rows(file: TensorFile, config: Mapping[str, Any]) -> tuple[dict[str, Rows], list[Problem]]:
    """By name of each weight the rows that `file` holds of it, as the adapter's config numbers them, and what
    is wrong with them."""
    listed: dict[str, list[int]] = config.get(SETTING) or {}
    stored = {
        name.removeprefix(_PREFIX).removesuffix(_SUFFIX): name
        for name in file.entries
        if name.startswith(_PREFIX) and name.endswith(_SUFFIX)
    }
    problems = [
        Problem("has no rows in the file" if name in listed else f"has rows, {SETTING} does not", name)
        for name in sorted(listed.keys() ^ stored.keys())
    ]
    rows: dict[str, Rows] = {}
    for name in sorted(listed.keys() & stored.keys()):
        entry = file.entries[stored[name]]
        if entry.dtype not in FLOATS or len(entry.shape) != 2 or entry.shape[0] != len(set(listed[name])):
            what = f"is {entry.dtype} {list(entry.shape)}, for {len(listed[name])} rows"
            problems.append(Problem(what, stored[name]))
        else:
            rows[f"{name}.weight"] = Rows(listed[name], stored[name])
    return rows, problems
