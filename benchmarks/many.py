"""Rows by the hundred thousand over a few thousand distinct small pictures, as an instruction set has them.

A picture is coarse coloured noise, unlike every other; all rows that show one are one group, and each asks
another question, so that every row is one to take.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lensmith.recipe import Recipe, load_recipe

ROOT = Path(__file__).resolve().parents[1]
_SIZE = (96, 64)


def picture(seed: int) -> bytes:
    """A PNG, the same for the same seed."""
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 12, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(blocks).resize(_SIZE, Image.Resampling.NEAREST).save(stream, "PNG")
    return stream.getvalue()


def make(folder: Path, rows: int, pictures: int) -> None:
    """`labels.jsonl` and `images/` in `folder`."""
    (folder / "images").mkdir(parents=True)
    for number in range(pictures):
        (folder / f"images/{number}.png").write_bytes(picture(number))
    with (folder / "labels.jsonl").open("w") as stream:
        for number in range(rows):
            shown = number % pictures
            asked = [
                {"type": "image", "path": f"images/{shown}.png"},
                {"type": "text", "text": f"Question {number // pictures}: what stands in the field?"},
            ]
            answer = json.dumps({"account": f"{number:08d}", "amount": f"{number / 7:.2f}"})
            row = {
                "id": f"row-{number}",
                "group": f"form-{shown}",
                "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}],
            }
            stream.write(json.dumps(row) + "\n")


def recipe(folder: Path, settings: Sequence[str] = ()) -> Recipe:
    """The recipe of the folder's rows, without a base; settings: "key.path=value"."""
    mine = [f"data.source={folder / 'labels.jsonl'}", f"base.path={folder / 'no-base'}", "data.answer=json"]
    return load_recipe(ROOT / "recipes/bank_forms/qwen3_vl_8b_lora_1xh100.yaml", [*mine, *settings])
