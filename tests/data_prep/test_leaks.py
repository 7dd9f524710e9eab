"""The proof of zero overlap, and that it fails when what it guards against happens."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from data_prep import judging, leaks, prepare
from data_prep.leaks import prove_no_leaks
from data_prep.proven import Proven
from data_prep.refusal import Flaw
from data_prep.sight import show
from data_prep.split import SplitName, fraction
from data_prep.workbook import Workbook
from data_prep.written import Written
from lensmith.data_settings import SplitRule
from lensmith.dataset import HELD_OUT_FILE, split_file
from lensmith.errors import IntegrityError
from lensmith.home import Home
from lensmith.images import ImageLimits, decode_image, encode_png, pixel_digest
from lensmith.row_file import Row, RowFile, write_rows
from lensmith.sample import Image, Message, Sample, Text
from tests.data_prep.folder import Folder, picture

LIMITS = ImageLimits()
SPLITS: tuple[SplitName, ...] = ("train", "validation", "held_out")
SPLIT_BY_ROW = (
    "UPDATE rows SET split = CASE n % 3 WHEN 0 THEN 'train' WHEN 1 THEN 'validation' ELSE 'held_out' END"
    " WHERE taken"
)


def row(name: str, group: str, seed: int, stated: str = "") -> Row:
    image = decode_image(picture(seed), LIMITS)
    picture_ = Image(f"{name}.png", stated or pixel_digest(image), image.size)
    asked = Message("user", (picture_, Text("Read.")))
    sample = Sample(name, group, (asked, Message("assistant", (Text("7"),))))
    return Row(sample, (encode_png(image),))


@pytest.fixture
def proven(home: Home) -> Iterator[Proven]:
    with Proven(home, LIMITS) as cache:
        yield cache


def files(root: Path, **splits: list[Row]) -> dict[SplitName, Written]:
    written: dict[SplitName, Written] = {}
    for split in SPLITS:
        write_rows(root / f"{split}.arrow", splits[split])
        written[split] = Written.read_back(root / f"{split}.arrow")
    return written


@pytest.fixture(params=["here", "in workers"])
def opened(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pictures are opened: few of them here, many in workers."""
    if request.param == "in workers":
        monkeypatch.setattr(leaks, "_FEW_BYTES", 0)


@pytest.mark.usefixtures("opened")
def test_zero_where_nothing_is_shared(tmp_path: Path, proven: Proven) -> None:
    paths = files(
        tmp_path,
        train=[row("a", "g", 1), row("b", "g", 1)],
        validation=[row("c", "h", 2)],
        held_out=[row("d", "i", 3)],
    )
    zero = {"groups": 0, "images": 0, "ids": 0}
    assert prove_no_leaks(paths, proven) == {
        "train and validation": zero,
        "train and held_out": zero,
        "validation and held_out": zero,
    }


@pytest.mark.parametrize(
    ("leaked", "said"),
    [
        (row("d", "g", 3), "1 shared groups, the first 'g'"),
        (row("d", "i", 1), "1 shared images"),
        (row("a", "i", 3), "1 shared ids, the first 'a'"),
    ],
)
def test_every_kind_of_overlap_is_found(tmp_path: Path, proven: Proven, leaked: Row, said: str) -> None:
    paths = files(tmp_path, train=[row("a", "g", 1)], validation=[row("c", "h", 2)], held_out=[leaked])
    with pytest.raises(IntegrityError, match="not apart") as caught:
        prove_no_leaks(paths, proven)
    assert [(problem.where, said in problem.what) for problem in caught.value.problems] == [
        ("train and held_out", True)
    ]


@pytest.mark.usefixtures("opened")
def test_a_stated_digest_is_not_believed(tmp_path: Path, proven: Proven) -> None:
    lying = row("d", "i", 1, stated="0" * 64)
    paths = files(tmp_path, train=[row("a", "g", 1)], validation=[row("c", "h", 2)], held_out=[lying])
    with pytest.raises(IntegrityError) as caught:
        prove_no_leaks(paths, proven)
    assert len(caught.value.problems) == 2


def test_bytes_that_were_proven_before_are_not_decoded_again(
    tmp_path: Path, proven: Proven, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = {"train": [row("a", "g", 1)], "validation": [row("c", "h", 2)], "held_out": [row("d", "i", 3)]}
    first = prove_no_leaks(files(tmp_path / "first", **splits), proven)
    opened: list[bytes] = []
    monkeypatch.setattr(leaks, "show", lambda png, limits: opened.append(png) or show(png, limits))
    new = row("e", "j", 4)
    splits["held_out"].append(new)
    assert prove_no_leaks(files(tmp_path / "again", **splits), proven) == first
    assert opened == list(new.images)


def test_what_was_proven_before_is_compared_again(tmp_path: Path, proven: Proven) -> None:
    rows = [row("a", "g", 1)], [row("c", "h", 2)], [row("d", "i", 3)]
    prove_no_leaks(files(tmp_path / "first", **dict(zip(SPLITS, rows, strict=True))), proven)
    lying = [row("d", "i", 3, stated="0" * 64)]
    with pytest.raises(IntegrityError) as caught:
        prove_no_leaks(files(tmp_path / "again", train=rows[0], validation=rows[1], held_out=lying), proven)
    assert [problem.where for problem in caught.value.problems] == ["held_out row 'd'"]


def shared_image(folder: Folder, rule: SplitRule) -> None:
    """Good rows, and one image in two groups of different splits."""
    folder.fill()
    names = [f"customer-{number}" for number in range(50)]
    train = next(name for name in names if fraction(rule.seed, name) > rule.held_out + rule.validation)
    held_out = next(name for name in names if fraction(rule.seed, name) < rule.held_out)
    folder.add(folder.row("one", train))
    folder.add(
        folder.row(
            "two", held_out, path=folder.image("copy.png", (folder.root / "images/one.png").read_bytes())
        )
    )


def test_without_the_duplicate_check_the_proof_refuses(
    folder: Folder, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared_image(folder, folder.recipe().data.split)
    recipe = folder.recipe("data.similar=ignore")

    def blind(*row: object) -> Iterator[Flaw]:
        return iter(())

    monkeypatch.setattr(judging, "repetitions", blind)
    with pytest.raises(IntegrityError, match="not apart"):
        prepare.prepare(recipe, home)
    assert home.all() == []
    # And without the proof the leak would pass: the proof is what stopped it.
    monkeypatch.setattr(prepare, "prove_no_leaks", lambda files, proven: {})
    assert prepare.prepare(recipe, home).held_out.body["rows"] > 0


def test_a_split_by_row_is_refused(folder: Folder, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.fill(groups=6, each=6)
    monkeypatch.setattr(Workbook, "assign", lambda book, places: book.db.execute(SPLIT_BY_ROW))
    with pytest.raises(IntegrityError) as caught:
        prepare.prepare(folder.recipe(), home)
    assert all("shared groups" in problem.what for problem in caught.value.problems)
    assert home.all() == []


def test_writing_another_image_is_refused(
    folder: Folder, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.fill()
    monkeypatch.setattr("data_prep.writing.STORE", "tests.data_prep.lying_store:store")
    with pytest.raises(IntegrityError) as caught:
        prepare.prepare(folder.recipe(), home)
    assert any("another image than it states" in problem.what for problem in caught.value.problems)


def test_what_is_counted_is_all_of_it() -> None:
    assert leaks.WHAT == ("groups", "images", "ids")


def test_a_picture_that_weighs_more_as_it_is_stored_is_proven(folder: Folder, home: Home) -> None:
    folder.fill()
    stream = io.BytesIO()
    noise = np.random.default_rng(7).integers(0, 256, (256, 256, 3), np.uint8)
    PIL.Image.fromarray(noise).save(stream, "JPEG", quality=20)
    most = len(stream.getvalue())
    folder.add(folder.row("heavy", path=folder.image("heavy.jpg", stream.getvalue())))
    prepared = prepare.prepare(folder.recipe(max_image_bytes=most), home)
    stored = [prepared.held_out.path / HELD_OUT_FILE]
    stored += [prepared.dataset.path / split_file(split) for split in ("train", "validation")]
    assert max(len(image.png) for path in stored for image in RowFile(path).images()) > most
