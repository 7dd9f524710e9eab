"""The ranks that vLLM has kernels for: an adapter served beside its base takes the next larger one."""

from __future__ import annotations

# vLLM, config/lora.py, MaxLoRARanks; of the releases in `engine_versions`.
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def rank_slot(rank: int) -> int | None:
    """The rank that vLLM reserves room for to serve an adapter of `rank`; None for one that is too large."""
    return next((slot for slot in LORA_RANKS if slot >= rank), None)
