"""The evaluation page in a real browser, at the width of a telephone and of a desk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lensmith.home import Home
from tests.browser import Browser
from tests.release_artifacts import World, wrong_every

# Starts a real browser.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = World(Home(tmp_path_factory.mktemp("page") / "home"))
    report = world.report(world.model("one"), wrong_every(4), world.base, wrong_every(1))
    return report.path / "page.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_holds_together(browser: Browser, page: Path, width: int, scheme: str) -> None:
    seen = browser.open(page, width, "dark" if scheme == "dark" else "light")
    assert (seen.width, seen.content) == (width, width)
    assert seen.outside == []
    assert (seen.requests, seen.complaints) == ([], [])
    assert (seen.broken, seen.unnamed, seen.anchors) == ([], 0, [])
    # 12 mistakes and 6 of the rows that are read right now.
    assert seen.images == 18
    assert seen.headings[:2] == [1, 2]
    # The page's own script runs: it shows the filters.
    assert "12 shown" in seen.text
