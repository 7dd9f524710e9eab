"""The files beside the weights: equal to the base's, but for the recipe's pixel budget."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finetune.merging.companions import IMAGE_PROCESSORS, PIXEL_KEYS, companions
from finetune.proving.new_tokens import LISTED, is_extended
from finetune.proving.part import Part, named
from lensmith.artifact import Artifact
from lensmith.files import digest_file
from lensmith.tokens import PixelBudget

_WEIGHTS = (".safetensors", ".safetensors.index.json")


def companions_part(
    base: Path, model: Artifact, pixels: PixelBudget | None, new_tokens: Mapping[str, int] | None = None
) -> Part:
    """Template, tokenizer, processor, configs and licence of `model` against the base's, file by file.

    Files of the tokenizer are the base's once `new_tokens` are taken out of them.
    """
    expected = {path.name for path in companions(base)}
    found = {entry.path: entry for entry in model.manifest.files if not entry.path.endswith(_WEIGHTS)}
    findings = named("files of the base are missing", sorted(expected - found.keys()))
    findings += named("files are not from the base", sorted(found.keys() - expected))
    budgeted = set(IMAGE_PROCESSORS) if pixels else set()
    extended = set(LISTED) if new_tokens else set()
    both = sorted(expected & found.keys())
    findings += named(
        "files differ from the base's",
        [
            name
            for name in both
            if name not in budgeted | extended and digest_file(base / name) != digest_file(model.path / name)
        ],
    )
    findings += named(
        "files differ from the base's in more than the new tokens",
        [n for n in both if n in extended and not is_extended(n, base, model.path, new_tokens or {})],
    )
    if pixels:
        for name in both:
            if name in budgeted:
                findings += _budget_findings(base / name, model.path / name, IMAGE_PROCESSORS[name], pixels)
    facts = {"files": len(both), "pixels": pixels and asdict(pixels)}
    return Part(facts, findings)


def _budget_findings(old: Path, new: Path, section: str, pixels: PixelBudget) -> list[str]:
    before, after = (json.loads(path.read_bytes()) for path in (old, new))
    findings: list[str] = []
    if _without_budget(before, section) != _without_budget(after, section):
        findings.append(f"{new.name} differs from the base's in more than the pixel budget")
    settings = after.get(section, {}) if section else after
    bounds = {"shortest_edge": pixels.min_pixels, "longest_edge": pixels.max_pixels}
    if settings and settings.get("size") != bounds:
        findings.append(f"{new.name} does not state the recipe's pixel budget, but {settings.get('size')}")
    return findings


def _without_budget(content: dict[str, Any], section: str) -> dict[str, Any]:
    if section:
        return {**content, section: _without_budget(content.get(section) or {}, "")}
    return {key: value for key, value in content.items() if key not in PIXEL_KEYS}
