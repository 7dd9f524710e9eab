"""Every format through the command line: found out, prepared, and the same rows whatever they came in; and
every format that rows are exported in, handed in again."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_prep.sources.registry import FORMATS
from lensmith.cli.main import main
from lensmith.cli.verbs.export import FORMATS as EXPORTED
from lensmith.dataset import read_held_out, read_split
from lensmith.home import Home
from lensmith.images import ImageLimits, decode_image, pixel_digest
from tests.conftest import recipe_content
from tests.data_prep.folder import picture

# Twenty-four rows are prepared for each format.
pytestmark = pytest.mark.slow

ROWS = range(24)
PROMPT = "What is written here?"
PICTURES = [picture(3000 + row) for row in ROWS]
ANSWERS = [f"amount {row}" for row in ROWS]
COLUMNS = {"image": ["image"], "answer": "answer", "prompt": PROMPT}
# Pages and frames are drawn: tests/data_prep/sources/test_documents.py has them through the command line.
DRAWN = {"pdf", "dicom"}

# Writes the rows into a folder; gives what is handed over and the options that the format needs.
Made = tuple[Path, dict[str, Any]]


def images(folder: Path) -> list[str]:
    (folder / "images").mkdir()
    names = [f"images/{row}.png" for row in ROWS]
    for name, data in zip(names, PICTURES, strict=True):
        (folder / name).write_bytes(data)
    return names


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def whole(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def canonical(folder: Path) -> Made:
    rows = [
        {
            "id": f"row-{row}",
            "group": f"group-{row}",
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image", "path": name}, {"type": "text", "text": PROMPT}],
                },
                {"role": "assistant", "content": ANSWERS[row]},
            ],
        }
        for row, name in enumerate(images(folder))
    ]
    return lines(folder / "labels.jsonl", rows), {}


def openai(folder: Path) -> Made:
    rows = [
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": name}},
                        {"type": "text", "text": PROMPT},
                    ],
                },
                {"role": "assistant", "content": ANSWERS[row]},
            ]
        }
        for row, name in enumerate(images(folder))
    ]
    return lines(folder / "chats.jsonl", rows), {}


def turns(row: int) -> list[dict[str, str]]:
    return [{"from": "human", "value": f"<image>{PROMPT}"}, {"from": "gpt", "value": ANSWERS[row]}]


def sharegpt(folder: Path) -> Made:
    rows = [{"conversations": turns(row), "images": [name]} for row, name in enumerate(images(folder))]
    return whole(folder / "chats.json", rows), {}


def llava(folder: Path) -> Made:
    rows = [
        {"id": f"{row}", "image": name, "conversations": turns(row)}
        for row, name in enumerate(images(folder))
    ]
    return whole(folder / "llava.json", rows), {}


def coco(folder: Path) -> Made:
    names = images(folder)
    content = {
        "images": [
            {"id": row, "file_name": name, "width": 48, "height": 32} for row, name in enumerate(names)
        ],
        "annotations": [{"id": 100 + row, "image_id": row, "caption": ANSWERS[row]} for row in ROWS],
    }
    return whole(folder / "captions.json", content), {"prompt": PROMPT}


def label_studio(folder: Path) -> Made:
    tasks = [
        {
            "id": row,
            "data": {"image": f"/data/local-files/?d={name}"},
            "annotations": [
                {
                    "id": row,
                    "result": [
                        {
                            "from_name": "text",
                            "to_name": "image",
                            "type": "textarea",
                            "value": {"text": [ANSWERS[row]]},
                        }
                    ],
                }
            ],
        }
        for row, name in enumerate(images(folder))
    ]
    return whole(folder / "export.json", tasks), {"prompt": PROMPT, "answer": "text"}


def table(folder: Path) -> Made:
    with (folder / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("image", "answer"), *zip(images(folder), ANSWERS, strict=True)])
    return folder / "labels.csv", COLUMNS


def excel(folder: Path) -> Made:
    from openpyxl import Workbook

    book = Workbook()
    sheet = book.active
    assert sheet is not None
    for values in [("image", "answer"), *zip(images(folder), ANSWERS, strict=True)]:
        sheet.append(values)
    book.save(folder / "labels.xlsx")
    return folder / "labels.xlsx", COLUMNS


def parquet(folder: Path) -> Made:
    import pyarrow
    import pyarrow.parquet

    stored = [{"bytes": data, "path": None} for data in PICTURES]
    pyarrow.parquet.write_table(
        pyarrow.table({"image": stored, "answer": ANSWERS}), folder / "train-00000-of-00001.parquet"
    )
    return folder, COLUMNS


def datasets(folder: Path) -> Made:
    import datasets as library

    features = library.Features({"image": library.Image(), "answer": library.Value("string")})
    rows = {"image": [{"bytes": data, "path": None} for data in PICTURES], "answer": ANSWERS}
    library.Dataset.from_dict(rows, features=features).save_to_disk(folder / "saved")
    return folder / "saved", COLUMNS


def webdataset(folder: Path) -> Made:
    with tarfile.open(folder / "shard-000000.tar", "w") as archive:
        for row in ROWS:
            for ending, data in (("png", PICTURES[row]), ("txt", ANSWERS[row].encode())):
                member = tarfile.TarInfo(f"{row:04}.{ending}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return folder, {"answer": "txt", "prompt": PROMPT}


MADE: dict[str, Callable[[Path], Made]] = {
    "lensmith": canonical,
    "openai": openai,
    "sharegpt": sharegpt,
    "llava": llava,
    "coco": coco,
    "label_studio": label_studio,
    "csv": table,
    "excel": excel,
    "parquet": parquet,
    "datasets": datasets,
    "webdataset": webdataset,
}


def prepared(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    source: Path,
    options: dict[str, Any],
    **split: float,
) -> dict[str, Any]:
    """What `lensmith prepare` tells; the home is below `root`."""
    content = recipe_content(root / "no-base", root)
    content["data"] |= {"source": str(source), "options": options, "answer": "text"}
    content["data"]["split"] |= split
    (root / "recipe.yaml").write_text(yaml.safe_dump(content))
    capsys.readouterr()
    code = main(["prepare", str(root / "recipe.yaml"), "--home", str(root / "home"), "--json"])
    out, said = capsys.readouterr()
    assert code == 0, said
    return json.loads(out)


def rows_of(root: Path, body: dict[str, Any], exam: bool = True) -> set[tuple[str, str, str]]:
    """Question, answer and pixels of every row of the dataset, and of its exam."""
    home = Home(root / "home")
    dataset = home.by_id(body["dataset"])
    files = [read_split(dataset, "train"), read_split(dataset, "validation")]
    if exam:
        files.append(read_held_out(home, home.by_id(body["held_out"]), "a test of the formats"))
    return {
        (row.sample.prompt[-1].text, row.sample.answer, row.sample.images[0].digest)
        for file in files
        for row in file
    }


def expected() -> set[tuple[str, str, str]]:
    pixels = [pixel_digest(decode_image(data, ImageLimits())) for data in PICTURES]
    return {(PROMPT, answer, digest) for answer, digest in zip(ANSWERS, pixels, strict=True)}


def test_no_format_is_left_out() -> None:
    assert MADE.keys() | DRAWN == FORMATS.keys()


@pytest.mark.parametrize("name", MADE)
def test_rows_are_the_same_whatever_they_come_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "handed-over").mkdir()
    body = prepared(tmp_path, capsys, *MADE[name](tmp_path / "handed-over"))
    (source,) = body["sources"]
    assert (source["format"], source["rows"], body["refused"]["rows"]) == (name, 24, 0)
    assert rows_of(tmp_path, body) == expected()
    # Which format it was taken for, and why.
    page = (Path(body["intake_path"]) / "report.html").read_text(encoding="utf-8")
    assert "because " in page


@pytest.mark.parametrize("name", EXPORTED)
def test_what_is_exported_can_be_handed_in_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "handed-over").mkdir()
    body = prepared(tmp_path, capsys, *canonical(tmp_path / "handed-over"))
    out = tmp_path / "exported"
    command = ["export", body["dataset"], "--to", name, "--out", str(out), "--home", str(tmp_path / "home")]
    assert main([*command, "--json"]) == 0
    file = json.loads(capsys.readouterr().out)["file"]
    options = {"prompt_field": "data.question", "id": "data.id", "answer": "text"}
    given = options if name == "label-studio" else {}
    # The exam is not exported: its groups are not among the others.
    again = prepared(tmp_path, capsys, out / file, given, validation=0.0, held_out=0.0)
    assert again["refused"]["rows"] == 0
    assert rows_of(tmp_path, again) == rows_of(tmp_path, body, exam=False)
