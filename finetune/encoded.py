"""A row as tensors: what the model is given of it, and which of its tokens carry loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100
# What a processor gives one value a token for; everything else it gives is of the images.
PER_TOKEN = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")
# From a row's tokens and image tensors to its positions in the rope, int64 [3, length]; [0, length] where the
# rope counts tokens alone.
Positions = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]


def join_padded(parts: Sequence[Tensor]) -> Tensor:
    """Tensors one after the other; where their last dimensions differ, -1 fills those of the shorter ones."""
    widest = max(each.shape[-1] for each in parts)
    return torch.cat([functional.pad(each, (0, widest - each.shape[-1]), value=-1) for each in parts])


@dataclass(frozen=True)
class Features:
    """What the towers before the language model make of a row's images, as the class hands it on.

    pooled: [tokens, hidden] of each image, or [images, tokens, hidden] where the class makes one tensor of
    all. deep: the same from each level that it hands on beside it.
    """

    pooled: tuple[Tensor, ...] | Tensor
    deep: tuple[tuple[Tensor, ...] | Tensor, ...] = ()

    @property
    def nbytes(self) -> int:
        """Memory of the tensors, in bytes."""
        return sum(each.nbytes for level in (self.pooled, *self.deep) for each in level)


@dataclass(frozen=True)
class Encoded:
    """A row ready for the model.

    tokens: by name of `PER_TOKEN`, int64 [length]. labels: int64 [length], `IGNORED` where no loss is taken.
    images: tensors of all images of the row, first dimension images or patches, e.g. pixel_values float32
    [patches, values of a patch], image_grid_thw int64 [images, 3]. positions: what `Positions` gives, where
    rows are packed; else the model makes them of a whole batch. features: in place of the pixels, where they
    are kept. pictures: how many images the row has. rejected: the same conversation, on the same image
    tensors, with the answer that people found worse; where preferences are taught.
    """

    row: str
    tokens: dict[str, Tensor]
    labels: Tensor
    images: dict[str, Tensor]
    positions: Tensor | None = None
    features: Features | None = None
    pictures: int = 0
    rejected: Encoded | None = None

    @property
    def nbytes(self) -> int:
        """Memory of the tensors, in bytes."""
        maybe = (self.positions, self.features)
        held = [
            *self.tokens.values(),
            self.labels,
            *self.images.values(),
            *(each for each in maybe if each is not None),
        ]
        if self.rejected is not None:
            held += [*self.rejected.tokens.values(), self.rejected.labels]
        return sum(each.nbytes for each in held)
