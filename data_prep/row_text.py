"""Samples, flaws and flags as JSON text: how the workbook keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from data_prep.flag import Flag
from data_prep.refusal import Flaw
from lensmith.sample import Origin, Sample, dump_messages, load_messages


def dump_flaws(flaws: Iterable[Flaw | Flag]) -> str:
    """Flaws or flags as JSON text."""
    return json.dumps([[flaw.code, flaw.what, flaw.mend] for flaw in flaws], ensure_ascii=False)


def load_flaws(text: str) -> tuple[Flaw, ...]:
    """The inverse of `dump_flaws` for flaws."""
    return tuple(Flaw(*each) for each in json.loads(text))


def load_flags(text: str) -> tuple[Flag, ...]:
    """The inverse of `dump_flaws` for flags."""
    return tuple(Flag(*each) for each in json.loads(text))


def dump_sample(sample: Sample) -> str:
    """A sample as JSON text."""
    content: dict[str, Any] = {
        "id": sample.id,
        "group": sample.group,
        "messages": dump_messages(sample.messages),
    }
    if sample.meta:
        content["meta"] = sample.meta
    if sample.tools:
        content["tools"] = sample.tools
    if sample.origin != Origin():
        content["origin"] = asdict(sample.origin)
    return json.dumps(content, ensure_ascii=False)


def load_sample(text: str) -> Sample:
    """The inverse of `dump_sample`."""
    content = json.loads(text)
    return Sample(
        content["id"],
        content["group"],
        load_messages(content["messages"]),
        content.get("meta", {}),
        tuple(content.get("tools", ())),
        Origin(**content.get("origin", {})),
    )
