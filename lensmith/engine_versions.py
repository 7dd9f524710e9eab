"""The releases of vLLM that what is stated of it here holds for: its ranks, and each family's `vllm_` facts.

What an engine of another release applies, offers or leaves out is not known: nothing is promised for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from packaging.version import InvalidVersion, Version

# Minor releases. 0.32: installed where the tests run, which hold the facts against its source and its engine.
# 0.33: read in the source of its wheel (2026-11-23), which states the same ranks, keys of adapters, classes
# and parsers; its engine has not run.
KNOWN = ("0.32", "0.33")


def is_known(version: str, known: Sequence[str]) -> bool:
    """Whether a version is of one of these minor releases; one that cannot be read is of none."""
    try:
        release = Version(version).release
    except InvalidVersion:
        return False
    return ".".join(map(str, release[:2])) in known
