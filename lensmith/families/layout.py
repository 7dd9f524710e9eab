"""Where a family's published checkpoints keep the tensors of transformers' class, as data.

vLLM reads the published layout. Routed experts have their own entry, `experts.Experts.stored`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Joined:
    """One tensor on disk that is several of the class, one after the other along its first dimension.

    parts: modules below each of `block`'s numbered ones. disk: what takes their place in the name. like: a
    module whose weight has as many columns as the first part has rows, the others sharing the rest evenly;
    without one all parts are of the same size.
    """

    block: str
    parts: tuple[str, ...]
    disk: str
    like: str = ""

    def find(self, name: str) -> re.Match[str] | None:
        """The `block` and the tensor's `ending` in the name of a part or of a tensor of one."""
        block = re.escape(self.block).replace(r"\{\}", r"\d+")
        parts = "|".join(map(re.escape, self.parts))
        return re.fullmatch(rf"(?P<block>{block})\.({parts})(\.(?P<ending>.+))?", name)


@dataclass(frozen=True)
class Cut:
    """The tensor `name` of the class is two on disk: its first rows, as many as the config says at the dotted
    path `rows`, are named `first`, the others `rest`."""

    name: str
    first: str
    rest: str
    rows: str


@dataclass(frozen=True)
class Layout:
    """How names and tensors of the class are found on disk.

    renames: (pattern, replacement) of regular expressions, applied to a name in their order, after experts,
    `joined` and `cut`.
    """

    renames: tuple[tuple[str, str], ...] = ()
    joined: tuple[Joined, ...] = ()
    cut: tuple[Cut, ...] = ()

    def disk_name(self, name: str) -> str:
        """`name` with the renames: on disk, of a tensor that is neither joined, cut nor an expert's."""
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name


AS_IN_CLASS = Layout()
