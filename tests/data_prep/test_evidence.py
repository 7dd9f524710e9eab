"""What the report of a preparation shows of single rows."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_prep import prepare as program
from data_prep.prepare import prepare
from data_prep.refusal import Refusal
from lensmith.dataset import read_held_out
from lensmith.home import Home
from tests.data_prep.folder import Folder, picture


def resaved(data: bytes) -> bytes:
    """The same picture at another size, as JPEG."""
    stream = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("RGB").resize((300, 220)).save(stream, "JPEG", quality=80)
    return stream.getvalue()


def test_copies_and_formats_are_shown(folder: Folder, home: Home) -> None:
    folder.fill(20)
    large = picture(900, 420, 308)
    folder.add(folder.row("first", "g-first", path=folder.image("first.png", large)))
    folder.add(folder.row("smaller", "g-smaller", path=folder.image("smaller.jpg", resaved(large))))
    folder.add(folder.row("again", "g-first", path="images/good-3-0.png"))
    folder.add({**folder.row("repeat", "group-4", path="images/good-4-0.png")})
    intake = prepare(folder.recipe(), home).intake
    page = (intake.path / "report.html").read_text()
    assert intake.body["similar"] == {"exact": 2, "pairs": 1, "answers": 0, "kept": "together"}
    assert page.count("<h3>The same picture</h3>") == 2
    assert page.count("<h3>Nearly the same picture</h3>") == 1
    assert "2 refused rows repeat a picture" in page
    assert "1 pair of pictures shows nearly the same" in page
    assert "because most of its first rows have" in page


def test_no_flagged_row_of_the_exam_is_shown(folder: Folder, home: Home, tmp_path: Path) -> None:
    for number in range(60):
        answer = json.dumps({"mail": f"person{number}@example.org"})
        folder.add(folder.row(f"row<{number}>", f"g{number}", answer))
    prepared = prepare(folder.recipe(), home)
    page = (prepared.intake.path / "report.html").read_text()
    assert prepared.intake.body["flagged"]["rows"] == 60
    sealed = [row.sample.id for row in read_held_out(home, prepared.held_out, "test that no report shows it")]
    shown = [number for number in range(60) if f"row&lt;{number}&gt;" in page]
    assert sealed
    assert len(shown) == 60 - len(sealed)
    assert not {f"row<{number}>" for number in shown} & set(sealed)


def test_a_refused_copy_of_an_exams_picture_comes_without_it(
    folder: Folder, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.fill(20)
    sealed = {row.sample.id for row in read_held_out(home, prepare(folder.recipe(), home).held_out, "a test")}
    assert 0 < len(sealed) < 20
    for number in range(20):
        folder.add(folder.row(f"again-{number}", f"group-{number}", path=f"images/good-{number}-0.png"))
    told: list[Refusal] = []

    def watched(*parts: Any) -> None:
        told.extend(parts[3].refusals)

    monkeypatch.setattr(program, "write_report", watched)
    prepare(folder.recipe(max_bad=0.9), home)
    without = {refusal.row.removeprefix("again-") for refusal in told if not refusal.images}
    assert len(told) == 20
    assert {f"good-{number}-0" for number in without} == sealed
