"""The page in a real browser, at the width of a telephone and of a desk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from data_prep.flag import Flag, Flagged
from data_prep.refusal import Flaw, Refusal
from data_prep.report import Before, Copy, CopyPair, Findings, Gallery, write_report
from data_prep.sources.opening import open_sources
from lensmith.images import ImageLimits
from tests.browser import Browser, find_browser
from tests.data_prep.conftest import BankForms

# Starts a real browser.
pytestmark = pytest.mark.slow

LONG = "w" * 300
BROKEN = """<!doctype html><html><head><title>x</title></head><body><h1>a</h1><h3>b</h3>
<a href="#nowhere">c</a><img src="data:image/png;base64,AAAA" alt="broken"><img src="missing.png">
<div style="width:2000px;height:3px">d</div><script>console.error("e"); undefined_name()</script></body>
</html>"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def page(forms: BankForms, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with every part, and words that no line can hold."""
    folder = tmp_path_factory.mktemp("page")
    dataset = forms.prepared.dataset
    picture = "images/form-00004.png"
    side = Copy(LONG, f"{LONG}:1", 0, picture, "train")
    field = {**dataset.body["labels"]["fields"][0], "name": LONG}
    field["values"] = {**field["values"], "values": [[LONG[:80], 20]]}
    body = {
        **forms.prepared.intake.body,
        "flagged": {"rows": 1, "by_reason": {"long_answer": 1}},
        "similar": {"exact": 1, "pairs": 0, "answers": 0, "kept": "together"},
        "labels": {**dataset.body["labels"], "fields": [field, *dataset.body["labels"]["fields"]]},
    }
    flagged = Flagged(f"{LONG}:1", LONG, (Flag("long_answer", LONG, LONG),), 0, (picture,))
    refused = Refusal(f"{LONG}:1", LONG, (Flaw("image_missing", LONG, LONG),), 0, (picture,))
    found = Findings([refused], [flagged], [CopyPair("exact", side, side)], (LONG,))
    limits = ImageLimits(max_bytes=10_000_000, max_pixels=10_000_000)
    before = Before(dataset, forms.prepared.intake)
    with Gallery(open_sources(forms.recipe.data, folder), limits, folder / "thumbnails.sqlite") as gallery:
        write_report(folder, dataset, body, found, gallery, before)
    return folder / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_holds_together(browser: Browser, page: Path, width: int, scheme: str) -> None:
    seen = browser.open(page, width, "dark" if scheme == "dark" else "light")
    assert (seen.width, seen.content) == (width, width)
    assert seen.outside == []
    assert seen.requests == []
    assert seen.complaints == []
    assert seen.images > 15
    assert (seen.broken, seen.unnamed, seen.anchors) == ([], 0, [])
    assert seen.headings[0] == 1
    assert seen.headings.count(1) == 1
    assert all(lower <= upper + 1 for upper, lower in zip(seen.headings, seen.headings[1:], strict=False))
    assert "What changed since the last version" in seen.text


def test_a_page_that_falls_apart_is_seen(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "broken.html").write_text(BROKEN)
    seen = browser.open(tmp_path / "broken.html", 360)
    assert seen.content > seen.width
    assert seen.outside
    assert [Path(each).name for each in seen.requests] == ["missing.png"]
    assert len(seen.complaints) >= 2
    assert "broken" in seen.broken
    assert seen.unnamed == 1
    assert len(seen.anchors) == 1
    assert seen.headings == [1, 3]


def test_light_and_dark_are_two_pages(browser: Browser, page: Path) -> None:
    assert browser.open(page, 1280, "light").picture != browser.open(page, 1280, "dark").picture


def test_a_machine_without_a_browser_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("LENSMITH_BROWSER", raising=False)
    with pytest.raises(FileNotFoundError, match="apt-get install chromium"):
        find_browser()
    monkeypatch.setenv("LENSMITH_BROWSER", "/nowhere/chromium")
    with pytest.raises(FileNotFoundError, match="/nowhere/chromium"):
        find_browser()
