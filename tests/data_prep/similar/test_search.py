"""Recall of every transformation and false positives; and that each part of the search is needed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from data_prep.similar import align, crowd_judge, fine, hashes, same, search
from data_prep.similar.clusters import Clusters
from data_prep.similar.search import Fingerprints, find_near
from tests.data_prep.similar.pictures import (
    CROPPED,
    PLAIN,
    Picture,
    bank_forms,
    cropped,
    joined,
    of_another_line,
    pages,
    photographs,
    prints,
    resized,
    typed_pages,
)

# Hundreds of pictures are made, changed and compared.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def forms() -> list[Picture]:
    return bank_forms(200)


def recall(pictures: list[Picture], changed: list[Picture]) -> tuple[float, int]:
    """Share of the changed pictures that were joined to theirs, and the number of wrong pairs."""
    count = len(pictures)
    found = find_near(joined(prints(pictures), prints(changed)), start=count)
    pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
    right = {(number, count + number) for number in range(len(changed))}
    return len(pairs & right) / len(right), len(pairs - right)


@pytest.mark.parametrize("change", [*PLAIN, *CROPPED])
def test_photographs_and_forms_are_found_whatever_was_done_to_them(forms: list[Picture], change: str) -> None:
    apply = (PLAIN | CROPPED)[change]
    photos = photographs()
    some = forms[:40]
    share, wrong = recall(photos, [apply(photo) for photo in photos])
    assert share >= 0.95
    assert not wrong
    share, wrong = recall(some, [apply(form) for form in some])
    assert share >= 0.9
    assert not wrong


def test_forms_of_one_template_are_not_duplicates(forms: list[Picture]) -> None:
    found = find_near(prints(forms))
    assert len(found.first) == 0


def test_pages_of_one_template_are_not_duplicates_but_their_copies_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    filled = pages(30)
    crowds: list[int] = []
    candidates = search.crowd_candidates

    def counted(thumbnails: np.ndarray, members: np.ndarray, start: int) -> np.ndarray:
        crowds.append(len(members))
        return candidates(thumbnails, members, start)

    monkeypatch.setattr(search, "crowd_candidates", counted)
    assert len(find_near(prints(filled)).first) == 0
    assert crowds == [30]
    for change in ("quality 30", "0.5 times", "90 degrees"):
        share, wrong = recall(filled, [PLAIN[change](page) for page in filled[:6]])
        assert share == 1, change
        assert not wrong, change
    assert not recall(filled, [CROPPED["5% off two sides"](page) for page in filled[:6]])[1]


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Fingerprints:
    """28 dense pages of one template; four crops of each of the first four; the eight pages that differ from
    the first in one line, cropped."""
    filled = pages(28)
    changes = ("3% off", "5% off two sides", "4% off a corner", "all together")
    crops = [CROPPED[change](page) for change in changes for page in filled[:4]]
    others = [cropped(page, 0.02, 0.01, 0.015, 0.02) for page in of_another_line(filled[0], filled[1])]
    return prints([*filled, *crops, *others], tmp_path_factory.mktemp("crowd") / "details")


def clusters_of(crowd: Fingerprints) -> list[set[int]]:
    """Clusters of more than one picture."""
    found, clusters = find_near(crowd), Clusters(len(crowd))
    clusters.join(found.first, found.second)
    labels = clusters.labels()
    return [set(np.flatnonzero(labels == label).tolist()) for label in np.unique(found.first) if label < 28]


def test_cropped_pages_of_one_template_are_found_and_other_lines_are_not(crowd: Fingerprints) -> None:
    assert clusters_of(crowd) == [{page, *range(28 + page, 44, 4)} for page in range(4)]


def test_without_details_cropped_pages_are_missed(crowd: Fingerprints) -> None:
    assert sum(map(len, clusters_of(Fingerprints(crowd.thumbnails, crowd.sizes)))) < 10


def test_a_higher_limit_would_take_another_line_for_the_same_page(
    crowd: Fingerprints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd_judge, "LIMIT", 1.9)
    monkeypatch.setattr(crowd_judge, "_STRICTNESS", 2)
    assert max(map(len, clusters_of(crowd))) > 5


def test_without_the_pyramid_a_crop_is_not_laid_well_enough(
    crowd: Fingerprints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fine, "_PYRAMID", ())
    assert sum(map(len, clusters_of(crowd))) < 16


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Fingerprints:
    """30 typed pages of one template, and copies of the first three."""
    filled = typed_pages(30, 20)
    copies = [PLAIN[change](page) for change in ("quality 30", "0.5 times") for page in filled[:3]]
    return prints([*filled, *copies], tmp_path_factory.mktemp("typed") / "details")


def test_copies_of_typed_pages_are_found_and_other_pages_are_not(typed: Fingerprints) -> None:
    assert clusters_of(typed) == [{page, 30 + page, 33 + page} for page in range(3)]


def test_one_limit_for_every_crowd_would_take_typed_pages_for_copies(
    typed: Fingerprints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd_judge, "_STRICTNESS", 9)
    assert max(map(len, clusters_of(typed))) > 3


def test_a_looser_window_would_take_other_forms_for_copies(
    forms: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    loose = same.Strictness(plain=9, cropped=9, small=9, correlation=0.5)
    monkeypatch.setattr(search, "DISTANCE", 16)
    few = prints(forms[:40])
    assert len(find_near(few).first) == 0
    assert len(find_near(few, strictness=loose).first) > 0


def mutant_without_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "ORIENTATIONS", (hashes.ORIENTATIONS[0],) * 8)


def mutant_without_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "_ALL_COSINES", np.concatenate([hashes._cosines(0, 0)] * len(hashes.EDGES)))


def mutant_without_alignment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(align, "_step", lambda first, second, place: np.tile([1.0, 0, 1, 0], (len(place), 1)))


@pytest.mark.parametrize(
    ("mutate", "change"),
    [
        (mutant_without_turns, "90 degrees"),
        (mutant_without_turns, "mirrored"),
        (mutant_without_crops, "5% off"),
        (mutant_without_alignment, "4% off a corner"),
    ],
)
def test_without_a_part_of_the_search_its_transformation_is_missed(
    monkeypatch: pytest.MonkeyPatch, mutate: Callable[[pytest.MonkeyPatch], None], change: str
) -> None:
    photos = photographs()
    mutate(monkeypatch)
    assert recall(photos, [(PLAIN | CROPPED)[change](photo) for photo in photos])[0] < 0.5


def test_blank_pictures_prove_nothing() -> None:
    blank = np.full((3, 64, 64), 250, np.uint8)
    found = find_near(Fingerprints(blank, np.full((3, 2), 500, np.int32)))
    assert len(found.first) == 0


def test_a_hundred_thousand_equal_pictures_are_a_chain_not_a_square() -> None:
    thumbnail = prints(photographs()[:1]).thumbnails
    many = Fingerprints(
        np.broadcast_to(thumbnail[0], (100_000, 64, 64)), np.full((100_000, 2), 500, np.int32)
    )
    found = find_near(many)
    assert len(found.first) == 99_999
    assert set(found.first.tolist()) == {0}


def test_old_pictures_are_not_paired_with_each_other_again() -> None:
    photos = photographs()
    copies = prints([resized(photo, 0.5) for photo in photos])
    both = joined(prints(photos), copies)
    count = len(photos)
    assert len(find_near(both, start=2 * count).first) == 0
    later = find_near(joined(both, prints([resized(photos[0], 0.7)])), start=2 * count)
    assert set(later.second.tolist()) == {2 * count}
    assert set(later.first.tolist()) <= {0, count}
    assert len(later.first) > 0


def test_another_aspect_is_another_picture() -> None:
    photo = photographs()[0]
    stretched = photo.resize((photo.width * 2, photo.height))
    assert len(find_near(prints([photo, stretched])).first) == 0


def test_the_result_is_the_same_each_time(forms: list[Picture]) -> None:
    pictures = prints([*forms[:30], *[resized(form, 0.6) for form in forms[:30]]])
    one, two = find_near(pictures), find_near(pictures)
    assert one.first.tolist() == two.first.tolist()
    assert one.second.tolist() == two.second.tolist()


def test_nothing_to_compare() -> None:
    found = find_near(Fingerprints(np.zeros((0, 64, 64), np.uint8), np.zeros((0, 2), np.int32)))
    assert len(found.first) == len(found.second) == 0
