"""A checkpoint's tokenizer files with new tokens written into them; nothing else in them changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lensmith.errors import InputError, Problem

TOKENIZER = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
# Beside `TOKENIZER` only older checkpoints have it.
ADDED = "added_tokens.json"
# A new token matches as it stands, within words too, and is shown when an answer is decoded.
FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}


def extend_files(root: Path, tokens: Mapping[str, int]) -> None:
    """Write `tokens` with their ids, ascending, into the tokenizer files in `root` that list added tokens.

    Raises InputError where there is no tokenizer.json, the one file that every engine reads.
    """
    if not tokens:
        return
    if not (root / TOKENIZER).is_file():
        mend = "save it with AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        raise InputError(f"{root} cannot take new tokens", [Problem("is missing", TOKENIZER, mend)])
    content = _read(root / TOKENIZER)
    content["added_tokens"] += [{"id": number, "content": token, **FLAGS} for token, number in tokens.items()]
    _write(root / TOKENIZER, content)
    content = _read(root / SETTINGS)
    if (listed := content.get("added_tokens_decoder")) is not None:
        listed |= {str(number): {"content": token, **FLAGS} for token, number in tokens.items()}
        _write(root / SETTINGS, content)
    if (root / ADDED).is_file():
        _write(root / ADDED, _read(root / ADDED) | dict(tokens))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_bytes())


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
