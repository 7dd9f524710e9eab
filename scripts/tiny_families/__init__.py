"""A tiny checkpoint of every family, made in code and laid out on disk as the family's published ones are.

    write_tiny("gemma3", out)

Real classes and real processors, random weights, a vocabulary of about a thousand tokens. Sizes are such that
vLLM's CPU engine takes them too (head sizes, hidden sizes divisible by 32, experts that are not square).
"""

from __future__ import annotations

from pathlib import Path

from tiny_families import deepseek_ocr2, gemma3, glm4v, glm4v_moe, molmo2, qwen3_vl, qwen3_vl_moe
from tiny_families.checkpoint import Tiny, write

MAKERS: dict[str, Tiny] = {
    "qwen3_vl": qwen3_vl.TINY,
    "qwen3_vl_moe": qwen3_vl_moe.TINY,
    "glm4v": glm4v.TINY,
    "glm4v_moe": glm4v_moe.TINY,
    "gemma3": gemma3.TINY,
    "deepseek_ocr2": deepseek_ocr2.TINY,
    "molmo2": molmo2.TINY,
}
# The least that vLLM can build, where it cannot build the tiny one.
SERVED: dict[str, Tiny] = {"deepseek_ocr2": deepseek_ocr2.SERVED}


def write_served(family: str, out: Path, seed: int = 0) -> Path:
    """As `write_tiny`, of a checkpoint that vLLM serves: DeepSeek-OCR-2's has 1.8 GB."""
    return write(SERVED.get(family, MAKERS[family]), family, out, seed)


def write_tiny(family: str, out: Path, seed: int = 0) -> Path:
    """Write the family's tiny checkpoint into the directory `out`, made where it is missing; gives `out`."""
    return write(MAKERS[family], family, out, seed)
