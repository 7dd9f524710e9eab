"""Near-duplicate long texts, one by one: what a long text is, its MinHash signature, the exact Jaccard index.

Signatures (Broder, "On the resemblance and containment of documents", 1997) give candidates only
(text_index.py); the verdict is the Jaccard index of the two texts' triples of words. Short texts are exempt:
numbers, dates, classes and template sentences are equal in thousands of rows without any leak.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xxhash

# A run of numbers is no text, whatever its length.
LEAST_LETTERS = 40
JACCARD = 0.8
# 21 bands of 6: a pair at Jaccard 0.8 is a candidate with probability 0.998, one at 0.5 with 0.28, at 0.3
# with 0.015.
BANDS, ROWS = 21, 6
# Bytes that estimate the Jaccard index of a candidate; at 0.8 with a standard deviation of 0.05.
PRINT = 64
_SHINGLE = 3
_BATCH = 4096
# Chinese and Japanese write no spaces: each character counts as a word.
_ALONE = r"\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
# Vowels of Indian scripts and points of Hebrew and Arabic are no letters to Python, yet part of their words.
# Those of Thai, Lao, Khmer and Burmese, which write no spaces either, end one: every three or four letters.
_MARKS = "".join(chr(code) for code in range(0x0300, 0x0E00) if unicodedata.category(chr(code))[0] == "M")
_WORD = re.compile(rf"[{_ALONE}]|(?:[^\W{_ALONE}]|[{_MARKS}])+")

Values = npt.NDArray[np.uint64]


def _coefficients() -> tuple[Values, Values]:
    generator = np.random.default_rng(2)
    top = np.iinfo(np.uint64).max
    factors, offsets = generator.integers(0, top, (2, BANDS * ROWS), np.uint64, endpoint=True)
    return factors | np.uint64(1), offsets


_FACTORS, _OFFSETS = _coefficients()


@dataclass(frozen=True)
class Signature:
    """What finds the copies of a text.

    keys: uint64 [21], one of them equal for most pairs at Jaccard 0.8. estimate: uint8 [64], equal in a share
    of places that is near the Jaccard index. digest: 16 bytes over the words.
    """

    keys: Values
    estimate: npt.NDArray[np.uint8]
    digest: bytes


def words_of(text: str) -> list[str]:
    """The words of a text; case, width and punctuation do not count."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def is_long(text: str, least_words: int) -> bool:
    """Whether a text is compared at all: so many words, and 40 letters; digits are not letters."""
    return sum(map(str.isalpha, text)) >= LEAST_LETTERS and len(words_of(text)) >= least_words


def sign(text: str) -> Signature:
    """The signature of a text."""
    words = words_of(text)
    values = np.fromiter(_triples(words), np.uint64)
    least = np.full(BANDS * ROWS, np.iinfo(np.uint64).max)
    for at in range(0, len(values), _BATCH):
        # Multiplication modulo 2^64: the high half is as good as drawn anew for each factor.
        drawn = (values[at : at + _BATCH, None] * _FACTORS + _OFFSETS) >> np.uint64(32)
        least = np.minimum(least, drawn.min(0))
    hashes = least.astype("<u4")
    bands = hashes.reshape(BANDS, ROWS)
    keys = np.array([xxhash.xxh3_64_intdigest(band.tobytes()) for band in bands], np.uint64)
    digest = xxhash.xxh3_128_digest(_encoded(" ".join(words)))
    return Signature(keys, (hashes[:PRINT] & 0xFF).astype(np.uint8), digest)


def triples(text: str) -> frozenset[int]:
    """Digests of every three words that follow each other; of all words where there are fewer."""
    return _triples(words_of(text))


def jaccard(left: frozenset[int], right: frozenset[int]) -> float:
    """Shared triples over all triples of both, 0 to 1; 0 where neither has one."""
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared) if left or right else 0.0


def _triples(words: list[str]) -> frozenset[int]:
    count = max(len(words) - _SHINGLE + 1, 1) if words else 0
    shingles = (_encoded(" ".join(words[at : at + _SHINGLE])) for at in range(count))
    return frozenset(xxhash.xxh3_64_intdigest(shingle) for shingle in shingles)


def _encoded(text: str) -> bytes:
    # JSON can spell half a surrogate pair, which UTF-8 cannot.
    return text.encode("utf-8", "surrogatepass")
