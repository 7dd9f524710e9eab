"""The base: pinned by what its files hold, found where it lies now."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from lensmith.base import base_key, checkpoint_path, pin_base, verify_base
from lensmith.errors import InputError, IntegrityError
from lensmith.home import Home
from lensmith.recipe import Recipe
from tests.conftest import recipe_content


def recipe_of(base: Path) -> Recipe:
    """A recipe on the checkpoint at `base`."""
    return Recipe.model_validate(recipe_content(base, base / "forms"))


@pytest.fixture(params=["models/tiny", ".cache/hub/tiny"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path, tiny_base: Path) -> Path:
    """A base that may be changed; one of them below a folder called .cache."""
    return Path(shutil.copytree(tiny_base, tmp_path / request.param))


def test_a_changed_file_is_another_base(checkpoint: Path, home: Home) -> None:
    recipe = recipe_of(checkpoint)
    key, base = base_key(recipe), pin_base(recipe, home)
    assert base.body["files"]
    assert pin_base(recipe, home) == base
    weights = checkpoint / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    os.utime(weights, ns=(1, 1))
    assert base_key(recipe) != key
    assert pin_base(recipe, home).id != base.id
    with pytest.raises(IntegrityError, match="not what was pinned"):
        verify_base(base)


def test_what_a_download_keeps_beside_it_does_not_count(checkpoint: Path, home: Home) -> None:
    key, base = base_key(recipe_of(checkpoint)), pin_base(recipe_of(checkpoint), home)
    (checkpoint / ".cache/huggingface").mkdir(parents=True)
    (checkpoint / ".cache/huggingface/lock").write_text("1")
    assert base_key(recipe_of(checkpoint)) == key
    assert ".cache" not in str(base.body["files"])


def test_a_base_that_was_moved_is_found_where_it_is_now(checkpoint: Path, home: Home) -> None:
    before = pin_base(recipe_of(checkpoint), home)
    moved = checkpoint.with_name("moved")
    checkpoint.rename(moved)
    after = pin_base(recipe_of(moved), home)
    assert after.id == before.id, "the same base, wherever it lies"
    assert checkpoint_path(home.by_id(before.id)) == moved
    verify_base(home.by_id(before.id))


def test_a_checkpoint_of_links_is_refused_with_the_mend(tmp_path: Path, tiny_base: Path) -> None:
    linked = tmp_path / "snapshot"
    linked.mkdir()
    for path in tiny_base.iterdir():
        (linked / path.name).symlink_to(path)
    with pytest.raises(InputError) as caught:
        base_key(recipe_of(linked))
    assert "symbolic links" in str(caught.value)
    assert "--local-dir" in str(caught.value)
