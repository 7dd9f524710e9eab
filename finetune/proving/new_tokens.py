"""New tokens in the merged model's own files: each is read and written as trained, nothing else changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers.models.auto.tokenization_auto import AutoTokenizer

from finetune.proving.part import Part, named

# Files of a tokenizer that list added tokens, each in its own form.
LISTED = ("tokenizer.json", "tokenizer_config.json", "added_tokens.json")


def is_extended(name: str, base: Path, model: Path, tokens: Mapping[str, int]) -> bool:
    """Whether the model's file of this name is the base's with exactly `tokens` added, in its form."""
    before, after = (json.loads((root / name).read_bytes()) for root in (base, model))
    if name == "tokenizer.json":
        old, new = before.pop("added_tokens"), after.pop("added_tokens")
        added = {each["content"]: each["id"] for each in new[len(old) :] if _plain(each)}
        return before == after and new[: len(old)] == old and added == tokens
    if name == "tokenizer_config.json":
        old, new = before.pop("added_tokens_decoder", None), after.pop("added_tokens_decoder", None)
        if old is None or new is None:
            return before == after and old is new
        added = {new[key]["content"]: int(key) for key in new.keys() - old.keys() if _plain(new[key])}
        return before == after and old.items() <= new.items() and added == tokens
    return after == before | dict(tokens)


def _plain(entry: Mapping[str, Any]) -> bool:
    """Whether an added token is matched as it stands, and shown in answers."""
    return not any(entry[name] for name in ("special", "normalized", "lstrip", "rstrip", "single_word"))


def new_tokens_part(base: Path, model: Path, tokens: Mapping[str, int]) -> Part:
    """The tokenizer that the model's files give, as an engine loads it, against the base's.

    Each token alone and within text becomes its id, which gives it back also where special tokens are
    skipped; every token of the base keeps its id; there are no others.
    """
    theirs, ours = (
        AutoTokenizer.from_pretrained(root, local_files_only=True, trust_remote_code=False)
        for root in (base, model)
    )
    wrong = [
        token
        for token, number in tokens.items()
        if ours(token, add_special_tokens=False)["input_ids"] != [number]
        or number not in ours(f"a{token}1", add_special_tokens=False)["input_ids"]
        or ours.decode([number], skip_special_tokens=True) != token
    ]
    findings = named("new tokens are not read or written as trained", wrong)
    if ours.get_vocab() != theirs.get_vocab() | dict(tokens):
        findings.append("the tokenizer has other tokens than the base's and the new ones")
    return Part({"tokens": dict(tokens), "vocabulary": len(ours)}, findings)
