"""Which commit of the hub a checkpoint was downloaded at, as `hf download --local-dir` noted it."""

from __future__ import annotations

import re
from pathlib import Path

from lensmith.errors import InputError, Problem

COMMIT = re.compile(r"[0-9a-f]{40}")
# huggingface_hub's _local_folder.py: for each file PATH a text PATH.metadata here, its first line the commit.
_NOTES = Path(".cache/huggingface/download")


def is_commit(text: str) -> str:
    """`text`, which may be empty. Raises ValueError for what is no whole commit: a branch or tag moves."""
    if text and not COMMIT.fullmatch(text):
        raise ValueError(f"{text!r} is no commit: give all 40 digits of it; a branch or tag moves")
    return text


def noted_commits(root: Path) -> dict[str, str]:
    """The commit of each downloaded file of `root` that is still there, by its POSIX path."""
    notes = root / _NOTES
    commits: dict[str, str] = {}
    for note in sorted(notes.rglob("*.metadata")):
        path = note.relative_to(notes).with_suffix("").as_posix()
        lines = note.read_text(encoding="utf-8", errors="replace").splitlines()
        if (root / path).is_file() and lines and COMMIT.fullmatch(lines[0]):
            commits[path] = lines[0]
    return commits


def pinned_revision(root: Path, stated: str) -> str:
    """The commit of the checkpoint at `root`: `stated`, or the one that its download noted, "" for neither.

    Raises InputError where files were downloaded at another commit than the stated one, or at several.
    """
    commits = noted_commits(root)
    wanted = stated or next(iter(commits.values()), "")
    others = {path: commit for path, commit in commits.items() if commit != wanted}
    if not others:
        return wanted
    problems = [
        Problem(
            f"{sum(each == commit for each in others.values())} files are of commit {commit}, "
            + (f"base.revision is {wanted}" if stated else f"others of {wanted}"),
            str(root),
            "download the commit that base.revision names; or name this one",
        )
        for commit in dict.fromkeys(others.values())
    ]
    raise InputError("the base was downloaded at another commit", problems)
