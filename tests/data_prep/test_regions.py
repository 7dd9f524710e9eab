"""Places that are refused, and images that are not the ones drawn on."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.prepare import prepare
from data_prep.regions import region_flags, region_flaws, size_flaws
from lensmith.coordinates import BOX_TOKENS, JSON_PIXELS, JSON_THOUSAND, POINT_TAGS, REF_DET
from lensmith.home import Home
from lensmith.sample import Image, Message, Region, Sample, Text
from tests.data_prep.folder import Folder

GOOD = Region("box", (0.1, 0.1, 0.2, 0.2), "stamp")


def sample(*parts: Region | Text, images: tuple[Image, ...] = (Image("a.png"), Image("b.png"))) -> Sample:
    return Sample("a", "g", (Message("user", images), Message("assistant", parts)))


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((GOOD, Region("point", (0, 1)), Region("span", (0.0, 2.5))), []),
        ((Region("box", (0.1, 0.1, 1.2, 0.2)),), ["leaves the image"]),
        ((Region("box", (0.2, 0.1, 0.1, 0.2)),), ["turned over"]),
        ((Region("point", (0.5, float("nan"))),), ["not finite"]),
        ((Region("box", (0.1, 0.1, 0.2, 0.2), "", 2),), ["lies in image 2, the row has 2"]),
        ((Region("box", (0.1, 0.1, 0.2, 0.2), "two\nlines"),), ["line break or a tag"]),
        ((Region("box", (0.1, 0.1, 0.2, 0.2), "<|end_of_box|>"),), ["line break or a tag"]),
        ((GOOD, Region("box", (0.1, 0.1, 0.2, 0.2), "", 1)), ["in several images"]),
        ((GOOD, Text(" and in the second "), Region("box", (0.1, 0.1, 0.2, 0.2), "", 1)), []),
    ],
)
def test_regions(parts: tuple[Region | Text, ...], words: list[str]) -> None:
    for form in (JSON_THOUSAND, BOX_TOKENS):
        found = list(region_flaws(sample(*parts), form))
        assert [flaw.code for flaw in found] == ["region"] * len(words)
        assert all(word in flaw.what for word, flaw in zip(words, found, strict=True))


def test_kinds_that_the_family_does_not_write() -> None:
    assert [flaw.code for flaw in region_flaws(sample(GOOD), POINT_TAGS)] == ["region"]
    assert [flaw.code for flaw in region_flaws(sample(Region("point", (0, 0))), REF_DET)] == ["region"]
    assert list(region_flaws(sample(GOOD), REF_DET)) == []


@pytest.mark.parametrize(
    ("drawn", "decoded", "word"),
    [
        ((640, 480), (640, 480), ""),
        ((0, 0), (640, 480), ""),
        ((640, 480), (0, 0), ""),
        ((320, 240), (640, 480), ""),
        ((333, 250), (4000, 3000), ""),
        ((480, 640), (640, 480), "to be turned"),
        ((240, 320), (640, 480), "to be turned"),
        ((640, 400), (640, 480), "the image that was labelled"),
        ((500, 500), (640, 480), "the image that was labelled"),
    ],
)
def test_the_image_is_the_one_that_was_drawn_on(
    drawn: tuple[int, int], decoded: tuple[int, int], word: str
) -> None:
    row = sample(GOOD, images=(Image("a.png", size=drawn),))
    found = list(size_flaws(row, [decoded]))
    assert [flaw.code for flaw in found] == (["image_size"] if word else [])
    assert all(word in flaw.mend for flaw in found)


@given(st.integers(8, 6000), st.integers(8, 6000), st.floats(0.05, 1))
def test_a_reduced_copy_is_the_same_drawing(width: int, height: int, scale: float) -> None:
    drawn = (max(1, round(width * scale)), max(1, round(height * scale)))
    row = sample(GOOD, images=(Image("a.png", size=drawn),))
    assert list(size_flaws(row, [(width, height)])) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"bbox_2d": [12, 30, 1240, 512], "label": "stamp"}]', "up to 1240"),
        ('{"stamp": {"bbox": [0.1, 0.2, 0.35, 0.4]}}', "up to 0.4"),
        ("{'BoundingBox': [[1, 2, 3, 4]]}", "up to 4"),
        ("point_2d=(7,-9)", "up to 7"),
        ('{"bbox": 7}', ""),
        ('{"bbox": ["a", "b"]}', ""),
        ('{"box": [1, 2]}', ""),
        ('{"letterbox_2d": [1, 2]}', ""),
        ("the bbox is 7, 9", ""),
    ],
)
def test_places_that_are_typed_are_flagged(text: str, said: str) -> None:
    for form, counts in ((JSON_THOUSAND, "0 to 1000"), (JSON_PIXELS, "pixels")):
        found = list(region_flags(sample(Text(text)), form))
        assert [flag.code for flag in found] == (["typed_places"] if said else [])
        assert all(said in flag.what and counts in flag.mend for flag in found)


def test_places_that_are_drawn_or_asked_for_are_no_typed_ones() -> None:
    asked = Message("user", (Image("a.png"), Text('What is in {"bbox_2d": [1, 2, 3, 4]}?')))
    answer = Message("assistant", (GOOD,))
    assert list(region_flags(Sample("a", "g", (asked, answer)), JSON_THOUSAND)) == []
    assert list(region_flags(Sample("a", "g", ()), JSON_THOUSAND)) == []


def test_a_row_with_typed_places_is_kept_and_listed(folder: Folder, home: Home) -> None:
    folder.fill()
    folder.add(folder.row("typed", answer=json.dumps({"stamp": {"bbox": [12, 30, 1240, 512]}})))
    intake = prepare(folder.recipe(), home).intake
    (flagged,) = map(json.loads, (intake.path / "flagged.jsonl").read_text().splitlines())
    assert (flagged["row"], flagged["code"]) == ("typed", "typed_places")
