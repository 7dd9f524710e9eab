"""Every command, file and link that README and docs show is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lensmith.cli.main import VERBS, verb_module, verb_parser
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Between backticks, or a line of its own in a block.
_SHOWN = re.compile(r"`([^`\n]+)`|^((?:lensmith|accelerate) .+)$", re.MULTILINE)
_OURS = re.compile(r"(?:recipes|scripts|docs|benchmarks|requirements)/[\w./-]+")


def commands(text: str, start: str) -> list[list[str]]:
    """The words of every command of a page that begins with `start`, without comments."""
    found = [(one[1] or one[2]).strip() for one in _SHOWN.finditer(text.replace("\\\n", " "))]
    return [shlex.split(each, comments=True) for each in found if each.startswith(f"{start} ")]


def complaint(words: list[str]) -> str:
    """What the command line has against `lensmith VERB ...`, "" for nothing."""
    verb, *rest = words[1:]
    if verb in ("--help", "VERB"):
        return ""
    if verb not in VERBS:
        return f"no verb {verb}"
    parser = verb_parser(verb, verb_module(verb))
    known = set(parser._option_string_actions)
    unknown = [word for word in rest if word.startswith("-") and word.partition("=")[0] not in known]
    if unknown:
        return f"{verb} has no {unknown[0]}"
    # In a sentence a verb may stand alone, or with its rest left out.
    if len(rest) > 1 and "..." not in rest:
        try:
            parser.parse_args(rest)
        except SystemExit:
            return f"{verb} does not take {shlex.join(rest)}"
    return ""


def dead_links(page: Path) -> list[str]:
    """Links to files or headings that are not there."""
    dead: list[str] = []
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.is_file():
            dead.append(link)
        elif anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            if anchor not in {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}:
                dead.append(link)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert [each for words in commands(text, "lensmith") if (each := complaint(words))] == []
    assert [path for path in _OURS.findall(text) if not (ROOT / path.rstrip(".")).exists()] == []
    assert dead_links(page) == []


def test_there_are_commands_to_look_at() -> None:
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    assert sum(len(commands(text, "lensmith")) for text in texts) > 40
    assert sum(len(commands(text, "accelerate")) for text in texts) >= 7


def test_a_page_that_is_wrong_is_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (
        "`lensmith promot x --to staging`\n```\nlensmith export D --too llava \\\n  --out F # comment\n```\n"
    )
    assert [complaint(each) for each in commands(text, "lensmith")] == [
        "no verb promot",
        "export has no --too",
    ]
    assert complaint(["lensmith", "promote", "RELEASE", "--to", "staging"]).startswith(
        "promote does not take"
    )
    page = tmp_path / "page.md"
    page.write_text("# A heading\n[a](#a-heading) [b](#gone) [c](gone.md)\n")
    assert dead_links(page) == ["#gone", "gone.md"]
    capsys.readouterr()
