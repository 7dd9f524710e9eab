"""Tied embeddings: an output head that is the input embedding under a second name."""

from __future__ import annotations

import json
from pathlib import Path

HEAD = "lm_head.weight"
EMBEDDING = "embed_tokens.weight"


def tied_head(root: Path) -> str | None:
    """The output head's name where the checkpoint's config ties it to the embeddings, else None."""
    config = json.loads((root / "config.json").read_bytes())
    own = config.get("tie_word_embeddings")
    stated = config.get("text_config", {}).get("tie_word_embeddings", False) if own is None else own
    return HEAD if stated else None
