"""lensmith diff: what differs between two artifacts of a kind."""

from __future__ import annotations

import argparse
from typing import Any

from lensmith.cli.arguments import home_of
from lensmith.cli.output import print_json, table
from lensmith.cli.reference import resolve
from lensmith.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    parser.add_argument("before", metavar="BEFORE", help="directory, kind-id, id, or NAME@CHANNEL")
    parser.add_argument("after", metavar="AFTER", help="likewise")


def run(arguments: argparse.Namespace) -> int:
    """Inputs, body (key by key) and files that differ. Raises InputError for two kinds."""
    home = home_of(arguments)
    before, after = (resolve(home, reference) for reference in (arguments.before, arguments.after))
    if before.kind != after.kind:
        raise InputError(f"{before.short} and {after.short} are not of one kind")
    left = {"input " + k: v for k, v in before.manifest.inputs.items()} | flatten(before.body)
    right = {"input " + k: v for k, v in after.manifest.inputs.items()} | flatten(after.body)
    left |= {f"file {entry.path}": entry.sha256 for entry in before.manifest.files}
    right |= {f"file {entry.path}": entry.sha256 for entry in after.manifest.files}
    changed = {
        key: (left.get(key), right.get(key))
        for key in sorted(left.keys() | right.keys())
        if left.get(key) != right.get(key)
    }
    if arguments.json:
        print_json({"before": before.id, "after": after.id, "changed": changed})
        return 0
    if not changed:
        print("no difference")
        return 0
    rows = [[key, _brief(old), _brief(new)] for key, (old, new) in changed.items()]
    print(table(rows, ("what", before.short, after.short)))
    return 0


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists as one mapping from dotted keys to plain values."""
    if isinstance(value, dict) and value:
        pairs = value.items()
    elif isinstance(value, list) and value:
        pairs = ((str(index), item) for index, item in enumerate(value))
    else:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in pairs:
        flat |= flatten(item, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _brief(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
