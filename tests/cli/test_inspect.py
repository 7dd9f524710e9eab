"""`lensmith inspect`: what it says of a folder, an export or a recipe, and what it must not do."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from PIL import Image

from data_prep.decoding.pool import DecoderPool
from data_prep.inspection import looking, rows
from lensmith.cli.main import main
from lensmith.home import Home
from tests.conftest import recipe_content
from tests.data_prep.folder import Folder, picture
from tests.data_prep.similar.pictures import encoded, photographs, resized

COLUMNS = ["file", "width", "height", "format", "digest", "copy_of", "code", "reason", "mend"]
HOSTILE = "\x1b[31m\u202e.png"


def told(*arguments: object) -> tuple[int, str]:
    """Exit code and stdout."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = main(["inspect", *map(str, arguments)])
    return code, said.getvalue()


def found(*arguments: object) -> dict[str, Any]:
    code, said = told(*arguments, "--json")
    assert code == 0
    return json.loads(said)


@dataclass(frozen=True)
class Case:
    """A folder with labels, everything in it wrong that may be; what was said of it, and the manifest."""

    root: Path
    said: dict[str, Any]
    manifest: Path


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = Folder(tmp_path_factory.mktemp("handed-over") / "forms")
    folder.fill(groups=3)
    photo = photographs()[0]
    whole = encoded(photo, "PNG")
    for name, data in {
        "photo.png": whole,
        "again.png": whole,
        "small.jpg": encoded(resized(photo, 0.5), "JPEG"),
        "cut.png": whole[:-100],
        "cut-again.png": whole[:-100],
        # As many bytes as the last, and other ones.
        "no.png": b"<html>".ljust(len(whole) - 100),
        HOSTILE: picture(99, 64, 200, "WEBP"),
        "=1+1.png": picture(98),
    }.items():
        folder.add(folder.row(f"row {len(folder.lines)}", path=folder.image(name, data)))
    folder.add(folder.row("lost", path="images/lost.png"), folder.row("out", path="../secret.png"))
    folder.add(b"{", b"[1]", folder.row("same picture", path="./images/photo.png"))
    folder.write()
    manifest = folder.root.with_name("manifest.csv")
    return Case(folder.root, found(folder.root, "--manifest", manifest), manifest)


def refused(case: Case) -> dict[str, str]:
    return {each["file"]: each["code"] for each in case.said["refused"]}


def test_the_format_and_why(case: Case) -> None:
    (source,) = case.said["sources"]
    assert source["path"] == str(case.root / "labels.jsonl")
    assert source["format"] == "Lensmith's own JSONL"
    assert source["why"].startswith("most of its first rows have")
    assert source["labels"]
    assert (source["rows"], source["unreadable_rows"], source["pictures"]) == (16, 2, 13)


def test_rows_that_cannot_be_read_are_told_with_place_and_mend(case: Case) -> None:
    assert case.said["rows_by_reason"] == {"not_json": 1, "schema": 1}
    first = case.said["rows"][0]
    assert first["place"] == "labels.jsonl:14"
    assert first["reason"].startswith("The line is not JSON: ")
    assert first["mend"] == "export the row again"


def test_every_picture_that_cannot_be_used_is_told_by_its_own_name(case: Case) -> None:
    assert refused(case) == {
        "images/cut.png": "image_unreadable",
        "images/cut-again.png": "image_unreadable",
        "images/no.png": "image_unreadable",
        "images/lost.png": "image_missing",
        "../secret.png": "image_path",
    }
    for each in case.said["refused"]:
        assert each["file"] in each["reason"]
        assert each["mend"]


def test_copies_are_told_with_the_first(case: Case) -> None:
    assert case.said["copies"] == [
        {"file": "images/again.png", "copy_of": "images/photo.png", "byte_for_byte": True},
        {"file": "images/small.jpg", "copy_of": "images/photo.png", "byte_for_byte": False},
    ]


def test_formats_and_sizes(case: Case) -> None:
    assert case.said["pictures"] == 13
    assert case.said["formats"] == {"PNG": 6, "JPEG": 1, "WEBP": 1}
    assert case.said["longer_edge"]["bins"] == [[48, 64, 4], [192, 256, 1], [256, 384, 1], [512, 768, 2]]


def test_the_manifest_has_a_line_a_picture(case: Case) -> None:
    with case.manifest.open(encoding="utf-8-sig", newline="") as stream:
        head, *lines = csv.reader(stream)
    assert head == COLUMNS
    records = {line[0]: dict(zip(COLUMNS, line, strict=True)) for line in lines}
    assert len(records) == len(lines) == 13
    again, photo = records["images/again.png"], records["images/photo.png"]
    assert (photo["width"], photo["height"], photo["format"], photo["copy_of"]) == ("640", "427", "PNG", "")
    assert again["copy_of"] == records["images/small.jpg"]["copy_of"] == "images/photo.png"
    assert again["digest"] == photo["digest"] != records["images/small.jpg"]["digest"]
    assert records["images/lost.png"]["code"] == "image_missing"
    assert records["images/lost.png"]["mend"].startswith("add the file")
    assert records["images/lost.png"]["width"] == ""


@pytest.mark.slow
def test_prepare_says_the_same(case: Case, tmp_path: Path) -> None:
    content = recipe_content(tmp_path / "no-base", case.root)
    content["data"]["max_bad"] = 0.9
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content))
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["prepare", str(recipe), "--home", str(tmp_path / "home"), "--json"]) == 0
    intake = Path(json.loads(said.getvalue())["intake_path"])
    lines = [json.loads(line) for line in (intake / "refused.jsonl").read_text().splitlines()]
    parts = ("code", "reason", "mend")
    theirs = {tuple(line[part] for part in parts) for line in lines}
    of_recipe = found(recipe)
    for ours in (case.said, of_recipe):
        told_here = {tuple(each[part] for part in parts) for each in [*ours["rows"], *ours["refused"]]}
        assert told_here == {
            each for each in theirs if each[0] not in ("duplicate_row", "image_across_groups")
        }
    assert of_recipe["sources"][0]["why"] == case.said["sources"][0]["why"]


def test_a_plain_folder_without_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    (photos / "deeper").mkdir(parents=True)
    for name, data in {
        HOSTILE: picture(1),
        "=1+1.JPG": picture(2, kind="JPEG"),
        "deeper/iphone.heic": b"\0\0\0\x18ftypheic",
        ".hidden.png": b"",
        "notes.txt": b"none",
    }.items():
        (photos / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    assert main(["inspect", "photos", "--manifest", "seen/manifest.csv"]) == 0
    said = capsys.readouterr().out
    assert "pictures without labels, because nothing in it is a file of labels" in said
    assert "no labels found" in said
    assert "3 pictures\n" in said
    assert "pictures that cannot be used: 1 of 3" in said
    assert "'deeper/iphone.heic': is not an image in one of the formats" in said
    assert "copies: none" in said
    assert "formats: " in said
    assert "48 to 63  2  ####" in said
    assert sorted(each.name for each in tmp_path.iterdir()) == ["photos", "seen"]


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    for name in (HOSTILE, f"copy{HOSTILE}"):
        (tmp_path / name).write_bytes(b"no picture")
    code, said = told(tmp_path)
    assert code == 0
    assert "\x1b" not in said
    assert "\u202e" not in said
    assert r"\x1b[31m\u202e.png" in said
    labels = tmp_path / f"{HOSTILE}.jsonl"
    labels.write_text('{"id": "a", "group": "a", "messages": []}\n' + "{\n" * 7)
    code, said = told(labels)
    assert code == 0
    assert "\x1b" not in said
    assert r"  \x1b[31m\u202e.png.jsonl:3: " in said
    assert "    ... and 2 more\n" in said


def test_the_manifest_runs_no_formula(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/=1+1.png").write_bytes(b"no picture")
    found(tmp_path / "photos", "--manifest", tmp_path / "m.csv")
    found(tmp_path / "photos", "--manifest", tmp_path / "m.jsonl")
    assert "\n'=1+1.png," in (tmp_path / "m.csv").read_text("utf-8-sig")
    (line,) = (tmp_path / "m.jsonl").read_text().splitlines()
    assert list(json.loads(line)) == COLUMNS
    assert json.loads(line)["file"] == "=1+1.png"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("m.txt", "ends in neither .csv nor .jsonl"),
        ("labels.csv", "is already there"),
        ("photos/m.csv", "lies in what is looked at"),
    ],
)
def test_a_manifest_takes_nobodys_place(
    tmp_path: Path, name: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.png").write_bytes(picture(1))
    (tmp_path / "labels.csv").write_text("mine")
    assert told(tmp_path / "photos", "--manifest", tmp_path / name)[0] == 2
    assert why in capsys.readouterr().err
    assert (tmp_path / "labels.csv").read_text() == "mine"


def test_nothing_to_look_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    for path, why in ((tmp_path / "none", "is not there"), (tmp_path / "empty", "no format that is known")):
        assert told(path)[0] == 2
        assert why in capsys.readouterr().err


def test_all_rows_are_counted_and_the_first_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_TOLD", 2)
    labels = tmp_path / "labels.jsonl"
    labels.write_text('{"id": "a", "group": "a", "messages": []}\n' + "{\n" * 5)
    said = found(labels, labels)
    assert len(said["sources"]) == 1
    assert said["sources"][0]["unreadable_rows"] == 5
    assert said["rows_by_reason"]["not_json"] == 5
    assert [each["place"] for each in said["rows"]] == ["labels.jsonl:2", "labels.jsonl:3"]


def test_an_exam_is_not_read(tmp_path: Path, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with home.create("held_out", "0" * 64, {}) as draft:
        (draft.path / "data").mkdir()
        (draft.path / "data/labels.jsonl").write_bytes(b"{")
        (draft.path / "a.png").write_bytes(picture(1))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(recipe_content(tmp_path, draft.artifact.path / "data")))
    (tmp_path / "link").symlink_to(draft.artifact.path)
    for path in (draft.artifact.path, draft.artifact.path / "data/labels.jsonl", tmp_path / "link", recipe):
        assert told(path)[0] == 2
        assert "lies in a sealed exam" in capsys.readouterr().err
    assert told(home.root)[0] == 2
    assert "is a home" in capsys.readouterr().err


def test_labels_that_a_recipe_has_to_explain(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("scan,amount\na.png,12\n")
    (tmp_path / "a.png").write_bytes(b"no picture")
    said = found(tmp_path)
    table, pictures = said["sources"]
    assert table["format"] == "a CSV table"
    assert [each["option"] for each in table["lacking"]] == ["image"]
    assert table["labels"]
    assert (pictures["labels"], pictures["pictures"]) == (False, 1)
    text = told(tmp_path)[1]
    assert "image: is missing (columns with the paths of the row's images" in text
    assert table["columns"] == ["scan", "amount"]
    assert "its columns: 'scan', 'amount'\n" in text


def test_pictures_that_another_source_names_are_looked_at_once(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "forms")
    folder.add(folder.row("a", path=folder.image("a.png", b"no picture")))
    folder.write()
    folder.labels.rename(folder.root / "validation.jsonl")
    folder.write()
    (folder.root / "notes.csv").write_text("name,says\na,b\n")
    said = found(folder.root)
    assert [(each["rows"], each["pictures"]) for each in said["sources"]] == [(1, 1), (0, 0), (1, 0)]
    assert said["pictures"] == 1
    assert [each["file"] for each in said["refused"]] == [f"{folder.labels}: images/a.png"]


def test_a_source_that_cannot_be_read_hides_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Folder(tmp_path / "forms")
    folder.add(folder.row("a", path="images/none.png"))
    folder.write()
    broken = tmp_path / "coco.json"
    broken.write_text('{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [')
    assert told(broken)[0] == 2
    assert "coco.json" in capsys.readouterr().err
    first, second = found(broken, folder.root)["sources"]
    assert "coco.json" in first["problem"]
    assert (second["rows"], second["problem"]) == (1, None)
    assert "it cannot be read, or not to its end:\n" in told(broken, folder.root)[1]


def test_a_zip_of_pictures(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("in/a.png", picture(1))
        archive.writestr("in/b.png", picture(1)[:-60])
        archive.writestr("__MACOSX/in/a.png", b"")
    said = found(tmp_path / "photos.zip")
    assert said["sources"][0]["why"] == "no file of labels is in it"
    assert said["formats"] == {"PNG": 1}
    assert [each["file"] for each in said["refused"]] == ["in/b.png"]


def test_a_recipe_gives_options_and_limits(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("scan,amount\na.png,12\nhttps://example.org/b.png,13\n")
    (tmp_path / "a.png").write_bytes(picture(1))
    content = recipe_content(tmp_path, tmp_path)
    content["data"] |= {
        "source": "labels.csv",
        "options": {"image": ["scan"], "answer_fields": ["amount"], "prompt": "Read."},
        "max_image_bytes": 10,
        "download": {"hosts": ["example.org"]},
    }
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content))
    said = found(recipe)
    (source,) = said["sources"]
    assert (source["rows"], source["pictures"], source["by_address"]) == (2, 1, 1)
    assert "10 are allowed" in said["refused"][0]["reason"]


def test_a_recipe_is_alone_and_its_data_on_this_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(recipe_content(tmp_path, tmp_path)))
    assert told(recipe, tmp_path)[0] == 2
    assert "is not alone" in capsys.readouterr().err
    content = recipe_content(tmp_path, tmp_path)
    content["data"]["source"] = "memory://forms"
    recipe.write_text(yaml.safe_dump(content))
    assert told(recipe)[0] == 2
    assert "lies in a store" in capsys.readouterr().err


def test_a_repeated_file_is_not_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Noting(DecoderPool):
        def facts(self, requests: Any) -> Any:
            for request in requests:
                asked.append(request.name)
                yield from super().facts([request])

    monkeypatch.setattr(looking, "DecoderPool", Noting)
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(picture(1))
    # The same size in bytes.
    (tmp_path / "d.png").write_bytes(bytes(len(picture(1))))
    said = found(tmp_path)
    assert asked == ["a.png", "d.png"]
    assert {each["file"]: each["copy_of"] for each in said["copies"]} == {"b.png": "a.png", "c.png": "a.png"}
    assert [each["file"] for each in said["refused"]] == ["d.png"]


@pytest.mark.slow
def test_ctrl_c_ends_it_and_leaves_nothing(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    big = encoded(Image.effect_noise((2000, 2000), 50), "PNG", compress_level=1)
    for number in range(100):
        # What stands behind the end makes it another file.
        (photos / f"{number}.png").write_bytes(big + bytes([number]))
    (tmp_path / "tmp").mkdir()
    argv = ["-c", "from lensmith.cli.main import entry; entry()", "inspect", "photos", "--manifest", "m.csv"]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen([sys.executable, *argv], cwd=tmp_path, env=environment)
    workers: list[psutil.Process] = []
    while not workers:
        assert process.poll() is None
        workers = psutil.Process(process.pid).children(recursive=True)
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert not psutil.wait_procs(workers, timeout=10)[1]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["photos", "tmp"]
    assert list((tmp_path / "tmp").iterdir()) == []
