"""A change of low rank, scale * B @ A, of the rows of a matrix: what it is multiplied of, and by whom.

torch is who says what the product is, bit for bit: PEFT asks it. On large matrices of the ranks that are
usual, numpy sums in the same order, which `multiply_alike` looks at for this machine; then torch need not be
imported before the weights are written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from finetune.merging.late import torch

Matrix = NDArray[np.float32]
# Below, and above, libraries multiply by other programs, which sum in other orders (seen of MKL and OpenBLAS
# up to 37 rows, widths below 48 or no multiple of 64, and ranks above 192); and what is small is no work.
_LEAST_ROWS, _LEAST_WIDTH, _WIDTHS, _MOST_RANK = 64, 256, 64, 128
_LEAST_ELEMENTS = 1 << 18


class Product(NamedTuple):
    """The shape of one: [rows, rank] @ [rank, width]. turned: both lie in memory column by column."""

    rows: int
    rank: int
    width: int
    turned: bool


@dataclass(frozen=True)
class LowRank:
    """factors: of a number of rows from one on, [rows, rank] and [rank, width]. turned: see `Product`."""

    factors: Callable[[int, int], tuple[Matrix, Matrix]]
    scale: float
    rank: int
    turned: bool = False

    def by_torch(self, first: int, rows: int) -> torch.Tensor:
        """B @ A of some rows."""
        left, right = self.factors(first, rows)
        return torch.mm(torch.from_numpy(left), torch.from_numpy(right))

    def by_numpy(self, first: int, rows: int, into: Matrix) -> Matrix:
        """As `by_torch`, where `for_numpy`."""
        return np.matmul(*self.factors(first, rows), out=into)


def for_numpy(product: Product, rows: int) -> bool:
    """Whether numpy may be asked for products of this shape, of a matrix of `rows` rows."""
    return (
        product.rows >= _LEAST_ROWS
        and product.width >= _LEAST_WIDTH
        and product.width % _WIDTHS == 0
        and product.rank <= _MOST_RANK
        and rows * product.width >= _LEAST_ELEMENTS
    )


def multiply_alike(products: Iterable[Product]) -> bool:
    """Whether numpy's products of these shapes are torch's, bit for bit, on this machine: the order in which
    a library sums depends on the processor and on shapes, not on values."""
    drawn = np.random.default_rng(0)
    # As a merge's threads multiply.
    with threadpool_limits(1, "blas"):
        return all(_alike(each, drawn) for each in sorted(products))


def _alike(product: Product, drawn: np.random.Generator) -> bool:
    def matrix(rows: int, width: int) -> NDArray[Any]:
        values = drawn.standard_normal((width, rows) if product.turned else (rows, width), dtype=np.float32)
        return values.T if product.turned else values

    left, right = matrix(product.rows, product.rank), matrix(product.rank, product.width)
    asked = LowRank(lambda first, rows: (left, right), 1.0, product.rank, product.turned)
    into = np.empty((product.rows, product.width), np.float32)
    return np.array_equal(asked.by_numpy(0, product.rows, into), asked.by_torch(0, product.rows).numpy())
