"""What an adapter's delta is added to: the base's weight, or for a base in 4 bits what it was worth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finetune.merging.change import Compute
from finetune.merging.late import torch
from finetune.merging.tensor_file import TensorFile
from finetune.quantized import BLOCK, Quantized, read_quantized


@dataclass(frozen=True)
class Lying:
    """Where the rows of a weight lie: `rows` of the tensor `disk` of `file`, from its row `first` on."""

    file: TensorFile
    disk: str
    first: int
    rows: int

    @property
    def width(self) -> int:
        """Of a row, in elements."""
        return self.file.entries[self.disk].matrix[1]

    def read(self, first: int, end: int) -> torch.Tensor:
        """Rows `[first, end)` of the weight, in the stored dtype."""
        return self.file.read_rows(self.disk, self.first + first, end - first)


@dataclass(frozen=True)
class Start:
    """quantized: what the run keeps of a base in 4 bits, None where it was trained on the base as it is."""

    quantized: Quantized | None

    @property
    def changed(self) -> set[str]:
        """The weights of the class that are not the base's even without a delta."""
        return {f"{module}.weight" for module in self.quantized.linears} if self.quantized else set()

    def of(self, name: str, lying: Lying) -> Compute:
        """Gives what the training computed with in the place of rows of the base's weight `name`: themselves,
        or their values in 4 bits as float32, since merged weights are rounded once.

        Those in 4 bits are to be asked for as `by_rows` says; raises IntegrityError where they are not what
        the run keeps.
        """
        if self.quantized is None or name not in self.changed:
            return lambda stored, first: stored
        module, kept = name.removesuffix(".weight"), self.quantized
        # Imported only where it is used: bitsandbytes takes seconds.
        if self.by_rows(name, lying):
            from finetune.four_bit_rows import FourBitRows

            rows = FourBitRows(kept, module, lying.read, lying.rows, lying.width)
            return lambda stored, first: rows.of(stored, first).float()
        from finetune.four_bit import dequantized

        return lambda stored, first: dequantized(kept, module, stored).float()

    def by_rows(self, name: str, lying: Lying) -> bool:
        """Whether a weight in 4 bits is had some rows at a time, from the first to the last; else whole.

        Rows of other widths begin inside a block, and bitsandbytes 0.50 counts their blocks otherwise.
        """
        return name in self.changed and lying.width % BLOCK == 0


def start_of(run: Path) -> Start:
    """What the adapter of the run in `run` is added to."""
    return Start(read_quantized(run))
