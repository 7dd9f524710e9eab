"""A checkpoint with rows to spare, as published ones have (their vocabularies are rounded up), and new tokens
for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

# Pieces of every answer, several tokens before. The first is learned at the first position of an answer.
TOKENS = ['{"account":"', '","amount":"', '","date":"20']
IDS = dict(zip(TOKENS, (1024, 1025, 1026), strict=True))
EMBEDDINGS, HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"


def with_room(base: Path, target: Path, rows: int, tied: bool = False) -> Path:
    """A copy of `base` with so many rows more in embeddings and head; `tied`: with one matrix for both."""
    shutil.copytree(base, target)
    path = target / "model.safetensors"
    tensors = load_file(path)
    draw = torch.Generator().manual_seed(5)
    for name in [each for each in tensors if each.endswith(("embed_tokens.weight", "lm_head.weight"))]:
        spare = torch.randn((rows, tensors[name].shape[1]), generator=draw) * tensors[name].std()
        tensors[name] = torch.cat([tensors[name], spare.to(tensors[name].dtype)])
    config: dict[str, Any] = json.loads((target / "config.json").read_bytes())
    text = config["text_config"]
    text["vocab_size"] += rows
    if tied:
        del tensors["lm_head.weight"]
        config["tie_word_embeddings"] = text["tie_word_embeddings"] = True
    save_file(tensors, path, metadata={"format": "pt"})
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    return target
