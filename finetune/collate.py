"""From a dataset artifact to batches: rows read from disk, encoded once where memory allows, and padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from torch import Tensor

from finetune.rows import IGNORED, Encoded, RowEncoder
from lensmith.artifact import Artifact
from lensmith.dataset import Row, split_file
from lensmith.sample import Sample, load_messages

# Encoded rows are kept up to this much memory a process; rows beyond it are encoded anew in each epoch.
CACHE_BYTES = 2 << 30
COLUMN = "encoded"


class EncodedRows:
    """The transform of a `datasets.Dataset`: stored rows in, `Encoded` out, kept while memory allows."""

    def __init__(self, encoder: RowEncoder, cache_bytes: int = CACHE_BYTES) -> None:
        self.encoder = encoder
        self.room = cache_bytes
        self.kept: dict[str, Encoded] = {}

    def __call__(self, batch: dict[str, list]) -> dict[str, list[Encoded]]:
        """Columns of `lensmith.dataset.SCHEMA` in, one column of encoded rows out."""
        columns = ("id", "messages", "images", "source")
        return {
            COLUMN: [self._row(*values) for values in zip(*(batch[name] for name in columns), strict=True)]
        }

    def _row(self, row_id: str, messages: str, images: list[dict[str, bytes]], source: str) -> Encoded:
        if row_id in self.kept:
            return self.kept[row_id]
        sample = Sample(row_id, "", load_messages(messages))
        encoded = self.encoder.encode(Row(sample, tuple(image["bytes"] for image in images), source))
        if encoded.nbytes <= self.room:
            self.room -= encoded.nbytes
            self.kept[row_id] = encoded
        return encoded


def training_rows(dataset: Artifact, encoder: RowEncoder, cache: Path) -> Dataset:
    """The training split as `datasets` reads it, memory-mapped from `cache`, encoded when asked for."""
    stored = Features(
        {
            "id": Value("string"),
            "group": Value("string"),
            "messages": Value("string"),
            "images": List(ImageFeature(decode=False)),
            "meta": Value("string"),
            "source": Value("string"),
        }
    )
    rows = Dataset.from_parquet(
        str(dataset.path / split_file("train")), features=stored, cache_dir=str(cache)
    )
    return rows.with_transform(EncodedRows(encoder))


@dataclass(frozen=True)
class Collator:
    """Pads encoded rows on the right to the longest: pads are not attended to and carry no loss."""

    pad_id: int

    def __call__(self, rows: Sequence[dict[str, Encoded]]) -> dict[str, Tensor]:
        """Tokens and labels [rows, longest]; image tensors of all rows one after the other."""
        encoded = [row[COLUMN] for row in rows]
        longest = max(len(each.labels) for each in encoded)
        batch = {
            name: _padded(
                [each.tokens[name] for each in encoded], longest, self.pad_id if name == "input_ids" else 0
            )
            for name in encoded[0].tokens
        }
        batch["labels"] = _padded([each.labels for each in encoded], longest, IGNORED)
        for name in encoded[0].images:
            batch[name] = torch.cat([each.images[name] for each in encoded])
        return batch


def _padded(values: Sequence[Tensor], length: int, filler: int) -> Tensor:
    out = values[0].new_full((len(values), length), filler)
    for place, each in enumerate(values):
        out[place, : len(each)] = each
    return out
