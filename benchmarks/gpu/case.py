"""What is trained on a GPU, and what issue 4 asks of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.gpu.sizes import SIZES, TINY, Size


@dataclass(frozen=True)
class Case:
    """A training that is measured on both sides.

    against: the baseline, bare TRL, or our own trainer with its experts one after the other. image_tokens,
    answer: least and most of a row, in tokens and in characters. pack_length: tokens of a forward pass of
    ours. step: rows of an optimizer step; batch: of a forward pass of the baseline. warm_up, steps: optimizer
    steps that are not measured, and that are. mfu, ratio, memory: asked of ours; memory is the share of the
    baseline's peak.
    """

    name: str
    size: Size
    method: Literal["lora", "full"]
    against: Literal["trl", "eager"]
    mfu: float | None = None
    ratio: float | None = None
    memory: float | None = None
    checkpointing: bool = False
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    image_tokens: tuple[int, int] = (256, 1024)
    answer: tuple[int, int] = (32, 512)
    pack_length: int = 8192
    step: int = 32
    batch: int = 8
    warm_up: int = 3
    steps: int = 10
    learning_rate: float = 1e-4

    @property
    def rows(self) -> int:
        """Each is shown once: nothing that is kept between epochs makes a step faster."""
        return self.step * (self.warm_up + self.steps)

    def tiny(self) -> Case:
        """The same for a CPU, in seconds."""
        return replace(
            self,
            size=TINY[self.size.family],
            dtype="float32",
            image_tokens=(4, 16),
            answer=(4, 24),
            pack_length=256,
            step=4,
            batch=2,
            warm_up=1,
            steps=2,
        )


# By the plan the first takes 90 GiB; the others would take 140 and 124 with packs of 8,192.
CASES = {
    each.name: each
    for each in (
        Case("qwen3_vl_8b_lora", SIZES["qwen3_vl_8b"], "lora", "trl", mfu=0.43, ratio=2.0),
        Case(
            "qwen3_vl_4b_full",
            SIZES["qwen3_vl_4b"],
            "full",
            "trl",
            mfu=0.45,
            memory=0.7,
            learning_rate=1e-5,
            pack_length=4096,
            batch=4,
        ),
        Case(
            "qwen3_vl_30b_a3b_lora", SIZES["qwen3_vl_30b_a3b"], "lora", "eager", ratio=5.0, pack_length=4096
        ),
    )
}
