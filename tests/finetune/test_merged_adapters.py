"""A checkpoint says which adapters it holds, and none is merged into it twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune.merged_adapters import MERGED, check_not_merged, note_merged
from lensmith.errors import InputError

ADAPTER = Path("/adapter")


def test_what_a_checkpoint_holds_goes_on_into_the_next(tmp_path: Path) -> None:
    bases = [tmp_path / str(number) for number in range(3)]
    for each in bases:
        each.mkdir()
    check_not_merged(bases[0], ADAPTER, "a")
    note_merged(bases[0], bases[1], "a", {"proof": {}})
    check_not_merged(bases[1], ADAPTER, "b")
    note_merged(bases[1], bases[2], "b", {"proof": {}})
    for held in ("a", "b"):
        with pytest.raises(InputError, match="already merged into") as caught:
            check_not_merged(bases[2], ADAPTER, held)
        assert f"{MERGED}: names its tensors, SHA-256 {held}" in str(caught.value)
    check_not_merged(bases[0], ADAPTER, "a")


def test_a_model_of_ours_says_it_in_its_manifest(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"kind": "model", "body": {"adapters": ["a", "b"]}}))
    with pytest.raises(InputError, match="already merged into"):
        check_not_merged(tmp_path, ADAPTER, "b")
    check_not_merged(tmp_path, ADAPTER, "c")
    # One of before that was said, or of method full.
    (tmp_path / "manifest.json").write_text(json.dumps({"kind": "model", "body": {}}))
    check_not_merged(tmp_path, ADAPTER, "b")


@pytest.mark.parametrize("content", ["{", "{}", "[1]", "[{}]", "null"])
def test_what_cannot_be_read_is_not_taken_for_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / MERGED).write_text(content)
    with pytest.raises(InputError, match=f"{MERGED} cannot be read"):
        check_not_merged(tmp_path, ADAPTER, "a")
