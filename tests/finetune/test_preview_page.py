"""The preview's page, in a real browser and through the command line."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from finetune.preview import Piece, PreviewRow
from finetune.preview_page import write_page
from lensmith.cli.main import main
from tests.browser import Browser
from tests.conftest import RecipeMaker

# Starts a real browser.
pytestmark = pytest.mark.slow

HOSTILE = "</bdi><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}"
LONG = "w" * 300


def png(width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), "steelblue").save(stream, "PNG")
    return stream.getvalue()


def planted() -> list[PreviewRow]:
    pieces = (
        Piece("<|im_start|>", 1, False, True),
        Piece(f"user\n{HOSTILE}", 9, False, False),
        Piece("<|image_pad|>", 1280, False, True),
        Piece(f"{LONG}\u202eturned", 5, False, False),
        Piece(f"{LONG} the answer", 40, True, False),
        Piece("<|im_end|>", 1, True, True),
    )
    many = PreviewRow(LONG, (png(900, 300), png(40, 90)), ((900, 300), (40, 90)), 1280, pieces)
    return [many, PreviewRow(HOSTILE, (), (), 0, pieces[-2:])]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_holds_together(browser: Browser, tmp_path: Path, width: int, scheme: str) -> None:
    write_page(planted(), tmp_path / "page.html", f"forms {HOSTILE}")
    seen = browser.open(tmp_path / "page.html", width, "dark" if scheme == "dark" else "light")
    assert (seen.width, seen.content) == (width, width)
    assert seen.outside == []
    assert (seen.requests, seen.complaints) == ([], [])
    assert (seen.images, seen.broken, seen.unnamed, seen.anchors) == (2, [], 0, [])
    assert seen.headings == [1, 2, 2]
    assert HOSTILE in seen.text
    assert "\\u202eturned" in seen.text
    assert "<|image_pad|> \N{MULTIPLICATION SIGN} 1,280" in seen.text


def test_what_is_learned_is_marked_and_nothing_else(tmp_path: Path) -> None:
    write_page(planted(), tmp_path / "page.html", "forms")
    row = (tmp_path / "page.html").read_text().partition("<article")[2].partition("</article>")[0]
    marked = [each.partition("</mark>")[0] for each in row.split("<mark>")[1:]]
    assert len(marked) == 2
    assert f"{LONG} the answer" in marked[0]
    assert "&lt;|im_end|&gt;" in marked[1]
    assert "1,336 tokens: 1,280 for pictures, 41 learned" in row


def test_through_the_command_line(
    browser: Browser, make_recipe: RecipeMaker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, home = tmp_path / "see.html", tmp_path / "home"
    recipe = str(make_recipe())
    assert main(["preview", recipe, "--rows", "2", "--page", str(page), "--home", str(home)]) == 0
    assert f"page    {page}" in capsys.readouterr().out
    seen = browser.open(page, 1280)
    assert seen.images == 2
    assert (seen.broken, seen.requests, seen.complaints) == ([], [], [])
    assert "Read the form." in seen.text
    assert "account" in seen.text
    assert main(["preview", recipe, "--rows", "0", "--home", str(home)]) == 2
    assert "--rows: must be 1 or more" in capsys.readouterr().err
