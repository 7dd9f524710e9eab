"""Recall and precision at Jaccard 0.8, and the rule that exempts short answers."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.similar import text_index
from data_prep.similar.text import is_long, jaccard, sign, triples, words_of
from data_prep.similar.text_index import NearTexts, TextIndex

WORDS = [f"word{letter}{other}" for letter in "abcdefghijklmnop" for other in "abcdefghijklmnop"]


def edited(words: list[str], places: int, rng: np.random.Generator) -> list[str]:
    changed = list(words)
    for place in rng.choice(len(words), places, replace=False):
        changed[place] = f"other{rng.integers(1000)}"
    return changed


def find(texts: list[str], folder: Path) -> NearTexts:
    with TextIndex(folder, len(texts) + 5) as index:
        for at in range(0, len(texts), 100):
            index.add(texts[at : at + 100])
        return index.find(texts.__getitem__)


def pairs_of(found: NearTexts) -> set[tuple[int, int]]:
    return set(zip(found.first.tolist(), found.second.tolist(), strict=True))


def similarity(left: str, right: str) -> float:
    return jaccard(triples(left), triples(right))


def copies(number: int, places: int | None = None) -> list[str]:
    """Texts of 60 words, then each again with up to four words, or with `places`, changed."""
    rng = np.random.default_rng(0)
    originals = [list(rng.choice(WORDS, 60)) for _ in range(number)]
    changed = [edited(words, at % 5 if places is None else places, rng) for at, words in enumerate(originals)]
    return [" ".join(words) for words in [*originals, *changed]]


def test_recall_and_precision_at_0_8(tmp_path: Path) -> None:
    texts = copies(300)
    pairs = pairs_of(find(texts, tmp_path))
    wanted = {(n, 300 + n) for n in range(300) if similarity(texts[n], texts[300 + n]) >= 0.8}
    assert len(wanted) >= 150
    # Candidates are missed with probability 0.002 at 0.8; the exact Jaccard leaves no wrong pair.
    assert len(pairs & wanted) / len(wanted) >= 0.99
    assert pairs <= wanted


def test_fewer_bands_would_miss_pairs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    texts = copies(100, 2)
    whole = len(find(texts, tmp_path).first)
    monkeypatch.setattr(text_index, "BANDS", 2)
    assert len(find(texts, tmp_path).first) < 0.8 * whole


@pytest.mark.parametrize(
    "short", ["42", "2024-05-06", "yes", "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20", ""]
)
def test_short_answers_are_exempt(short: str) -> None:
    assert not is_long(short, 12)
    assert is_long(" ".join(WORDS[:12]), 12)
    assert not is_long(" ".join(WORDS[:12]), 13)


def test_a_character_without_spaces_is_a_word() -> None:
    assert words_of("报告 PDF写于2024年") == ["报", "告", "pdf", "写", "于", "2024", "年"]


def test_three_thousand_equal_texts_are_a_star(tmp_path: Path) -> None:
    one = " ".join(WORDS[:40])
    found = find([one] * 3_000, tmp_path)
    assert pairs_of(found) == {(0, number) for number in range(1, 3_000)}


def test_a_crowd_on_one_template_is_neither_joined_nor_compared_for_long(tmp_path: Path) -> None:
    """Reports that share 50 of 62 words: not copies, but those that are copies are found among them."""
    rng = np.random.default_rng(1)
    frame = list(rng.choice(WORDS, 50))
    texts = [" ".join([*frame, *(f"own{rng.integers(10**6)}" for _ in range(12))]) for _ in range(600)]
    texts += [f"{text} indeed" for text in texts[:20]]
    read: list[int] = []

    def reader(number: int) -> str:
        read.append(number)
        return texts[number]

    with TextIndex(tmp_path, len(texts)) as index:
        index.add(texts)
        found = pairs_of(index.find(reader))
    assert found == {(number, 600 + number) for number in range(20)}
    assert len(read) <= 2 * 32 * len(texts)


def test_memory_does_not_grow_with_the_texts(tmp_path: Path) -> None:
    """Some 120 bytes a text: 200 MB hold more than a million. One array more of 128 hashes would show."""
    rng = np.random.default_rng(3)
    number = 4_000
    with TextIndex(tmp_path, number) as index:
        for _ in range(number // 500):
            index.add([" ".join(rng.choice(WORDS, 14)) for _ in range(500)])
        tracemalloc.start()
        index.find(lambda at: "")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 150 * number


def test_there_is_no_room_beyond(tmp_path: Path) -> None:
    with TextIndex(tmp_path, 1) as index, pytest.raises(ValueError, match="more than 1"):
        index.add(["a", "b"])


def test_case_width_and_punctuation_do_not_count(tmp_path: Path) -> None:
    one = " ".join(WORDS[:20])
    assert similarity(one, one.upper().replace(" ", ", ")) == 1
    assert sign(one).digest == sign(one.upper().replace(" ", ", ")).digest
    assert find([], tmp_path).first.size == 0


@given(st.text(), st.text())
def test_any_text_has_a_signature_and_a_jaccard(left: str, right: str) -> None:
    assert sign(left).keys.shape == (21,)
    assert 0 <= similarity(left, right) == similarity(right, left) <= 1


def test_half_a_surrogate_pair_is_text_too() -> None:
    assert is_long(" ".join(WORDS[:20]) + " \ud800x", 12)
    sign(" ".join(WORDS[:20]) + " \ud800x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Two words, WORDS.", ["two", "words", "words"]),
        ("\u65e5\u672c \U00020000\u8a9e", ["\u65e5", "\u672c", "\U00020000", "\u8a9e"]),
        (
            "\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902",
            ["\u0939\u093f\u0928\u094d\u0926\u0940", "\u092e\u0947\u0902"],
        ),
        ("\u0643\u064e\u062a\u064e\u0628\u064e", ["\u0643\u064e\u062a\u064e\u0628\u064e"]),
        ("cafe\u0301", ["caf\u00e9"]),
        ("\ud55c\uad6d\uc5b4 \ud14d\uc2a4\ud2b8", ["\ud55c\uad6d\uc5b4", "\ud14d\uc2a4\ud2b8"]),
    ],
)
def test_words_of_other_scripts(text: str, words: list[str]) -> None:
    assert words_of(text) == words
