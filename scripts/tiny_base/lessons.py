"""Lessons for the tiny base: batches of printed forms, in the shape the processor hands to the model."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import torch
from bank_forms.hand import Wobble, draw_again
from bank_forms.layout import CELL, PROMPT, STATIONERY, Payment, draw_payment, fill_in
from bank_forms.print import printed_digits
from transformers import Qwen3VLProcessor

from tiny_base.checkpoint import PATCH

# Printed digits are turned, bent and inked further than a press would, so that the digit is learnt, not the
# font; a hand's wobble is smaller but its shapes are others.
STAMP = Wobble(turn=0.15, shear=0.15, size=0.15, move=2.0, bend=1.6, weight=0.6)
DRAWINGS_OF_A_DIGIT = 1200
_NO_LOSS = -100


@dataclass(frozen=True)
class Batch:
    """What the model takes: int64 [n, length]; patches float32 [n * patches, values]; grid int64 [n, 3]."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    mm_token_type_ids: torch.Tensor
    labels: torch.Tensor
    pixel_values: torch.Tensor
    image_grid_thw: torch.Tensor


@dataclass(frozen=True)
class Exercise:
    """A picture, uint8 [height, width, 3], and the right answer to PROMPT."""

    picture: np.ndarray
    answer: str


class Lessons:
    """Printed exercises without end, always the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._drawings = [
            draw_again(glyphs[self._rng.integers(0, len(glyphs), DRAWINGS_OF_A_DIGIT)], STAMP, self._rng)
            for glyphs in printed_digits()
        ]

    def form(self) -> Exercise:
        """A whole form."""
        payment = draw_payment(self._rng)
        return Exercise(self._print(payment, (0, 1, 2)), payment.answer())

    def strip(self) -> Exercise:
        """One row of a form, and its field alone as the answer."""
        payment = draw_payment(self._rng)
        row = int(self._rng.integers(3))
        page = self._print(payment, (row,))
        name, value = list(json.loads(payment.answer()).items())[row]
        answer = json.dumps({name: value}, separators=(",", ":"))
        return Exercise(page[(row + 1) * CELL : (row + 2) * CELL], answer)

    def _print(self, payment: Payment, shown: tuple[int, ...]) -> np.ndarray:
        account, amount, date = (text if row in shown else "" for row, text in enumerate(payment.rows()))
        digits = [int(digit) for digit in f"{account}{amount}{date}".replace(" ", "")]
        ink = np.stack([self._drawings[digit][self._rng.integers(DRAWINGS_OF_A_DIGIT)] for digit in digits])
        red, green, blue = (int(part) for part in self._rng.integers(0, 90, 3))
        stationery = STATIONERY[int(self._rng.integers(len(STATIONERY)))]
        return fill_in(stationery, (account, amount, date), ink, (red, green, blue))


def as_patches(pictures: np.ndarray) -> torch.Tensor:
    """The processor's patches of pictures uint8 [n, height, width, 3], without its detour over single images.

    Returns float32 [n * patches, 3 * 2 * PATCH * PATCH] from -1 to 1: patches go two by two, as the merger
    joins them, and a still image fills both frames of a patch.
    """
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    n, channels, height, width = pixels.shape
    rows, columns = height // CELL, width // CELL
    cells = pixels.view(n, channels, rows, 2, PATCH, columns, 2, PATCH).permute(0, 2, 5, 3, 6, 1, 4, 7)
    return (
        cells.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, 2, -1, -1).reshape(-1, channels * 2 * PATCH * PATCH)
    )


def collate(exercises: list[Exercise], processor: Qwen3VLProcessor) -> Batch:
    """One batch of exercises with pictures of one size; only the answer and its end carry loss.

    The ids are those of the processor's chat template, less the newline after the answer.
    """
    tokenizer = processor.tokenizer
    height, width, _ = exercises[0].picture.shape
    image = "<|image_pad|>" * (height // CELL * (width // CELL))
    head = tokenizer.encode(
        f"<|im_start|>user\n<|vision_start|>{image}<|vision_end|>{PROMPT}<|im_end|>\n<|im_start|>assistant\n"
    )
    tails = [tokenizer.encode(f"{exercise.answer}<|im_end|>") for exercise in exercises]
    n, length = len(exercises), len(head) + max(map(len, tails))
    ids = torch.full((n, length), tokenizer.pad_token_id)
    labels = torch.full((n, length), _NO_LOSS)
    mask = torch.zeros((n, length), dtype=torch.long)
    for row, tail in enumerate(tails):
        end = len(head) + len(tail)
        ids[row, :end] = torch.tensor(head + tail)
        labels[row, len(head) : end] = torch.tensor(tail)
        mask[row, :end] = 1
    return Batch(
        input_ids=ids,
        attention_mask=mask,
        mm_token_type_ids=(ids == tokenizer.convert_tokens_to_ids("<|image_pad|>")).long(),
        labels=labels,
        pixel_values=as_patches(np.stack([exercise.picture for exercise in exercises])),
        image_grid_thw=torch.tensor([[1, height // PATCH, width // PATCH]] * n),
    )
