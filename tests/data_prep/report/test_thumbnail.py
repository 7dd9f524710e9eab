"""Small pictures of earlier pages: shown again while what they were made from is the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_prep.decoding.pool import DecoderPool
from data_prep.report import thumbnail
from data_prep.report.thumbnail import EDGE, Gallery
from data_prep.sources.opening import open_sources
from lensmith.images import ImageLimits, decode_stored, encode_png, pixel_digest
from lensmith.page import picture as made
from lensmith.sample import Image
from tests.data_prep.folder import Folder, picture

LIMITS = ImageLimits()
PATH = "images/one.png"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pictures that are opened, by name, or "" where it is here."""
    names: list[str] = []
    facts = DecoderPool.facts

    def watched(self: DecoderPool, requests: Any, work: str = "") -> Iterator[Any]:
        asked = list(requests)
        names.extend(each.name for each in asked)
        return facts(self, asked, work)

    def watched_here(png: bytes) -> Any:
        names.append("")
        return decode_stored(png)

    monkeypatch.setattr(DecoderPool, "facts", watched)
    monkeypatch.setattr(thumbnail, "decode_stored", watched_here)
    return names


def shown(folder: Folder, cache: Path, *paths: str, limits: ImageLimits = LIMITS) -> list[Any]:
    with Gallery(open_sources(folder.recipe().data, cache.parent), limits, cache) as gallery:
        return list(gallery.thumbnails(0, paths))


@pytest.mark.slow
def test_a_file_is_opened_for_one_page_and_no_other(
    folder: Folder, tmp_path: Path, opened: list[str]
) -> None:
    folder.add(folder.row("one"), folder.row("two"))
    folder.image("broken.png", b"no picture")
    cache = tmp_path / "thumbnails.sqlite"
    first = shown(folder, cache, PATH)
    assert opened == [PATH]
    # In their order, and what cannot be opened is tried each time: who mended it must not wait.
    again = shown(folder, cache, "images/two.png", "images/broken.png", PATH, "images/none.png")
    assert opened[1:] == ["images/two.png", "images/broken.png", "images/none.png"]
    assert again[1:] == first
    assert again[0] != first[0]
    folder.image("one.png", picture(77))
    changed = shown(folder, cache, PATH)
    assert opened[4:] == [PATH]
    assert changed == [made(decode_stored(picture(77)), EDGE)] != first
    # Of these limits nobody has seen whether they allow it.
    assert shown(folder, cache, PATH, limits=replace(LIMITS, max_pixels=1)) == []


def test_a_stored_picture_is_decoded_for_one_page_and_no_other(
    folder: Folder, tmp_path: Path, opened: list[str]
) -> None:
    folder.add(folder.row("one"))
    images = [decode_stored(picture(seed)) for seed in (1, 2)]
    for _ in range(2):
        sources = open_sources(folder.recipe().data, tmp_path)
        with Gallery(sources, LIMITS, tmp_path / "thumbnails.sqlite") as gallery:
            for image in images:
                named = Image("any.png", pixel_digest(image), image.size)
                assert gallery.stored(named, encode_png(image)) == made(image, EDGE)
    assert opened == ["", ""]
