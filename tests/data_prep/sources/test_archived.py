"""A zip or tar instead of a folder, through the command line: read in place, and never beyond itself."""

from __future__ import annotations

import json
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest

from data_prep.refusal import Flaw
from data_prep.sources.members import Members
from tests.data_prep.folder import Folder, picture
from tests.data_prep.test_archives import KINDS, tar_of, zip_of
from tests.data_prep.told import Told, prepare_told


def packed(folder: Folder, kind: str, *more: tuple[tarfile.TarInfo | str, bytes], below: str = "") -> Path:
    """The folder's files in an archive beside it, below `below` in it, `more` as they are."""
    folder.write()
    files = [each for each in sorted(folder.root.rglob("*")) if each.is_file()]
    members = [(below + each.relative_to(folder.root).as_posix(), each.read_bytes()) for each in files]
    path = folder.root.parent / f"march.{kind}"
    path.write_bytes(KINDS[kind](*members, *more))
    return path


def rows_of(told: Told) -> list[tuple[str, str, int, int]]:
    """Ids and images of what is learned from."""
    from lensmith.row_file import RowFile

    found = []
    for split in ("train", "validation"):
        for row in RowFile(Path(told.body["path"]) / f"data/{split}.arrow"):
            image = row.sample.images[0]
            found.append((row.sample.id, image.digest, *image.size))
    return sorted(found)


@pytest.mark.parametrize(("kind", "name"), [("zip", ""), ("tar", "lensmith")])
def test_labels_and_images_in_one_archive(
    folder: Folder, capsys: pytest.CaptureFixture[str], kind: str, name: str
) -> None:
    folder.fill(20)
    folder.add(folder.row("gone", path="images/gone.png"), folder.row("out", path="../recipe.yaml"))
    plain = prepare_told(folder.root.parent, capsys, source=str(folder.write()))
    archive = packed(folder, kind, below="march/")
    told = prepare_told(folder.root.parent, capsys, source=str(archive), format=name)
    assert (told.code, told.rows) == (0, 20)
    assert rows_of(told) == rows_of(plain)
    assert told.body["dataset"] == plain.body["dataset"]
    (source,) = told.body["sources"]
    assert (source["file"], source["format"], source["sha256"], source["images_sha256"]) == (
        f"march.{kind}", "lensmith", *(plain.body["sources"][0][key] for key in ("sha256", "images_sha256")),
    )  # fmt: skip
    refused = told.refused()
    assert refused["gone"][0]["code"] == "image_missing"
    said = f": march.{kind}: there is no file 'march/images/gone.png' in the archive"
    assert refused["gone"][0]["reason"].endswith(said)
    assert refused["out"][0]["code"] == "image_path"
    assert refused["gone"][0]["place"] == f"march.{kind}/labels.jsonl:21"


def test_an_archive_in_place_of_the_folder_of_images(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.fill(20)
    rows = [json.loads(line) for line in folder.lines]
    archive = packed(folder, "zip")
    table = folder.root.parent / "cards.csv"
    names = [each["messages"][0]["content"][0]["path"].removeprefix("images/") for each in rows]
    table.write_text("\n".join(["image,answer", *(f"{name},{at}" for at, name in enumerate(names))]))
    options = {
        "image": ["image"],
        "answer": "answer",
        "prompt": "Which?",
        "image_root": f"{archive.name}/images",
    }
    told = prepare_told(folder.root.parent, capsys, source=str(table), options=options)
    assert (told.code, told.rows) == (0, 20)
    # Another picture under the same name is another dataset.
    first = told.body["dataset"]
    (folder.root / "images/good-1-0.png").write_bytes(picture(999))
    packed(folder, "zip")
    assert (
        prepare_told(folder.root.parent, capsys, source=str(table), options=options).body["dataset"] != first
    )


def test_a_member_that_leads_out_is_refused_with_archive_and_name(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder.root.parent / "secret.png").write_bytes(picture(77))
    folder.fill(20)
    link = tarfile.TarInfo("images/link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "../../secret.png"
    for path in ("../secret.png", "images/link.png", "images/bomb.png"):
        folder.add(folder.row(f"row {path}", path=path))
    archive = packed(folder, "tar", (link, b""), ("../secret.png", picture(78)))
    told = prepare_told(folder.root.parent, capsys, source=str(archive), format="lensmith")
    refused = told.refused()
    assert told.rows == 20
    assert {row: found[0]["code"] for row, found in refused.items()} == {
        "row ../secret.png": "archive_member",
        "row images/link.png": "archive_member",
        "row images/bomb.png": "image_missing",
    }
    assert refused["row ../secret.png"][0]["reason"].endswith(": march.tar: '../secret.png' climbs with ..")
    assert refused["row images/link.png"][0]["reason"].endswith("'images/link.png' is a link, not a file")


def test_bombs_are_refused_before_they_go_off(folder: Folder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.fill(20)
    folder.add(folder.row("bomb", path="images/bomb.png"))
    archive = packed(folder, "zip", ("images/bomb.png", bytes(11_000_000)))
    told = prepare_told(folder.root.parent, capsys, source=str(archive))
    ((record,),) = told.refused().values()
    assert (record["code"], told.rows) == ("archive_member", 20)
    assert record["reason"].endswith(": march.zip: 'images/bomb.png' unpacks to more than 200 times its size")
    # Files that share bytes: the archive is refused as a whole, and nothing is written.
    data = bytearray(zip_of(("a.csv", b"x" * 100), ("b.png", b"x" * 100), packing=zipfile.ZIP_STORED))
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    struct.pack_into("<L", data, second + 42, 0)
    archive.write_bytes(data)
    told = prepare_told(folder.root.parent, capsys, source=str(archive))
    assert told.code == 2
    assert "files in it overlap" in told.said


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (zip_of(("images/a.png", b"x")), "looked for"),
        (zip_of(("a.csv", b"x,y"), ("b.csv", b"x,y")), "holds 2 files of labels"),
        (zip_of(("../labels.csv", b"x,y")), "climbs with .."),
        (zip_of(("a.csv", b"x,y"), ("a.csv/b.csv", b"x,y")), "lies in a file"),
        (zip_of(*((f"{at}.json", b"{}") for at in range(101))), "101 files in it may be the labels"),
        (zip_of(("labels.csv", b"image,answer\na.png,1")), "image"),
        (zip_of(("labels.csv", b"x,y"))[:-8], "is not a whole zip or tar"),
        (tar_of(("labels.csv", b"x,y"), mode="w:gz"), "gunzip"),
    ],
    ids=["no labels", "two", "escape", "in a file", "many", "options", "torn", "gzip"],
)
def test_archives_that_cannot_be_used_say_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes, said: str
) -> None:
    (tmp_path / "march.zip").write_bytes(data)
    told = prepare_told(tmp_path, capsys, source=str(tmp_path / "march.zip"))
    assert told.code == 2
    assert said in told.said
    assert "Traceback" not in told.said


def test_a_document_or_a_folder_outside_is_not_looked_for(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = folder.root.parent / "march.zip"
    archive.write_bytes(zip_of(("labels.csv", b"image,answer\na.png,1")))
    options = {"image": ["image"], "answer": "answer", "prompt": "?", "image_root": "../.."}
    told = prepare_told(folder.root.parent, capsys, source=str(archive), options=options)
    assert (told.code, "name images that are not in it" in told.said) == (2, True)


def test_the_test_of_escapes_sees_one(
    folder: Folder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mutant: a reader that follows names takes the picture beside the archive's folder."""
    folder.fill(20)
    folder.add(folder.row("out", path="images/../../secret.png"))
    (folder.root.parent / "secret.png").write_bytes(picture(77))
    archive = packed(folder, "zip")

    def trusting(members: Members, path: str) -> bytes | Flaw:
        file = folder.root / path
        return file.read_bytes() if file.is_file() else Flaw("image_missing", path, "")

    assert prepare_told(folder.root.parent, capsys, source=str(archive)).rows == 20
    (folder.root.parent / "home").rename(folder.root.parent / "old-home")
    monkeypatch.setattr(Members, "read", trusting)
    assert prepare_told(folder.root.parent, capsys, source=str(archive)).rows == 21
