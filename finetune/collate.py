"""From a dataset artifact to batches: rows read from disk, encoded once where memory allows, and padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from finetune.encoded import IGNORED, Encoded, Positions, join_padded
from finetune.rows import RowEncoder
from finetune.shared_rows import SharedRows
from lensmith.row_file import RowFile

# Encoded rows are kept up to this much memory a process of the training, its loader's workers among it; rows
# beyond it are encoded anew in each epoch.
CACHE_BYTES = 2 << 30
NUMBER, COLUMN = "row", "encoded"
FEATURES = "image_features"
# The number of a row that teaches nothing: the first one, without its labels.
FILLER = -1


class EncodedRows:
    """The transform of a `datasets.Dataset` of row numbers: `Encoded` rows out, kept while memory allows.

    `positions`, where rows are packed, gives each its own. workers: how many a loader has that asks for rows;
    what they keep they keep together.
    """

    def __init__(
        self,
        rows: RowFile,
        encoder: RowEncoder,
        cache_bytes: int = CACHE_BYTES,
        positions: Positions | None = None,
        workers: int = 0,
    ) -> None:
        self.rows = rows
        self.positions = positions
        self.encoder = encoder
        self.room = cache_bytes
        self.kept: dict[int, Encoded] = {}
        self.shared = SharedRows(len(rows), cache_bytes) if workers else None

    def __call__(self, batch: dict[str, list[int]]) -> dict[str, list[Encoded]]:
        """The column NUMBER in, one column of encoded rows out."""
        return {COLUMN: [self._row(number) for number in batch[NUMBER]]}

    def _row(self, number: int) -> Encoded:
        if number == FILLER:
            first = self._row(0)
            return replace(first, labels=torch.full_like(first.labels, IGNORED))
        if number in self.kept:
            return self.kept[number]
        if self.shared is not None and (shared := self.shared.get(number)) is not None:
            return shared
        _, encoded = self.encoded(number)
        if self.shared is not None:
            self.shared.put(number, encoded)
        elif encoded.nbytes <= self.room:
            self.room -= encoded.nbytes
            self.kept[number] = encoded
        return encoded

    def encoded(self, number: int) -> tuple[int, Encoded]:
        """The number and its row, encoded anew."""
        encoded = self.encoder.encode(self.rows[number])
        if self.positions is not None:
            encoded = replace(encoded, positions=self.positions(encoded.tokens, encoded.images))
        return number, encoded


def training_rows(rows: EncodedRows) -> Dataset:
    """The row numbers of one epoch of the training split; a row is read and encoded when asked for.

    Where each has positions of its own, behind the last row stands one that teaches nothing.
    """
    shown = rows.rows.epoch()
    numbers = shown if rows.positions is None else [*shown, FILLER]
    return Dataset.from_dict({NUMBER: numbers}).with_transform(rows)


@dataclass(frozen=True)
class Collator:
    """Pads encoded rows on the right to the longest: pads are not attended to and carry no loss.

    `numbers` as in `Family.numbers`.
    """

    pad_id: int
    numbers: tuple[tuple[str, str], ...] = ()

    def __call__(self, rows: Sequence[dict[str, Encoded]]) -> dict[str, Any]:
        """Tokens and labels [rows, longest]; image tensors of all rows one after the other.

        Of pairs [2 * rows, longest]: all rows with their answers, then all with the rejected ones.
        """
        encoded = [row[COLUMN] for row in rows]
        encoded += [each.rejected for each in encoded if each.rejected is not None]
        longest = max(len(each.labels) for each in encoded)
        batch: dict[str, Any] = {
            name: _padded(
                [each.tokens[name] for each in encoded], longest, self.pad_id if name == "input_ids" else 0
            )
            for name in encoded[0].tokens
        }
        batch["labels"] = _padded([each.labels for each in encoded], longest, IGNORED)
        return {**batch, **image_tensors(encoded, self.numbers)}


def image_tensors(rows: Sequence[Encoded], numbers: tuple[tuple[str, str], ...] = ()) -> dict[str, Any]:
    """The image tensors of all rows one after the other; rows without an image have none.

    Each pair of `numbers` names a tensor whose values number the patches of another (see `Family.numbers`).
    Where rows have features instead of pixels these are joined as FEATURES: "pooled", and "deep" by level.
    """
    features = [each.features for each in rows if each.features is not None]
    for name, of in () if features else numbers:
        rows = _numbered_on(rows, name, of)
    names = dict.fromkeys(name for each in rows for name in each.images)
    # Of patches' numbers -1 stands for none: a video's are as many a token as an image's or more.
    pooled = [name for name, _ in numbers]
    joined = {
        name: (join_padded if name in pooled else torch.cat)(
            [each.images[name] for each in rows if name in each.images]
        )
        for name in names
    }
    if not features:
        return joined
    deep = [_joined(level) for level in zip(*(each.deep for each in features), strict=True)]
    return {**joined, FEATURES: {"pooled": _joined([each.pooled for each in features]), "deep": deep}}


@dataclass(frozen=True)
class EncoderOutput:
    """Image features by the names that transformers' classes read them by."""

    pooler_output: list[Tensor] | Tensor
    deepstack_features: list[list[Tensor] | Tensor]


def encoder_outputs(features: dict[str, Any]) -> dict[str, EncoderOutput]:
    """What a model takes as `mm_encoder_outputs` in place of pixels, of a batch's FEATURES."""
    return {"image": EncoderOutput(features["pooled"], features["deep"])}


def _joined(parts: Sequence[tuple[Tensor, ...] | Tensor]) -> list[Tensor] | Tensor:
    whole = [each for each in parts if isinstance(each, Tensor)]
    return torch.cat(whole) if whole else [image for part in parts for image in part]


def _numbered_on(rows: Sequence[Encoded], name: str, of: str) -> list[Encoded]:
    """Each row's values of `name`, -1 left as it is, raised by the patches of the rows before it."""
    before = 0
    numbered: list[Encoded] = []
    for each in rows:
        if name in each.images:
            values = each.images[name]
            moved = torch.where(values < 0, values, values + before)
            before += each.images[of].shape[0] * each.images[of].shape[1]
            numbered.append(replace(each, images={**each.images, name: moved}))
        else:
            numbered.append(each)
    return numbered


def _padded(values: Sequence[Tensor], length: int, filler: int) -> Tensor:
    out = values[0].new_full((len(values), length), filler)
    for place, each in enumerate(values):
        out[place, : len(each)] = each
    return out
