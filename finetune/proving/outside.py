"""The proof of a merge without a home: an outside adapter in a base, said by code that did not merge it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from finetune.merging.companions import companions
from finetune.proving.definition import lora_definition
from finetune.proving.large import sampled_part
from finetune.proving.part import Part, named
from finetune.proving.regions import read_file, read_regions
from lensmith.adapter_files import ADAPTER_WEIGHTS
from lensmith.errors import IntegrityError
from lensmith.families.family import Family
from lensmith.files import digest_file, digest_json

_SHARDS = "*.safetensors"


def prove_outside(base: Path, family: Family, source: Path, adapter: Path, merged: Path) -> Part:
    """Whether the checkpoint `merged` is `base` with the adapter of `source`, which is in `adapter` by the
    names of today's class.

    Every tensor of `source` is in `adapter` once, and PEFT loads exactly those; what is merged equals base
    plus PEFT's own delta in every bit, of more than `sample.DRAWN` matrices a sample that the outcome's
    digest draws; every other byte of the weights, and every file beside them, is the base's. Holds a block of
    rows at a time.
    """
    facts: dict[str, Any] = {}
    findings: list[str] = []
    before, after = _values(source), _values(adapter)
    if before != after:
        lost, more = (before - after).total(), (after - before).total()
        findings.append(f"re-keying lost {lost} tensors of the adapter and brought in {more}")
    shards = {path.name: digest_file(path) for path in sorted(merged.glob(_SHARDS))}
    try:
        stored = read_regions(base)
        definition = lora_definition(base, adapter, family, stored, None)
        facts["adapter"] = definition.adapter.facts
        weights = sampled_part(stored, read_regions(merged), definition, family, digest_json(shards))
        facts["weights"] = weights.facts
        findings += [f"weights: {finding}" for finding in weights.findings]
    except (IntegrityError, ValueError) as error:
        # PEFT's own word for modules that it does not find.
        findings.append(str(error))
    expected, found = ({path.name: digest_file(path) for path in companions(each)} for each in (base, merged))
    findings += named(
        "files differ from the base's", sorted({name for name, _ in expected.items() ^ found.items()})
    )
    facts["files"] = len(expected)
    return Part(facts | {"shards": shards}, findings)


def _values(root: Path) -> Counter[str]:
    """How often the adapter in `root` holds each tensor, by a digest of dtype, shape and bytes."""
    return Counter(region.digest() for region in read_file(root / ADAPTER_WEIGHTS).values())
