"""Which adapters a checkpoint says it already holds: merged again, each would count twice.

Said by the digest of an adapter's tensors, whatever tool named them how: in `merged_adapters.json` beside the
weights, which `scripts/merge_adapter.py` writes and later merges copy on, and in a model artifact's manifest.
By the weights alone it cannot be told: what an adapter changes is correlated with the base that it was
trained on. Of the demo's 46 linears <W, D> / <D, D> lies between -0.4 and 0.5 in the base, and one higher in
the merged model; of a change a tenth as large, between -4 and 5, where one more says nothing. And a training
that goes on from a merged model often changes it the same way again: its adapter is no double.
No torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lensmith.artifact import MANIFEST
from lensmith.errors import InputError, Problem
from lensmith.files import write_json

MERGED = "merged_adapters.json"
# In the body of a model artifact: digests alone.
BODY = "adapters"
_TENSORS = "tensors_sha256"


def check_not_merged(base: Path, adapter: Path, digest: str) -> None:
    """Refuse (InputError) an adapter that the checkpoint `base` states to hold; `digest`: of its tensors.

    Also where that statement cannot be read.
    """
    for name, digests in _stated(base).items():
        if digest in digests:
            raise InputError(
                f"the adapter in {adapter} is already merged into {base}",
                [
                    Problem(
                        f"names its tensors, SHA-256 {digest}", name, "give the base that it was trained on"
                    )
                ],
            )


def note_merged(base: Path, target: Path, digest: str, facts: dict[str, Any]) -> None:
    """Write into the checkpoint `target` what it holds: what `base` does, and the adapter of this digest."""
    write_json(target / MERGED, [*_read_list(base), {_TENSORS: digest, **facts}])


def _stated(base: Path) -> dict[str, list[str]]:
    """By file of the checkpoint the digests of the adapters that it names."""
    found = {MERGED: [each[_TENSORS] for each in _read_list(base)]}
    if (base / MANIFEST).is_file():
        body = _read_json(base / MANIFEST).get("body", {})
        found[MANIFEST] = body.get(BODY, [])
    return found


def _read_list(base: Path) -> list[dict[str, Any]]:
    if not (base / MERGED).is_file():
        return []
    content = _read_json(base / MERGED)
    if not isinstance(content, list) or not all(
        isinstance(each, dict) and _TENSORS in each for each in content
    ):
        raise InputError(f"{base / MERGED} cannot be read", [Problem("is no list of merged adapters")])
    return content


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} cannot be read", [Problem(f"is no JSON: {error}")]) from error
