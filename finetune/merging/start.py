"""What an adapter's delta is added to: the base's weight, or for a base in 4 bits what it was worth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from finetune.quantized import Quantized, read_quantized


@dataclass(frozen=True)
class Start:
    """quantized: what the run keeps of a base in 4 bits, None where it was trained on the base as it is."""

    quantized: Quantized | None

    @property
    def changed(self) -> set[str]:
        """The weights of the class that are not the base's even without a delta."""
        return {f"{module}.weight" for module in self.quantized.linears} if self.quantized else set()

    def of(self, name: str, stored: torch.Tensor) -> torch.Tensor:
        """What the training computed with in the place of `stored`, the base's weight `name`: itself, or its
        values in 4 bits as float32, since merged weights are rounded once.

        Raises IntegrityError where they are not those that the run keeps.
        """
        if self.quantized is None or name not in self.changed:
            return stored
        # Imported only where it is used: bitsandbytes takes seconds.
        from finetune.four_bit import dequantized

        return dequantized(self.quantized, name.removesuffix(".weight"), stored).float()


def start_of(run: Path) -> Start:
    """What the adapter of the run in `run` is added to."""
    return Start(read_quantized(run))
