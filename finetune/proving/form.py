"""Whether a model is proven whole or on a sample. No torch."""

from __future__ import annotations

from pathlib import Path

import psutil

# Bytes of weights. A larger model is sampled even where it could be held: whole, its proof takes memory three
# times this and hours of a processor. Above Qwen3-VL-32B in bfloat16 (67 GB), which a node of 256 GB holds.
WHOLE_BYTES = 80_000_000_000
# Whole, the proof holds the model as it was trained, in the next wider dtype, and merged.
_TIMES_HELD = 3
_GIB = 1 << 30


def why_sampled(root: Path) -> str | None:
    """Why a model on the checkpoint in `root` is proven on a sample, None where it is proven whole."""
    size = _weights(root)
    if size > WHOLE_BYTES:
        return f"{size:,} bytes of weights: more than {WHOLE_BYTES:,} are sampled"
    needed, available = _TIMES_HELD * size, psutil.virtual_memory().available
    if needed > available:
        return f"whole, the proof needs {_gib(needed)} of memory, {_gib(available)} are free"
    return None


def not_computed(root: Path) -> dict[str, object]:
    """What a statement says of a part for which the model would have to be held."""
    return {
        "computed": False,
        "because": f"not computed: needs {_gib(_TIMES_HELD * _weights(root))} of memory",
    }


def _weights(root: Path) -> int:
    return sum(path.stat().st_size for path in root.glob("*.safetensors"))


def _gib(count: int) -> str:
    return f"{-(-count // _GIB)} GiB"
