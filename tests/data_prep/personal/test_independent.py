"""The sets of texts that were written without a look at the detectors, and the figures on them."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from typing import Any, get_args

import measure_detectors
import pytest
from measure_detectors import INDEPENDENT, UNSEEN, by_form, reference, unseen, unseen_figures

from data_prep.personal.detector import Detector, Span
from data_prep.personal.finder import Finder, detectors
from lensmith.data_settings import DetectorName

SETS = {path.stem: json.loads(path.read_text(encoding="utf-8"))["texts"] for path in (INDEPENDENT, UNSEEN)}
# Elo and Troy: cards that the detector does not know, as docs/reference/detectors.md says.
UNKNOWN_NETWORKS = ("6362", "9792")
of_each_set = pytest.mark.parametrize("texts", SETS.values(), ids=SETS)


def test_no_text_is_in_both_sets() -> None:
    first, second = ({each["text"] for each in texts} for texts in SETS.values())
    assert first & second == set()


@pytest.mark.parametrize(("name", "least"), [("independent", 12), ("unseen", 7)])
def test_every_detector_has_stretches_and_texts_against_it(name: str, least: int) -> None:
    texts = SETS[name]
    positives = Counter(kind for each in texts for kind in {span["detector"] for span in each["spans"]})
    against = Counter(kind for each in texts for kind in each["hard_for"])
    assert {name for name in get_args(DetectorName) if positives[name] < 12 or against[name] < least} == set()
    assert set(positives) | set(against) == set(get_args(DetectorName))


@of_each_set
def test_texts_differ_and_stretches_stand_in_them_one_after_another(texts: list[dict[str, Any]]) -> None:
    assert len({each["text"] for each in texts}) == len({each["id"] for each in texts}) == len(texts)
    for each in texts:
        for span in each["spans"]:
            stretch = each["text"][span["start"] : span["end"]]
            assert stretch
            assert stretch == stretch.strip()
        assert all(left["end"] <= right["start"] for left, right in pairwise(each["spans"]))


@of_each_set
@pytest.mark.parametrize(
    "detector",
    [each for each in detectors() if each.name not in ("email", "phone")],
    ids=lambda each: each.name,
)
def test_check_digits_computed_apart_agree(detector: Detector, texts: list[dict[str, Any]]) -> None:
    """Two people's arithmetic of one rule: it accepts what the other made right, not what was broken."""

    def accepts(number: str) -> bool:
        return bool(detector.pattern.fullmatch(number)) and detector.measure(number) == len(number)

    made = [fact for each in texts for fact in each["facts"] if fact["of"] == detector.name]
    keyless = [fact for fact in made if "without its key" in fact["rule"]]
    broken = [
        fact
        for each in texts
        for fact in each["facts"]
        if fact["rule"].startswith("the check is wrong") and detector.name in each["hard_for"]
    ]
    made = [fact for fact in made if not fact["number"].startswith(UNKNOWN_NETWORKS)]
    assert len(made) >= 12
    assert [fact for fact in made if fact not in keyless and not accepts(fact["number"])] == []
    assert [fact for fact in broken if accepts(fact["number"])] == []


def test_committed_figures_hold_those_of_the_unseen_texts() -> None:
    written = reference()
    assert measure_detectors.OUT.read_text() == written, "run: .venv/bin/python scripts/measure_detectors.py"
    before = unseen_figures(unseen(INDEPENDENT))
    for name, each in unseen_figures(unseen()).items():
        known = before[name]
        end = f"| {known.precision:.3f} | {known.recall:.3f} "
        end += f"| {each.positives} | {each.hard_negatives} | {each.precision:.3f} | {each.recall:.3f} |"
        assert [line for line in written.splitlines() if f"| `{name}` |" in line and line.endswith(end)]


class Shifted(Finder):
    """The mutant: every stretch ends a character early."""

    def find(self, text: str, before: str = "") -> list[Span]:
        return [Span(each.kind, each.start, each.end - 1) for each in super().find(text, before)]


def test_a_stretch_found_in_part_is_not_right(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = unseen()
    monkeypatch.setattr(measure_detectors, "Finder", Shifted)
    cut = unseen()
    for name, each in unseen_figures(cut).items():
        before = unseen_figures(whole)[name]
        # At most what was a character too long before.
        assert each.right <= before.wrong
        assert each.right + each.wrong == before.right + before.wrong
    assert sum(exact for _, exact, _ in by_form(cut).values()) < 5
    assert [partly for *_, partly in by_form(cut).values()] == [
        partly for *_, partly in by_form(whole).values()
    ]


def test_a_detector_that_is_gone_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without(Finder):
        def find(self, text: str, before: str = "") -> list[Span]:
            return [each for each in super().find(text, before) if each.kind != "iban"]

    monkeypatch.setattr(measure_detectors, "Finder", Without)
    assert unseen_figures(unseen())["iban"].right == 0
