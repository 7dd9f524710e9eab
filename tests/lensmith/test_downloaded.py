"""The commit of a base: what the recipe states, what the download noted, and that they are one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lensmith.base import base_key, pin_base
from lensmith.downloaded import noted_commits, pinned_revision
from lensmith.errors import InputError
from lensmith.home import Home
from lensmith.recipe import Recipe
from tests.conftest import recipe_content

FIRST, SECOND = "a" * 40, "b" * 40


def note(root: Path, **commits: str) -> None:
    """Notes as huggingface_hub 1.x writes them: commit, etag, time."""
    for name, commit in commits.items():
        path = root / ".cache/huggingface/download" / f"{name}.json.metadata"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{commit}\n{'c' * 40}\n1712656091.123\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("config", "index"):
        (tmp_path / f"{name}.json").write_text("{}")
    return tmp_path


def test_hugging_faces_own_writer_writes_what_is_read(root: Path) -> None:
    from huggingface_hub._local_folder import write_download_metadata

    write_download_metadata(root, "config.json", FIRST, "etag")
    assert noted_commits(root) == {"config.json": FIRST}


def test_the_stated_commit_is_the_downloaded_one(root: Path) -> None:
    assert pinned_revision(root, FIRST) == FIRST, "a base that came another way is what its recipe says"
    assert pinned_revision(root, "") == ""
    note(root, config=FIRST, index=FIRST, gone=SECOND)
    assert pinned_revision(root, FIRST) == pinned_revision(root, "") == FIRST
    with pytest.raises(InputError, match=f"2 files are of commit {FIRST}, base.revision is {SECOND}"):
        pinned_revision(root, SECOND)


def test_a_commit_that_is_to_be_chosen_is_asked_for(root: Path) -> None:
    def asked() -> str:
        with pytest.raises(InputError, match="does not pin its base") as error:
            pinned_revision(root, "COMMIT")
        (problem,) = error.value.problems
        assert problem.where == "base.revision"
        return problem.mend

    assert "choose in the model's history" in asked()
    note(root, config=FIRST, index=FIRST)
    assert asked().endswith(f"are of {FIRST}")


def test_files_of_two_commits_are_no_base(root: Path) -> None:
    note(root, config=FIRST, index=SECOND)
    for stated in ("", FIRST):
        with pytest.raises(InputError, match=f"1 files are of commit {SECOND}"):
            pinned_revision(root, stated)


def test_the_base_is_recorded_with_its_commit(tiny_base: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    note(base, config=FIRST)
    content = recipe_content(base, base)
    assert pin_base(Recipe.model_validate(content), Home(tmp_path / "home")).body["revision"] == FIRST
    content["base"]["revision"] = SECOND
    with pytest.raises(InputError, match="another commit"):
        base_key(Recipe.model_validate(content))


@pytest.mark.parametrize("revision", ["main", "v1.0", "a" * 39, "A" * 40])
def test_a_revision_that_may_move_is_refused(tmp_path: Path, revision: str) -> None:
    content = recipe_content(tmp_path, tmp_path)
    content["base"]["revision"] = revision
    with pytest.raises(ValueError, match="is no commit"):
        Recipe.model_validate(content)
