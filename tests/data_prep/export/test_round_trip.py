"""What is written is read back equal where the format can hold it, and left out by name where it cannot."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_prep.export import canonical_jsonl, label_studio, llava, openai_messages, sharegpt
from data_prep.export.folder import Written
from data_prep.refusal import Flaw
from data_prep.sources.label_studio import LabelStudio, LabelStudioOptions
from data_prep.sources.llava import Llava
from data_prep.sources.openai_messages import OpenAIMessages
from data_prep.sources.sharegpt import ShareGPT
from data_prep.sources.source import Source
from lensmith.errors import InputError
from lensmith.row_file import Row
from lensmith.sample import Image, Message, Origin, Part, Region, Sample, Text, Thinking, ToolCall
from tests.data_prep.canonical import parse_line
from tests.data_prep.folder import picture
from tests.data_prep.sources.rows import taken

Write = Callable[[Iterable[Row], Path], Written]
WRITERS: dict[str, tuple[Write, Callable[[Path], Source]]] = {
    "llava": (llava.write, Llava),
    "sharegpt": (sharegpt.write, ShareGPT),
    "openai": (openai_messages.write, OpenAIMessages),
}
ASK = Message("user", (Image("scans/a.jpg"), Text("Read the form.")))
ANSWER = Message("assistant", (Text('{"n": "1"}'),))
CROP = {"type": "function", "function": {"name": "crop", "parameters": {"type": "object"}}}
CALLS = (
    ASK,
    Message("assistant", (ToolCall("crop", {"image": 0}), ToolCall("crop", {"image": 1}))),
    Message("tool", (Image("left.png"),)),
    Message("tool", (Text("nothing there"),)),
    ANSWER,
)


def row(*messages: Message, name: str = "r", **changes: Any) -> Row:
    sample = Sample(name, "g", messages, **changes)
    pictures = tuple(
        picture(int(hashlib.sha256(image.path.encode()).hexdigest()[:6], 16)) for image in sample.images
    )
    return Row(sample, pictures)


def plain(sample: Sample, source: Source | None = None, images: Iterable[bytes] = ()) -> Sample:
    """The sample with its images named by their bytes, so that paths do not matter."""
    left = iter(images)

    def part(each: Part) -> Part:
        if not isinstance(each, Image):
            return each
        if source is None:
            return Image(hashlib.sha256(next(left)).hexdigest())
        path = source.picture(each.path)
        assert isinstance(path, Path)
        return Image(hashlib.sha256(path.read_bytes()).hexdigest())

    messages = tuple(Message(each.role, tuple(map(part, each.parts))) for each in sample.messages)
    return replace(sample, messages=messages)


def came_back(rows: list[Row], source: Source) -> None:
    """That a source holds exactly these rows."""
    again = [plain(sample, source) for sample in taken(source)]
    assert again == [plain(each.sample, None, each.images) for each in rows]


CHATS = [
    row(ASK, ANSWER, name="one", meta={"desk": 3, "deep": {"a": [1]}}),
    row(
        ASK,
        Message("assistant", (Text("é 漢 \n"),)),
        name="two",
        origin=Origin("bank", "CC-BY-4.0", "", "ana"),
    ),
    row(
        Message("system", (Text("Be brief."),)),
        ASK,
        ANSWER,
        Message("user", (Text("And?"),)),
        ANSWER,
        name="3",
    ),
    row(Message("user", (Image("a.png"), Image("b.png"), Text("\nCompare."))), ANSWER, name="four"),
    row(Message("user", (Text("Look:\n"), Image("a.png"), Text("and"), Image("c.png"))), ANSWER, name="five"),
    row(Message("user", (Text("Who are you?"),)), Message("assistant", (Text(""),)), name="six"),
]


@pytest.mark.parametrize("name", WRITERS)
def test_conversations_come_back(tmp_path: Path, name: str) -> None:
    write, reader = WRITERS[name]
    written = write(iter(CHATS), tmp_path / "out")
    assert (written.rows, written.left_out) == (6, {})
    came_back(CHATS, reader(tmp_path / "out" / written.file))
    assert written.images == len(list((tmp_path / "out" / "images").iterdir())) == 4
    assert not (tmp_path / ".out.partial").exists()


@pytest.mark.parametrize("name", ["sharegpt", "openai"])
def test_tools_come_back(tmp_path: Path, name: str) -> None:
    write, reader = WRITERS[name]
    rows = [row(*CALLS, tools=(CROP,))]
    written = write(rows, tmp_path / "out")
    came_back(rows, reader(tmp_path / "out" / written.file))


def test_thinking_comes_back_from_openai(tmp_path: Path) -> None:
    rows = [row(ASK, Message("assistant", (Thinking("Hm."), Text("one"), ToolCall("crop"))), ANSWER)]
    written = openai_messages.write(rows, tmp_path / "out")
    came_back(rows, OpenAIMessages(tmp_path / "out" / written.file))


def said(*parts: Part) -> Row:
    return row(ASK, Message("assistant", parts), name="bad")


REGION = Region("box", (0.0, 0.0, 0.5, 0.5), "amount")


@pytest.mark.parametrize(
    ("name", "bad", "why"),
    [
        ("llava", said(REGION), "regions"),
        ("llava", said(Thinking("x"), Text("y")), "thinking"),
        ("llava", said(Text("an <image> of")), "a text that says <image>"),
        ("llava", row(*CALLS, name="bad"), "tool calls"),
        ("llava", row(ASK, Message("tool", (Text("x"),)), name="bad"), "tools"),
        ("llava", row(ASK, ANSWER, tools=(CROP,), name="bad"), "tools"),
        ("sharegpt", said(REGION), "regions"),
        ("sharegpt", said(Thinking("x"), Text("y")), "thinking"),
        ("sharegpt", said(Text("x"), ToolCall("crop")), "text beside a tool call"),
        ("openai", said(REGION), "regions"),
        ("openai", said(Text("x"), Thinking("y")), "thinking in the middle of a message"),
        ("openai", said(ToolCall("crop"), Text("x")), "text behind a tool call"),
        ("openai", row(ASK, Message("tool", (Text("x"),)), name="bad"), "a tool's result without a call"),
        ("label-studio", row(*CALLS, name="bad"), "more than one question and its answer"),
        (
            "label-studio",
            row(ASK, Message("assistant", ANSWER.parts, (Text("2"),)), name="bad"),
            "a rejected answer",
        ),
        ("label-studio", said(REGION), "an answer of another kind than the first row's"),
        ("label-studio", said(Text("no JSON")), "an answer that is no JSON object of plain fields"),
        (
            "label-studio",
            said(Text('{"n": {"deep": 1}}')),
            "an answer that is no JSON object of plain fields",
        ),
        ("label-studio", said(Text('{"n": 1}')), "a field that changes its type (n)"),
        (
            "label-studio",
            row(Message("user", (Text("x"), Image("a.png"))), ANSWER, name="bad"),
            "a question that does not stand behind its images",
        ),
        ("label-studio", row(Message("user", (Text("x"),)), ANSWER, name="bad"), "a row without an image"),
        (
            "label-studio",
            row(Message("user", (Image("a.png"), Image("b.png"), Text("x"))), ANSWER, name="bad"),
            "several images, where the first row has one",
        ),
    ],
)
def test_what_a_format_cannot_hold_is_left_out_by_name(tmp_path: Path, name: str, bad: Row, why: str) -> None:
    write: Write = label_studio.write if name == "label-studio" else WRITERS[name][0]
    written = write([CHATS[0], bad, row(ASK, ANSWER, name="after")], tmp_path / "out")
    assert (written.rows, written.left_out) == (2, {why: 1})
    text = (tmp_path / "out" / written.file).read_text()
    assert "bad" not in text
    assert "after" in text


def read_tasks(folder: Path, **changes: Any) -> LabelStudio:
    options = {**label_studio.READ_BACK, "config": "labelling.xml", **changes}
    return LabelStudio(folder / "tasks.json", LabelStudioOptions.model_validate(options))


def test_fields_come_back_from_label_studio(tmp_path: Path) -> None:
    answers = ['{"amount":"12.50","pages":2,"stamps":["paid"]}', '{"amount":"é","stamps":["paid","copy"]}']
    rows = [
        row(ASK, Message("assistant", (Text(answers[0]),)), name="one", meta={"desk": 3}),
        row(ASK, Message("assistant", (Text(answers[1]),)), name="two", meta={"desk": 4}),
    ]
    written = label_studio.write(rows, tmp_path / "out")
    assert (written.rows, written.images, written.left_out) == (2, 1, {})
    came_back(rows, read_tasks(tmp_path / "out", answer="json", meta=["data.meta.desk"]))


def test_texts_come_back_from_label_studio(tmp_path: Path) -> None:
    two = Message("user", (Image("a.png"), Image("b.png"), Text("Compare.")))
    rows = [row(two, Message("assistant", (Text("the same\n"),))), row(ASK, ANSWER, name="two")]
    label_studio.write(rows, tmp_path / "out")
    assert 'valueList="$image"' in (tmp_path / "out" / "labelling.xml").read_text()
    tasks = json.loads((tmp_path / "out" / "tasks.json").read_text())
    assert [len(task["data"]["image"]) for task in tasks] == [2, 1]
    came_back(rows, read_tasks(tmp_path / "out", answer="text"))


def test_regions_come_back_from_label_studio(tmp_path: Path) -> None:
    regions = (
        Region("box", (0.1, 0.2, 0.7, 0.9), 'a "label" & more'),
        Region("point", (0.25, 0.75), "spot"),
        Region("box", (0.0, 0.0, 1.0, 1.0)),
    )
    label_studio.write([row(ASK, Message("assistant", regions))], tmp_path / "out")
    (sample,) = taken(read_tasks(tmp_path / "out", answer="regions"))
    assert sample.images[0].size == (48, 32)
    for region, wanted in zip(sample.messages[1].parts, regions, strict=True):
        assert isinstance(region, Region)
        assert (region.kind, region.label, region.image) == (wanted.kind, wanted.label, wanted.image)
        assert region.values == pytest.approx(wanted.values, abs=1e-10)


def test_predictions_are_there_to_be_corrected(tmp_path: Path) -> None:
    rows = [row(ASK, ANSWER, name=name) for name in ("one", "two", "three")]
    answers = {"one": '{"n": "7"}', "two": "I cannot read it", "elsewhere": "x"}
    written = label_studio.write(rows, tmp_path / "out", answers, "report-1")
    assert (written.rows, written.predictions, written.predictions_left_out) == (3, 1, 1)
    found = list(read_tasks(tmp_path / "out", answer="json", labels="predictions").rows())
    assert found[0].sample is not None
    assert (found[0].sample.answer, found[0].sample.origin.labeller) == ('{"n":"7"}', "report-1")
    assert [[flaw.code for flaw in each.flaws] for each in found[1:]] == [["unlabelled"], ["unlabelled"]]


def test_the_canonical_format_comes_back(tmp_path: Path) -> None:
    rows = [replace(each, sample=replace(each.sample, origin=Origin())) for each in CHATS]
    canonical_jsonl.write(rows, tmp_path / "out")
    lines = (tmp_path / "out" / "labels.jsonl").read_bytes().splitlines()
    for line, wanted in zip(lines, rows, strict=True):
        sample = parse_line(line, "x:1").sample
        assert sample is not None
        images = [(tmp_path / "out" / image.path).read_bytes() for image in sample.images]
        assert plain(sample, None, images) == plain(wanted.sample, None, wanted.images)


def test_the_canonical_format_holds_everything(tmp_path: Path) -> None:
    answer = Message("assistant", (Thinking("Hm."), REGION, ToolCall("crop", {"a": 1})))
    canonical_jsonl.write([row(ASK, answer, tools=(CROP,), origin=Origin(labeller="ana"))], tmp_path / "out")
    (line,) = (tmp_path / "out" / "labels.jsonl").read_text().splitlines()
    content = json.loads(line)
    assert content["messages"][1]["content"] == [
        {"type": "thinking", "text": "Hm."},
        {"type": "region", "kind": "box", "values": [0.0, 0.0, 0.5, 0.5], "label": "amount", "image": 0},
        {"type": "tool_call", "name": "crop", "arguments": {"a": 1}},
    ]
    assert (content["tools"], content["origin"]) == ([CROP], {"labeller": "ana"})


@pytest.mark.parametrize(
    "path", ["../../etc/a.png", "C:\\a b\\c.png", "https://x/y?z=1", "é漢.png", ".", "a" * 300]
)
def test_no_name_leaves_the_folder(tmp_path: Path, path: str) -> None:
    llava.write([row(Message("user", (Image(path), Text("Read."))), ANSWER)], tmp_path / "out")
    source = Llava(tmp_path / "out" / "llava.json")
    found = source.picture(taken(source)[0].images[0].path)
    assert not isinstance(found, Flaw)
    assert isinstance(found, Path)
    assert found.parent == (tmp_path / "out" / "images").resolve()
    assert found.is_file()


def test_pictures_of_one_name_stay_apart(tmp_path: Path) -> None:
    first = row(ASK, ANSWER, name="one")
    second = replace(row(ASK, ANSWER, name="two"), images=(picture(99),))
    written = sharegpt.write([first, second, first], tmp_path / "out")
    assert (written.rows, written.images) == (3, 2)
    came_back([first, second, first], ShareGPT(tmp_path / "out" / "sharegpt.json"))


def test_nothing_is_written_over_and_a_crash_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    llava.write(CHATS, tmp_path / "out")
    with pytest.raises(InputError, match="nothing is written over"):
        llava.write(CHATS, tmp_path / "out")

    def breaking() -> Iterable[Row]:
        yield CHATS[0]
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        llava.write(breaking(), tmp_path / "other")
    assert not (tmp_path / "other").exists()
    llava.write(CHATS, tmp_path / "other")
    assert len(taken(Llava(tmp_path / "other" / "llava.json"))) == len(CHATS)


def test_no_rows_are_an_empty_list(tmp_path: Path) -> None:
    written = label_studio.write([], tmp_path / "out")
    assert written.rows == 0
    assert json.loads((tmp_path / "out" / "tasks.json").read_text()) == []
