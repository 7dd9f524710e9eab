"""An earlier exam's pictures are recognised among new ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from data_prep.similar.exams import find_exam_pictures
from data_prep.similar.search import Fingerprints
from tests.data_prep.similar.pictures import CROPPED, PLAIN, bank_forms, photographs, prints

# Hundreds of pictures are made, changed and compared.
pytestmark = pytest.mark.slow


def found(new: Sequence[Image.Image], exam: Sequence[Image.Image]) -> list[tuple[int, int]]:
    return find_exam_pictures(prints([*exam, *new]), len(exam))


def test_new_pictures_that_an_exam_shows_are_named() -> None:
    sealed, other = photographs(), bank_forms(12)
    new = [other[0], PLAIN["90 degrees"](sealed[3]), other[1], CROPPED["3% off"](sealed[1]), sealed[2]]
    assert found(new, sealed) == [(1, 3), (3, 1), (4, 2)]
    assert found(new, other[1:2]) == [(2, 0)]


def test_a_copy_of_a_copy_is_named_too() -> None:
    sealed = photographs()[:1]
    copy = PLAIN["quality 60"](sealed[0])
    assert found([copy, copy], sealed) == [(0, 0), (1, 0)]


def test_nothing_new_and_an_empty_exam() -> None:
    empty = Fingerprints(np.zeros((0, 64, 64), np.uint8), np.zeros((0, 2), np.int32))
    photos = photographs()[:2]
    assert found([], photos) == []
    assert found(photos, []) == []
    assert find_exam_pictures(empty, 0) == []
