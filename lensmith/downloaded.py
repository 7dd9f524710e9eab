"""Which commit of the hub a checkpoint was downloaded at, as `hf download --local-dir` noted it."""

from __future__ import annotations

import re
from pathlib import Path

from lensmith.errors import InputError, Problem

COMMIT = re.compile(r"[0-9a-f]{40}")
# What a recipe says whose base has a commit that its user is to choose.
TO_CHOOSE = "COMMIT"
# huggingface_hub's _local_folder.py: for each file PATH a text PATH.metadata here, its first line the commit.
_NOTES = Path(".cache/huggingface/download")


def is_commit(text: str) -> str:
    """`text`, which may be empty or TO_CHOOSE. Raises ValueError for what is no whole commit: a branch or tag
    moves."""
    if text not in ("", TO_CHOOSE) and not COMMIT.fullmatch(text):
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

    Raises InputError where files were downloaded at another commit than the stated one, or at several, and
    where the commit is yet to be chosen.
    """
    commits = noted_commits(root)
    if stated == TO_CHOOSE:
        found = " or ".join(dict.fromkeys(commits.values()))
        mend = (
            f"write the 40 digits of a commit there{f': the files in {root} are of {found}' if found else ''}"
        )
        if not found:
            mend += " which you choose in the model's history on the hub, and download the base at it"
        what = f"{TO_CHOOSE} stands for a commit: none was known for sure when the recipe was written"
        raise InputError("the recipe does not pin its base", [Problem(what, "base.revision", mend)])
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
