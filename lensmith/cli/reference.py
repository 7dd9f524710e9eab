"""What a person may call an artifact: a directory, kind-id, digits of an id, or NAME@CHANNEL."""

from __future__ import annotations

from lensmith.artifact import Artifact
from lensmith.home import Home


def resolve(home: Home, reference: str) -> Artifact:
    """The artifact meant. Raises InputError where nothing, or more than one thing, is meant."""
    if "@" in reference:
        from serving.registry import Registry, parse_reference

        name, channel = parse_reference(reference)
        with Registry.open(home) as registry:
            return home.by_id(registry.current(name, channel).release)
    return home.resolve(reference)
