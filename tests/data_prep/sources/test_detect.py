"""Which format something has, and why; opening it by name or as what it is."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest

from data_prep.sources import detect as detect_module
from data_prep.sources.detect import TITLES, candidates, detect
from data_prep.sources.registry import FORMATS, Format, open_source
from data_prep.sources.source import Source
from lensmith.errors import InputError
from lensmith.recipe import Section
from tests.data_prep.sources.pdfs import write_pdf
from tests.data_prep.sources.test_dicom import write_dicom
from tests.data_prep.sources.test_webdataset import write_tar

GOLDEN = Path(__file__).parent / "golden"
COLUMNS: dict[str, Any] = {"answer": "answer", "prompt": "x"}


@pytest.mark.parametrize(
    ("file", "format_name", "why"),
    [
        ("coco.json", "coco", "coco.json: COCO, because it has 'images' with 'file_name'"),
        (
            "label_studio.json",
            "label_studio",
            "label_studio.json: Label Studio, because its first task has 'annotations' and 'data'",
        ),
        ("llava.json", "llava", "llava.json: LLaVA, because its first item has 'conversations' and 'image'"),
        ("sharegpt.json", "sharegpt", "sharegpt.json: ShareGPT, because its first item has 'conversations'"),
        ("openai.jsonl", "openai", "openai.jsonl: OpenAI messages, because its first row has 'messages'"),
        (
            "table.csv",
            "csv",
            "table.csv: a CSV table, because it ends in .csv and its first line has semicolons",
        ),
    ],
)
def test_golden_files(file: str, format_name: str, why: str) -> None:
    found = detect(GOLDEN / file)
    assert (found.path, found.format, str(found)) == (GOLDEN / file, format_name, why)


@pytest.mark.parametrize(
    ("name", "rows", "format_name"),
    [
        ("a.jsonl", '\n{"id": "a", "group": "b", "messages": []}\n', "lensmith"),
        ("a.jsonl", '\ufeff{"messages": []}', "openai"),
        (
            "a.jsonl",
            2 * '{"id": "a", "group": "b", "messages": [{"content": [{"type": "image_url"}]}]}\n',
            "openai",
        ),
        (
            "a.jsonl",
            '{"id": "a", "group": "b", "messages": [5, {"content": [5, {"type": "image"}]}]}',
            "lensmith",
        ),
        ("a.jsonl", '{"id": \n5\n{"messages": []}', "openai"),
        ("a.jsonl", '{"messages": []}\n' + 2 * '{"id": "a", "group": "b", "messages": []}\n', "lensmith"),
        ("a.jsonl", '{"id": "a", "group": "b", "messages": []}\n' + 2 * '{"messages": []}\n', "openai"),
        ("a.json", '[null, {"conversations": [], "image": "x"}]', "llava"),
        ("a.jsonl", '{"messages": [{"from": "human", "value": "x"}]}', "sharegpt"),
        ("a.jsonl", '{"conversations": [], "image": "x"}', "llava"),
        ("a.json", ' [{"messages": []}, {', "openai"),
        ("a.json", '[{"data": {}, "completions": []}]', "label_studio"),
        ("a.json", '{"info": 1, "annotations": [{"image_id": 1}], ', "coco"),
    ],
)
def test_first_rows(tmp_path: Path, name: str, rows: str, format_name: str) -> None:
    (tmp_path / name).write_text(rows)
    assert detect(tmp_path / name).format == format_name
    # The one file of labels in a folder is what the folder is.
    assert detect(tmp_path) == detect(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", "{}"),
        ("a.jsonl", "{"),
        ("a.jsonl", "[5]"),
        ("a.json", "[]"),
        ("a.txt", "x"),
        ("a.xlsx", "x"),
    ],
)
def test_what_is_not_known(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as error:
        detect(tmp_path / name)
    assert "has no format that is known" in str(error.value)
    assert len(error.value.problems) == 7
    with pytest.raises(InputError, match="no such file"):
        detect(tmp_path / "none")


def test_a_folder_of_archives_says_which_to_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "may.zip", "w") as archive:
        archive.writestr("labels.jsonl", "{}")
    with pytest.raises(InputError) as error:
        detect(tmp_path)
    assert f"may.zip: an archive is named itself, not its folder (path: {tmp_path.name}/may.zip)" in str(
        error.value
    )


def test_labels_below_a_folder_are_named(tmp_path: Path) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/may.csv").write_text("image,answer\n")
    for number in range(9):
        (tmp_path / f"labels/{number}.csv").write_text("image,answer\n")
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(InputError) as error:
        detect(tmp_path)
    said = [str(each) for each in error.value.problems if "below it" in str(each)]
    assert len(said) == 5
    what = "labels/0.csv: labels are looked for in the folder itself, not below it"
    assert said[0] == f"{what} (path: {tmp_path.name}/labels/0.csv)"


def test_json_min_is_told_as_such(tmp_path: Path) -> None:
    row = {"id": 1, "image": "/data/upload/1/a.png", "amount": "7", "annotator": 1, "annotation_id": 3}
    (tmp_path / "min.json").write_text(json.dumps([row]))
    assert detect(tmp_path / "min.json").format == "label_studio"
    (found,) = open_source(tmp_path / "min.json", None, {"answer": "json", "prompt": "Read."}).rows()
    assert "JSON-MIN" in found.flaws[0].what


def test_content_counts_not_the_ending(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), tmp_path / "a.csv")
    assert detect(tmp_path / "a.csv").format == "parquet"
    write_tar(tmp_path / "b.json", ("1.jpg", b"x"))
    assert detect(tmp_path / "b.json").format == "webdataset"
    book = openpyxl.Workbook()
    book.save(tmp_path / "c.bin")
    assert detect(tmp_path / "c.bin").format == "excel"


def test_folders(tmp_path: Path) -> None:
    made = {name: tmp_path / name for name in ("datasets", "parquet", "webdataset", "pdf", "dicom")}
    for folder in made.values():
        (folder / "more").mkdir(parents=True)
    for name in ("state.json", "dataset_info.json"):
        (made["datasets"] / name).write_text("{}")
    pyarrow.parquet.write_table(pyarrow.table({"a": [1]}), made["parquet"] / "more" / "a.parquet")
    write_tar(made["webdataset"] / "a.tar", ("1.jpg", b"x"))
    write_pdf(made["pdf"] / "more" / "a.pdf", ["1 0 0"])
    write_dicom(made["dicom"] / "MUSTERMANN")
    for name in ("pdf", "dicom"):
        (made[name] / "labels.csv").write_text("file,answer\n")
    for name, folder in made.items():
        assert detect(folder).format == name
    assert "MUSTERMANN" not in str(detect(made["dicom"]))


def test_labels_are_found_behind_any_number_of_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detect_module, "_MAX_LOOKS", 3)
    (tmp_path / "a").mkdir()
    for number in range(9):
        (tmp_path / f"{number}.png").write_bytes(b"x")
        (tmp_path / "a" / f"{number}.png").write_bytes(b"x")
    (tmp_path / "labels.csv").write_text("a,b\n")
    (tmp_path / "state.json").write_text("{}")
    assert detect(tmp_path).path == tmp_path / "labels.csv"


def test_several_ways_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n")
    (tmp_path / "b.jsonl").write_text('{"messages": []}')
    assert [each.format for each in candidates(tmp_path)] == ["csv", "openai"]
    with pytest.raises(InputError) as error:
        detect(tmp_path)
    assert "can be read in 2 ways" in str(error.value)
    assert "path: b.jsonl, format: openai" in str(error.value)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_a_reader_with_options(name: str) -> None:
    reader = FORMATS[name].load()
    options = reader.options_kind
    assert issubclass(reader, Source)
    assert not reader.__abstractmethods__
    assert (options is None) == (name == "lensmith")
    assert options is None or issubclass(options, Section)
    assert name in TITLES


def test_opens_what_it_finds(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image,answer\na.png,x\n")
    source = open_source(tmp_path, None, COLUMNS | {"image": ["image"]})
    assert (source.format, source.name, len(list(source.rows()))) == ("csv", "labels.csv", 1)
    same = open_source(tmp_path / "labels.csv", "csv", COLUMNS | {"image": ["image"]})
    assert list(same.rows()) == list(source.rows())
    assert open_source(GOLDEN / "coco.json", None, {}).format == "coco"
    row = {"id": "a", "group": "b", "messages": [{"role": "user", "content": "x"}]}
    (tmp_path / "own.jsonl").write_text(json.dumps(row))
    assert [found.row for found in open_source(tmp_path / "own.jsonl", None, {}).rows()] == ["a"]


def test_options_that_are_wrong_are_named_together(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        open_source(GOLDEN / "coco.json", "coco", {"crowds": "drop", "outside": "cut", "prompt": 5})
    problems = [str(problem) for problem in error.value.problems]
    assert len(problems) == 3
    assert "crowds: unknown option (did you mean 'crowd'?)" in problems
    with pytest.raises(InputError) as error:
        open_source(GOLDEN / "table.csv", None, COLUMNS | {"image": "scan"})
    assert "image: is no list (write image: [...])" in str(error.value)
    with pytest.raises(InputError, match="image: is missing"):
        open_source(GOLDEN / "table.csv", None, COLUMNS)
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(InputError, match="has no options"):
        open_source(tmp_path / "a.jsonl", "lensmith", {"id": "x"})


def test_formats_and_paths_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'sharegpt'"):
        open_source(GOLDEN / "coco.json", "shargpt", {})
    with pytest.raises(InputError, match="no such file"):
        open_source(tmp_path / "x.json", "coco", {})
    with pytest.raises(InputError, match="is read from a file"):
        open_source(tmp_path, "coco", {})


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    monkeypatch.delitem(sys.modules, "data_prep.sources.dicom", raising=False)
    monkeypatch.delitem(sys.modules, "data_prep.sources.dicom_picture", raising=False)
    with pytest.raises(InputError, match="pydicom is not installed") as error:
        Format("dicom", "Dicom", "DicomOptions").load()
    assert "lensmith[formats]" in str(error.value)


def test_libraries_are_loaded_when_they_are_used() -> None:
    heavy = {"pydicom", "pypdfium2", "openpyxl", "pyarrow", "numpy", "torch"}
    code = f"import sys, data_prep.sources.registry; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout == "[]\n"
