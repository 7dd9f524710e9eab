"""The files people open: nothing typed in a row may act in them."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from data_prep.figures.origin_counts import OriginCounts
from data_prep.flag import FLAG_TITLES, Flag, Flagged
from data_prep.prepare import Prepared, prepare
from data_prep.refusal import Code, Flaw, Refusal
from data_prep.report import Before, Copy, CopyPair, Findings, write_report
from data_prep.report.page import COPIES_SHOWN, FLAGGED_SHOWN
from data_prep.report.thumbnail import Gallery
from data_prep.sources.opening import open_sources
from lensmith.dataset import Split, read_split
from lensmith.home import Home
from lensmith.images import ImageLimits
from lensmith.page import Picture
from lensmith.recipe import Recipe
from lensmith.sample import Origin
from tests.data_prep.conftest import BankForms
from tests.data_prep.folder import Folder

LIMITS = ImageLimits(max_bytes=10_000_000, max_pixels=10_000_000)
SPLITS_READ: tuple[Split, ...] = ("train", "validation")
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}"


class Tags(HTMLParser):
    """Collects every tag with its attributes, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile(folder: Folder) -> None:
    folder.fill(groups=20)
    for number in range(20):
        row = folder.row(f"row {number} {HOSTILE}", f"{HOSTILE}{number}", json.dumps({HOSTILE: HOSTILE}), "")
        row["messages"][0]["content"] = [
            {"type": "image", "path": folder.image(f"h{number}.png")},
            {"type": "text", "text": HOSTILE},
        ]
        folder.add(row)
    folder.add(folder.row(f"bad {HOSTILE}", path=f"images/{HOSTILE}.png"))
    folder.add(folder.row(f"empty {HOSTILE}", answer="", path=folder.image("e.png")))


def test_hostile_rows_stay_text(folder: Folder, home: Home) -> None:
    hostile(folder)
    prepared = prepare(folder.recipe(), home)
    page = Tags((prepared.intake.path / "report.html").read_text())
    assert "script" not in [tag for tag, _ in page.tags]
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert all(str(a["src"]).startswith("data:image/") for tag, a in page.tags if tag == "img")
    assert page.text.count(HOSTILE) > 20
    assert "<script" not in (prepared.dataset.path / "README.md").read_text()


def test_the_page_needs_nothing_else(forms: BankForms) -> None:
    text = (forms.prepared.intake.path / "report.html").read_text()
    page = Tags(text)
    assert not re.search(r"(src|href)=\"(?!data:|#)", text)
    assert "url(" not in text
    assert {"script", "link", "iframe", "object"}.isdisjoint(tag for tag, _ in page.tags)
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    assert ("html", {"lang": "en"}) in page.tags
    assert sum(tag == "img" for tag, _ in page.tags) > 20
    assert len(text) < 3_000_000


def test_the_exam_is_not_shown(forms: BankForms) -> None:
    from lensmith.dataset import read_held_out

    page = (forms.prepared.intake.path / "report.html").read_text()
    refused = {one for flaw in forms.planted for one in flaw.ids}
    rows = list(read_held_out(forms.home, forms.prepared.held_out, "test that no report shows it"))
    assert rows
    assert [row.sample.id for row in rows if row.sample.id not in refused and row.sample.id in page] == []


def test_a_spreadsheet_opens_the_refusals_and_runs_nothing(folder: Folder, home: Home) -> None:
    folder.fill()
    folder.add(folder.row("=HYPERLINK(1)", answer=""), folder.row('@é, "x"', answer=""))
    prepared = prepare(folder.recipe(), home)
    data = (prepared.intake.path / "refused.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    assert [row["row"] for row in rows] == ["'=HYPERLINK(1)", '\'@é, "x"']
    assert [(row["place"], row["code"]) for row in rows] == [
        ("labels.jsonl:13", "empty_answer"),
        ("labels.jsonl:14", "empty_answer"),
    ]
    records = [json.loads(line) for line in (prepared.intake.path / "refused.jsonl").read_text().splitlines()]
    assert [record["row"] for record in records] == ["=HYPERLINK(1)", '@é, "x"']
    assert all(record["reason"] and record["mend"] for record in records)


def test_large_pictures_are_shown_small(folder: Folder, home: Home, tmp_path: Path) -> None:
    from tests.data_prep.folder import picture

    for number in range(12):
        name = folder.image(f"big-{number}.png", picture(number + 100, 1600, 900))
        folder.add(folder.row(f"big-{number}", path=name))
    page = (prepare(folder.recipe(), home).intake.path / "report.html").read_text()
    assert 'width="400" height="225"' in page
    assert len(page) < 2_000_000


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Prepared]:
    """Twenty good rows and one that is refused, prepared: the recipe and what was made."""
    root = tmp_path_factory.mktemp("twenty")
    folder = Folder(root / "handed-over")
    folder.fill(20)
    folder.add(folder.row("bad", answer=""))
    recipe = folder.recipe()
    return recipe, prepare(recipe, Home(root / "home"))


def findings(twenty: tuple[Recipe, Prepared], tmp_path: Path, found: Findings, **parts: Any) -> str:
    """The page of the twenty rows, written anew with `found`; `parts` go over its body."""
    recipe, prepared = twenty
    (tmp_path / "page").mkdir()
    body = {**prepared.intake.body, "flagged": {"rows": 70, "by_reason": {"outer_space": 70}}}
    body |= {"similar": {"exact": 1, "pairs": 40, "answers": 0, "kept": "together"}, **parts}
    with Gallery(open_sources(recipe.data, tmp_path), LIMITS, tmp_path / "thumbnails.sqlite") as gallery:
        write_report(tmp_path / "page", prepared.dataset, body, found, gallery)
    return (tmp_path / "page" / "report.html").read_text()


def test_flagged_rows_are_shown_with_reason_and_picture(
    twenty: tuple[Recipe, Prepared], tmp_path: Path
) -> None:
    flag = Flag("outer_space", f"the answer is ' 7' {HOSTILE}", "remove it")
    flagged = [
        Flagged(f"labels.jsonl:{n}", f"row {n} {HOSTILE}", (flag,), 0, (f"images/good-{n % 20}-0.png",))
        for n in range(70)
    ]
    page = Tags(findings(twenty, tmp_path, Findings(flagged=flagged)))
    assert page.text.count(FLAG_TITLES["outer_space"]) == FLAGGED_SHOWN + 1
    assert f"Row by row, {FLAGGED_SHOWN} of 70" in page.text
    assert page.text.count(HOSTILE) == 2 * FLAGGED_SHOWN
    pictures = [a for tag, a in page.tags if tag == "img" and "flagged row" in str(a["alt"])]
    assert len(pictures) == FLAGGED_SHOWN


def test_copies_stand_side_by_side_and_the_exam_stays_sealed(
    twenty: tuple[Recipe, Prepared], tmp_path: Path
) -> None:
    left = Copy("row-left", "labels.jsonl:1", 0, "images/good-1-0.png", "train")
    right = Copy("row-right", "labels.jsonl:2", 0, "images/good-2-0.png", None)
    exam = Copy("row-exam", "labels.jsonl:3", 0, "images/good-3-0.png", "held_out")
    copies = [CopyPair("exact", left, right), *[CopyPair("near", left, exam)] * 40]
    text = findings(twenty, tmp_path, Findings(copies=copies))
    page = Tags(text)
    assert (
        "1 refused row repeats a picture, equal in every pixel. 40 pairs of pictures show nearly the same"
        in page.text
    )
    assert f"{COPIES_SHOWN} pairs are shown" in page.text
    assert page.text.count("The same picture") == 1
    assert page.text.count("row-left") == COPIES_SHOWN
    assert page.text.count("row-right") == 1
    assert "row-exam" not in text
    shown = [a.get("alt") for tag, a in page.tags if tag == "img"]
    assert shown.count("Picture of row row-left") == shown.count("Picture of row row-right") == 1


def test_no_more_is_read_than_is_shown(twenty: tuple[Recipe, Prepared], tmp_path: Path) -> None:
    taken: list[int] = []

    def pairs() -> Iterator[CopyPair]:
        for number in range(1000):
            taken.append(number)
            side = Copy("a", "b", 0, "images/good-1-0.png", "train")
            yield CopyPair("near", side, side)

    findings(twenty, tmp_path, Findings(copies=pairs()))
    assert len(taken) == COPIES_SHOWN


@pytest.mark.parametrize("code", ["image_unsafe", "forgotten"])
def test_a_picture_that_is_unsafe_or_forgotten_is_not_opened(
    twenty: tuple[Recipe, Prepared], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: Code
) -> None:
    opened: list[str] = []

    def watched(gallery: Gallery, source: int, paths: Iterable[str]) -> tuple[Picture, ...]:
        opened.extend(asked := list(paths))
        return thumbnails(gallery, source, asked)

    thumbnails = Gallery.thumbnails
    monkeypatch.setattr(Gallery, "thumbnails", watched)
    flaws = {each: Flaw(each, "it is so", "mend it") for each in (code, "empty_answer")}
    refusals = [
        Refusal("labels.jsonl:1", "a", tuple(flaws.values()), 0, ("images/good-1-0.png",)),
        Refusal("labels.jsonl:2", "b", (flaws["empty_answer"],), 0, ("images/good-2-0.png",)),
    ]
    findings(twenty, tmp_path, Findings(refusals=refusals))
    assert "images/good-2-0.png" in opened
    assert "images/good-1-0.png" not in opened


def test_what_changed_stands_first(folder: Folder, home: Home, tmp_path: Path) -> None:
    folder.fill(60)
    before = prepare(folder.recipe(), home)
    for line, number in enumerate(range(60)):
        row = json.loads(folder.lines[line])
        if number % 2:
            row["messages"][1]["content"] = '{"n": ""}'
        folder.lines[line] = json.dumps(row).encode()
    folder.lines = folder.lines[2:]
    folder.add(folder.row("new-1", "group-1"), folder.row("new-2", "group-5"))
    recipe = folder.recipe()
    after = prepare(recipe, home)
    old, new = before.dataset, after.dataset
    ids = [
        {row.sample.id for split in SPLITS_READ for row in read_split(dataset, split)}
        for dataset in (old, new)
    ]
    page_folder = tmp_path / "page"
    page_folder.mkdir()
    compared = Before(old, before.intake)
    with Gallery(open_sources(recipe.data, tmp_path), LIMITS, tmp_path / "thumbnails.sqlite") as gallery:
        write_report(page_folder, new, after.intake.body, Findings(), gallery, compared)
    page = Tags((page_folder / "report.html").read_text())
    assert f"Compared with {old.short}: {len(ids[1] - ids[0])} rows" in page.text
    assert f"are new, {len(ids[0] - ids[1])} are no longer there" in page.text
    assert "More blank \u201cn\u201d than last time" in page.text
    assert page.text.rindex("What changed since") < page.text.rindex("What came in")


def test_half_a_pair_of_surrogates_is_written_as_its_escape(
    twenty: tuple[Recipe, Prepared], tmp_path: Path
) -> None:
    flagged = [Flagged("labels.jsonl:1", "a", (Flag("outer_space", "the answer is \ud800", "remove it"),))]
    assert "the answer is \\ud800" in findings(twenty, tmp_path, Findings(flagged=flagged))


def test_the_origin_of_rows_is_counted(twenty: tuple[Recipe, Prepared], tmp_path: Path) -> None:
    origins = OriginCounts()
    for number in range(20):
        origins.add(Origin(HOSTILE, "CC-BY-4.0", f"person {number}"))
    text = findings(twenty, tmp_path, Findings(), origins=origins.summary())
    page = Tags(text)
    assert "CC-BY-4.0" in page.text
    assert HOSTILE in page.text
    assert "stated for 20 of 20 rows" in page.text
    assert "person" not in page.text
