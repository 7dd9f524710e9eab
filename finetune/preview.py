"""Samples as the model will see them: images after resizing, the prompt, and which tokens carry loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from PIL import Image
from transformers import ProcessorMixin

from finetune.encoded import IGNORED, Encoded
from finetune.encoder import row_encoder
from finetune.rows import RowEncoder
from lensmith.artifact import Artifact
from lensmith.base import checkpoint_path
from lensmith.dataset import read_split
from lensmith.errors import InputError, Problem
from lensmith.images import encode_png
from lensmith.recipe import Recipe
from lensmith.row_file import Row, RowFile


@dataclass(frozen=True)
class Piece:
    """A stretch of tokens: their text, how many, whether they carry loss, whether they are markup.

    Markup is what the tokenizer keeps whole (ends of turns, places of images): one token, or equal ones.
    """

    text: str
    count: int
    loss: bool
    markup: bool

    @property
    def shown(self) -> str:
        """Its text; markup that repeats is counted."""
        return f"{self.text}[{self.count}]" if self.markup and self.count > 1 else self.text


@dataclass(frozen=True)
class PreviewRow:
    """One training row. images: PNG, rebuilt from the very tensor that the model gets; sizes in pixels. Both
    are empty for families whose processor cuts images into several views. rejected: the answer it is taught
    to prefer its own to, where preferences are taught."""

    row: str
    images: tuple[bytes, ...]
    sizes: tuple[tuple[int, int], ...]
    image_tokens: int
    pieces: tuple[Piece, ...]
    rejected: tuple[Piece, ...] = ()

    @property
    def prompt(self) -> str:
        """The text of everything that carries no loss."""
        return "".join(piece.shown for piece in self.pieces if not piece.loss)

    @property
    def answer(self) -> str:
        """The text of everything that carries loss, the end-of-turn token included."""
        return "".join(piece.shown for piece in self.pieces if piece.loss)

    @property
    def rejected_answer(self) -> str:
        """The text of the rejected answer, the end-of-turn token included; "" where there is none."""
        return "".join(piece.shown for piece in self.rejected)

    @property
    def tokens(self) -> int:
        """All tokens."""
        return sum(piece.count for piece in self.pieces)

    @property
    def learned(self) -> int:
        """Tokens that carry loss."""
        return sum(piece.count for piece in self.pieces if piece.loss)


def preview(
    recipe: Recipe, base: Artifact, dataset: Artifact, rows: int, named: Sequence[str] = ()
) -> list[PreviewRow]:
    """The first `rows` training rows as training would encode them, or those whose ids are `named`.

    Raises InputError for a row that training would refuse, and with every id that no training row has.
    """
    split = read_split(dataset, "train")
    chosen: Sequence[int] = _numbers(split, named) if named else range(min(rows, len(split)))
    encoder = row_encoder(recipe, checkpoint_path(base))
    return [preview_row(encoder, split[number]) for number in chosen]


def _numbers(split: RowFile, ids: Sequence[str]) -> list[int]:
    found = [each for (column,) in split.columns("id") for each in column.to_pylist()]
    places = {each: number for number, each in enumerate(found)}
    missing = [Problem("is no row that is trained on", each) for each in ids if each not in places]
    if missing:
        raise InputError("there are no such training rows", missing)
    return [places[each] for each in ids]


def preview_row(encoder: RowEncoder, row: Row) -> PreviewRow:
    """One row as `encoder` gives it to the model. Raises InputError for a row that it refuses."""
    encoded = encoder.encode(row)
    pictures = seen_images(encoded, encoder.processor)
    marks, other = encoder.processor.image_token_ids, encoded.rejected
    return PreviewRow(
        row=row.sample.id,
        images=tuple(encode_png(picture) for picture in pictures),
        sizes=tuple(picture.size for picture in pictures),
        image_tokens=int(torch.isin(encoded.tokens["input_ids"], torch.tensor(marks)).sum()),
        pieces=_pieces(encoder, encoded),
        rejected=() if other is None else tuple(piece for piece in _pieces(encoder, other) if piece.loss),
    )


def _pieces(encoder: RowEncoder, encoded: Encoded) -> tuple[Piece, ...]:
    """Text is decoded in stretches: a character may take several tokens."""
    ids, loss = encoded.tokens["input_ids"], encoded.labels != IGNORED
    kept_whole = set(encoder.tokenizer.get_added_vocab().values())

    def kind(token: tuple[int, bool]) -> tuple[bool, int | None]:
        number, carries = token
        return carries, number if number in kept_whole else None

    pieces: list[Piece] = []
    for (carries, markup), run in groupby(zip(ids.tolist(), loss.tolist(), strict=True), key=kind):
        stretch = [number for number, _ in run]
        decoded = [markup] if markup is not None else stretch
        text = str(encoder.tokenizer.decode(decoded, clean_up_tokenization_spaces=False))
        pieces.append(Piece(text, len(stretch), carries, markup is not None))
    return tuple(pieces)


def seen_images(encoded: Encoded, processor: ProcessorMixin) -> list[Image.Image]:
    """The row's images rebuilt from `pixel_values`: what the processor's resizing left of them.

    Undoes the patch order of transformers' qwen2_vl and glm4v image processors (rows of merged squares of
    patches, each patch channel, time, height, width) and their normalisation. None for families that cut
    images another way.
    """
    if "image_grid_thw" not in encoded.images:
        return []
    settings = processor.image_processor
    patch, merge, frames = settings.patch_size, settings.merge_size, settings.temporal_patch_size
    mean, std = torch.tensor(settings.image_mean), torch.tensor(settings.image_std)
    pictures: list[Image.Image] = []
    start = 0
    for time, rows, columns in encoded.images["image_grid_thw"].tolist():
        count = time * rows * columns
        patches = encoded.images["pixel_values"][start : start + count]
        start += count
        squares = patches[: rows * columns].reshape(
            rows // merge, columns // merge, merge, merge, 3, frames, patch, patch
        )[:, :, :, :, :, 0]
        pixels = squares.permute(0, 2, 5, 1, 3, 6, 4).reshape(rows * patch, columns * patch, 3)
        shown = ((pixels * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
        pictures.append(Image.fromarray(shown.numpy(), "RGB"))
    return pictures


def preview_text(rows: list[PreviewRow]) -> str:
    """The rows for a terminal: what carries loss between ▶ and ◀, a rejected answer between ▷ and ◁."""
    parts: list[str] = []
    for row in rows:
        sizes = ", ".join(f"{width} x {height} pixels" for width, height in row.sizes)
        parts.append(
            f"{row.row}\n"
            f"  {sizes}; {row.tokens} tokens: {row.image_tokens} image, {row.learned} with loss\n"
            f"{_indented(row.prompt)}▶{_indented(row.answer).lstrip()}◀\n"
        )
        if row.rejected:
            parts[-1] += f"  rejected: ▷{_indented(row.rejected_answer).lstrip()}◁\n"
    return "\n".join(parts)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines()) + ("\n  " if text.endswith("\n") else "")
