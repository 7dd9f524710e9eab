"""Which split a group belongs to: a pure function of the seed and the group's name.

No row's place depends on any other row, so adding rows moves none of the old ones. The held-out set takes
the low end of the range: changing the validation share leaves the exam as it was, and a larger held-out
share keeps every group that was in it.
"""

from __future__ import annotations

import hashlib
from typing import Literal

from lensmith.data_settings import SplitRule
from lensmith.files import canonical_json

SplitName = Literal["train", "validation", "held_out"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "held_out")
_RULE = "the first 53 bits of SHA-256 over [seed, group], as a fraction: low is held out, next validation"

_STRATIFIED = "by source or field, groups in the order of {} until each split has its share"


def rule_of(rule: SplitRule) -> str:
    """How groups are drawn, in words."""
    return _RULE if rule.stratify == "none" else _STRATIFIED.format(_RULE)


def fraction(seed: int, group: str) -> float:
    """Where a group lies in [0, 1): the first 53 bits of SHA-256 over the JSON text [seed, group]."""
    digest = hashlib.sha256(canonical_json([seed, group])).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / (1 << 53)


def split_of(group: str, rule: SplitRule) -> SplitName:
    """The split of every row of `group`."""
    place = fraction(rule.seed, group)
    if place < rule.held_out:
        return "held_out"
    return "validation" if place < rule.held_out + rule.validation else "train"
