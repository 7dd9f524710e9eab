"""What rows of a family need when several are packed into one sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Of the image tokens in a row. "": each sees those before it, as text does. "image": those of an image see
# each other, behind and ahead. "row": those of all images of a row do.
Whole = Literal["", "image", "row"]


@dataclass(frozen=True)
class Packs:
    """How each row keeps what it has alone: its positions, and what its tokens see.

    positions: "rope" where the class reads position ids of four rows (text, then time, height and width) and
    makes the last three by get_rope_index; "count" where it reads one row that counts a row's tokens from 0.
    whole: which image tokens see each other.
    """

    positions: Literal["rope", "count"]
    whole: Whole = ""
