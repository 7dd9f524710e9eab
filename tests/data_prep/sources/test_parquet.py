"""Parquet files and saved datasets: images inside or in a folder, columns or conversations."""

from __future__ import annotations

import datetime
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import PIL.Image
import pyarrow
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from data_prep.refusal import Flaw
from data_prep.sources.parquet import Parquet, ParquetOptions
from lensmith.errors import InputError
from lensmith.sample import Image, Message, Text

PLAIN: dict[str, Any] = {"image": ["image"], "answer": "answer", "prompt": "Which number?"}
ROWS = 150


def png(number: int) -> bytes:
    stream = io.BytesIO()
    PIL.Image.new("RGB", (8, 8), (number % 256, number // 256, 7)).save(stream, "PNG")
    return stream.getvalue()


def table(rows: int = ROWS, **columns: Any) -> pyarrow.Table:
    images = [{"bytes": png(number), "path": f"{number}.png"} for number in range(rows)]
    answers = [f"number {number}" for number in range(rows)]
    return pyarrow.table({"image": images, "answer": answers} | columns)


def write(path: Path, content: pyarrow.Table, **options: Any) -> Path:
    pyarrow.parquet.write_table(content, path, **options)
    return path


def test_rows_and_pictures_in_and_out_of_order(tmp_path: Path) -> None:
    path = write(tmp_path / "train.parquet", table(), row_group_size=40)
    source = Parquet(path, ParquetOptions(**PLAIN))
    found = list(source.rows())
    assert [each.sample.answer for each in found if each.sample] == [f"number {row}" for row in range(ROWS)]
    assert (found[3].place, found[3].row) == ("train.parquet row 4", "train.parquet#row=3")
    sample = found[77].sample
    assert sample is not None
    assert sample.messages[0] == Message(
        "user", (Image("train.parquet#row=77&column=image&item=0"), Text("Which number?"))
    )
    for row in (0, 1, 77, 149, 148, 3, 3):
        each = found[row].sample
        assert each is not None
        assert source.picture(each.images[0].path) == png(row)
    assert source.picture_stamp(sample.images[0].path) == []
    assert source.facts()["bytes"] == path.stat().st_size


def test_a_folder_of_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "b.parquet", table(2))
    write(tmp_path / "a.parquet", table(1))
    source = Parquet(tmp_path, ParquetOptions(**PLAIN))
    assert [each.place for each in source.rows()] == [
        "a.parquet row 1",
        "data/b.parquet row 1",
        "data/b.parquet row 2",
    ]
    assert source.picture("data/b.parquet#row=1&column=image&item=0") == png(1)
    before = source.facts()
    write(tmp_path / "a.parquet", table(2))
    assert Parquet(tmp_path, ParquetOptions(**PLAIN)).facts()["sha256"] != before["sha256"]


@pytest.mark.parametrize(
    ("images", "paths"),
    [
        ([{"bytes": None, "path": "a.png"}], ["a.png"]),
        (["a.png"], ["a.png"]),
        ([b"abc"], ["t.parquet#row=0&column=image&item=0"]),
        ([["a.png", "b.png"]], ["a.png", "b.png"]),
        (
            [[{"bytes": b"abc", "path": None}, {"bytes": None, "path": "b.png"}]],
            ["t.parquet#row=0&column=image&item=0", "b.png"],
        ),
        ([[b"x", b"abc"]], [f"t.parquet#row=0&column=image&item={item}" for item in (0, 1)]),
    ],
)
def test_forms_of_an_image_column(tmp_path: Path, images: list[Any], paths: list[str]) -> None:
    path = write(tmp_path / "t.parquet", pyarrow.table({"image": images, "answer": ["x"]}))
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"abc")
    source = Parquet(path, ParquetOptions(**PLAIN, image_root="pictures"))
    (found,) = source.rows()
    assert found.sample is not None
    assert [image.path for image in found.sample.images] == paths
    if paths[0] == "a.png":
        assert source.picture("a.png") == tmp_path / "pictures" / "a.png"
        assert len(source.picture_stamp("a.png")) == 2
    else:
        assert source.picture(paths[-1 if "item=1" in paths[-1] else 0]) == b"abc"


def test_a_row_without_an_image_or_answer(tmp_path: Path) -> None:
    content = pyarrow.table({"image": ["a.png", None], "answer": [None, "x"]})
    first, second = Parquet(write(tmp_path / "t.parquet", content), ParquetOptions(**PLAIN)).rows()
    assert first.flaws[0].code == "empty_answer"
    assert second.flaws[0].code == "no_image"


def test_meta_is_json(tmp_path: Path) -> None:
    when = datetime.datetime(2026, 3, 1, 9)
    path = write(
        tmp_path / "t.parquet",
        table(1, when=[when], raw=[b"abc"], nested=[{"a": [1.5, float("nan")]}], who=["c-7"]),
    )
    options = ParquetOptions(**PLAIN, meta=("when", "raw", "nested"), group="who", id="answer")
    (found,) = Parquet(path, options).rows()
    assert found.sample is not None
    assert found.sample.meta == {
        "when": "2026-03-01T09:00:00",
        "raw": "3 bytes",
        "nested": {"a": [1.5, None]},
    }
    assert json.dumps(found.sample.meta, allow_nan=False)
    assert (found.row, found.sample.group) == ("number 0", "c-7")


CHATS: list[tuple[Any, list[tuple[Any, ...]]]] = [
    (
        [{"role": "user", "content": "Read."}, {"role": "assistant", "content": "x"}],
        [(Image("a.png"), Image("b.png"), Text("Read.")), (Text("x"),)],
    ),
    (
        [{"role": "user", "content": "<image>\nand <image>: differ?"}, {"role": "assistant", "content": "x"}],
        [(Image("a.png"), Text("and "), Image("b.png"), Text(": differ?")), (Text("x"),)],
    ),
]


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize(("chat", "parts"), CHATS)
def test_conversations(tmp_path: Path, chat: Any, parts: list[tuple[Any, ...]], as_text: bool) -> None:
    content = {"image": [["a.png", "b.png"]], "chat": [json.dumps(chat) if as_text else chat], "id": ["r"]}
    path = write(tmp_path / "t.parquet", pyarrow.table(content))
    (found,) = Parquet(path, ParquetOptions(image=("image",), messages="chat", id="id")).rows()
    assert found.sample is not None, found.flaws
    assert [message.parts for message in found.sample.messages] == parts
    assert found.row == "r"


def test_conversations_of_parts(tmp_path: Path) -> None:
    chat = [
        {"role": "user", "content": [{"type": "text", "text": "Compare", "path": None}, {"type": "image"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "x"}]},
    ]
    content = pyarrow.table({"image": ["a.png"], "chat": [json.dumps(chat)]})
    (found,) = Parquet(
        write(tmp_path / "t.parquet", content), ParquetOptions(image=("image",), messages="chat")
    ).rows()
    assert found.sample is not None
    assert found.sample.messages[0].parts == (Text("Compare"), Image("a.png"))


@pytest.mark.parametrize(
    ("chat", "code"),
    [
        ("{", "not_json"),
        ("[]", "schema"),
        ('[{"role": "human", "content": "x"}]', "schema"),
        ('["x"]', "schema"),
        ('[{"role": "user", "content": 5}]', "schema"),
        ('[{"role": "user", "content": [{"type": "video"}]}]', "schema"),
        ('[{"role": "user", "content": "<image><image>"}]', "image_count"),
        ('[{"role": "user", "content": [{"type": "image"}, {"type": "image"}]}]', "image_count"),
        ('[{"role": "assistant", "content": "x"}]', "turns"),
    ],
)
def test_conversations_that_cannot_be_used(tmp_path: Path, chat: str, code: str) -> None:
    path = write(tmp_path / "t.parquet", pyarrow.table({"image": ["a.png"], "chat": [chat]}))
    (found,) = Parquet(path, ParquetOptions(image=("image",), messages="chat")).rows()
    assert {flaw.code for flaw in found.flaws} == {code}
    assert all(flaw.mend for flaw in found.flaws)


def test_an_image_too_many_in_a_conversation(tmp_path: Path) -> None:
    chat = json.dumps([{"role": "user", "content": "<image> x"}])
    path = write(tmp_path / "t.parquet", pyarrow.table({"image": [["a.png", "b.png"]], "chat": [chat]}))
    (found,) = Parquet(path, ParquetOptions(image=("image",), messages="chat")).rows()
    assert found.flaws[0].what == "2 images, 1 of them stand in the conversation"


def test_messages_and_columns_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="messages holds the whole conversation"):
        ParquetOptions.model_validate(PLAIN | {"messages": "chat"})
    with pytest.raises(ValidationError, match="either answer"):
        ParquetOptions.model_validate({"image": ["image"], "prompt": "x"})


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("t.parquet#row=9&column=image&item=0", "image_missing"),
        ("t.parquet#row=0&column=image&item=9", "image_missing"),
        ("t.parquet#row=0&column=answer&item=0", "image_path"),
        ("u.parquet#row=0&column=image&item=0", "image_path"),
        ("../x.png", "image_path"),
    ],
)
def test_pictures_that_are_not_there(tmp_path: Path, path: str, code: str) -> None:
    source = Parquet(write(tmp_path / "t.parquet", table(1)), ParquetOptions(**PLAIN))
    found = source.picture(path)
    assert isinstance(found, Flaw)
    assert found.code == code
    assert found.mend


def test_a_damaged_row_group_costs_its_own_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", table(30), row_group_size=10, compression="zstd")
    place = pyarrow.parquet.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = place.data_page_offset + 40
    data[start : start + 200] = bytes(200)
    path.write_bytes(data)
    found = list(Parquet(path, ParquetOptions(**PLAIN)).rows())
    assert [each.place for each in found if each.flaws] == ["t.parquet rows 11 to 20"]
    assert [each.sample.answer for each in found if each.sample] == [
        f"number {row}" for row in (*range(10), *range(20, 30))
    ]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no Parquet file"):
        Parquet(tmp_path, ParquetOptions(**PLAIN)).facts()
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="cannot be read"):
        list(Parquet(tmp_path, ParquetOptions(**PLAIN)).rows())
    write(tmp_path / "t.parquet", table(1))
    with pytest.raises(InputError, match="did you mean 'answer'"):
        list(Parquet(tmp_path, ParquetOptions(**PLAIN | {"answer": "answr"})).rows())


def saved(path: Path) -> Path:
    # It imports torch.
    import datasets

    features = datasets.Features({"image": datasets.Image(), "answer": datasets.Value("string")})
    rows = {
        "image": [{"bytes": png(row), "path": None} for row in range(100)],
        "answer": [f"number {row}" for row in range(100)],
    }
    data = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": data, "test": data.select(range(3))}).save_to_disk(path)
    return path


def test_saved_datasets(tmp_path: Path) -> None:
    folder = saved(tmp_path / "forms")
    source = Parquet(folder / "train", ParquetOptions(**PLAIN))
    found = list(source.rows())
    assert (source.format, len(found)) == ("datasets", 100)
    for row in (99, 0, 50):
        sample = found[row].sample
        assert sample is not None
        assert source.picture(sample.images[0].path) == png(row)
    split = Parquet(folder, ParquetOptions(**PLAIN, split="test"))
    assert len(list(split.rows())) == 3
    with pytest.raises(InputError, match="did you mean 'test'"):
        list(Parquet(folder, ParquetOptions(**PLAIN, split="tests")).rows())
    with pytest.raises(InputError, match="there are train, test"):
        list(Parquet(folder, ParquetOptions(**PLAIN)).rows())


def test_saved_datasets_that_name_other_files(tmp_path: Path) -> None:
    folder = saved(tmp_path / "forms") / "train"
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"_data_files": [{"filename": "../test/x.arrow"}]}))
    with pytest.raises(InputError, match="names files outside of it"):
        list(Parquet(folder, ParquetOptions(**PLAIN)).rows())
    (folder / "state.json").write_text(json.dumps(state | {"_indices_data_files": [{"filename": "i"}]}))
    with pytest.raises(InputError, match="flatten_indices"):
        list(Parquet(folder, ParquetOptions(**PLAIN)).rows())
    (folder / "state.json").write_text("{")
    with pytest.raises(InputError, match=r"state\.json cannot be read"):
        list(Parquet(folder, ParquetOptions(**PLAIN)).rows())


def test_a_saved_dataset_that_ends_early(tmp_path: Path) -> None:
    folder = saved(tmp_path / "forms") / "train"
    (file,) = folder.glob("*.arrow")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    *_, last = Parquet(folder, ParquetOptions(**PLAIN)).rows()
    assert last.flaws[0].what == "this part of the file is damaged"


def test_datasets_is_not_imported() -> None:
    code = (
        "import sys, data_prep.sources.parquet; sys.exit('datasets' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
