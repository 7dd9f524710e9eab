"""What a linear in 4 bits is worth, some rows at a time.

bitsandbytes 0.50 (functional.quantize_4bit) quantises 64 values, one behind the other in the matrix, by the
largest of them, and with double quantisation these scales by 256 around the mean of all. So the scales, a
thirtieth of a weight's bytes, are made first; then rows that begin with such a block have their own values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from bitsandbytes.functional import dequantize_4bit, dequantize_blockwise, quantize_blockwise
from torch import Tensor

from finetune import four_bit
from finetune.model import DTYPES
from finetune.quantized import BLOCK, Quantized
from lensmith.errors import IntegrityError

# Of the scales, that share one of their own (quantize_4bit with compress_statistics).
_SCALES = 256
# Elements of the base's weight that are held to find the scales.
_AT_ONCE = 1 << 21


class FourBitRows:
    """The values that a training computed with in the place of the linear `module`, whose own weight
    [rows, width] `read` gives from one row to another. To be asked for the rows from the first to the last.

    The width is of whole blocks. The digest of all is checked with the last ones: raises IntegrityError where
    it is not what the run keeps.
    """

    def __init__(
        self, quantized: Quantized, module: str, read: Callable[[int, int], Tensor], rows: int, width: int
    ) -> None:
        self._quantized, self._module, self._read = quantized, module, read
        self._rows, self._width = rows, width
        self._dtype = DTYPES[quantized.dtype]
        self._simple = quantized.quantization.model_copy(update={"double": False})
        self._scales: Tensor | None = None
        self._digest, self._at = hashlib.sha256(), 0

    def of(self, stored: Tensor, first: int) -> Tensor:
        """The values of `stored`, which are the base's rows from its row `first` on, in the run's dtype."""
        if self._scales is None:
            self._scales = self._found_scales()
        held, state = four_bit.quantize(stored.to(self._dtype), self._simple)
        at = first * self._width // BLOCK
        state.absmax = self._scales[at : at + stored.numel() // BLOCK]
        values = dequantize_4bit(held, state)
        self._note(values, first)
        return values

    def _note(self, values: Tensor, first: int) -> None:
        if first < self._at:
            # Asked for again.
            return
        if first > self._at:
            raise IntegrityError(f"{self._module} was not dequantised from its first row to its last")
        self._digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
        self._at += len(values)
        if self._at == self._rows:
            self._quantized.check(self._module, self._digest.hexdigest())

    def _found_scales(self) -> Tensor:
        """float32 [blocks]: what each block's values are multiplied by."""
        found = torch.empty(self._rows * self._width // BLOCK)
        step = max(_AT_ONCE // self._width, 1)
        for first in range(0, self._rows, step):
            rows = self._read(first, min(first + step, self._rows)).to(self._dtype)
            largest = rows.view(-1, BLOCK).abs().amax(dim=1)
            at = first * self._width // BLOCK
            found[at : at + len(largest)] = largest
        if not self._quantized.quantization.double:
            return found
        # In one thread, as the mean was taken in training: more sum in another order.
        with four_bit.in_one_thread():
            mean = found.mean()
            return dequantize_blockwise(*quantize_blockwise(found.sub_(mean), blocksize=_SCALES)).add_(mean)
