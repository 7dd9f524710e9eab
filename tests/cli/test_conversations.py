"""All that a conversation may hold, and Label Studio's boxes, through `lensmith prepare`, row by row."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from lensmith.cli.main import main
from lensmith.dataset import read_split
from lensmith.home import Home
from lensmith.sample import Image, Message, Part, Region, Sample, Text, Thinking, ToolCall
from tests.conftest import recipe_content
from tests.data_prep.folder import picture
from tests.data_prep.sources.rows import GOLDEN

# Pictures are looked at by processes of their own.
pytestmark = pytest.mark.slow

ZOOM = {
    "type": "function",
    "function": {
        "name": "zoom",
        "description": "Shows a part larger.",
        "parameters": {
            "type": "object",
            "properties": {"box": {"type": "array"}, "image": {"type": "integer"}},
        },
    },
}
CALL = {"box": {"$box": [0, 0, 0.5, 1]}, "image": {"$image": 0}}


def prepared(
    root: Path, capsys: pytest.CaptureFixture[str], *settings: str, **data: Any
) -> tuple[dict[str, Sample], dict[str, dict[str, str]]]:
    """The rows that are learned, as they are stored, and what is said of those that were refused; by id."""
    content = recipe_content(root / "no-base", root)
    # Every row is learned: there are few.
    rule = {"validation": 0.0, "held_out": 0.0, "seed": 17}
    content["data"] |= {"answer": "text", "max_bad": 0.9, "split": rule, **data}
    (root / "recipe.yaml").write_text(yaml.safe_dump(content))
    laid = [part for each in settings for part in ("-s", each)]
    code = main(["prepare", str(root / "recipe.yaml"), *laid, "--home", str(root / "home"), "--json"])
    out, said = capsys.readouterr()
    assert code == 0, said
    body = json.loads(out)
    dataset = Home(root / "home").by_id(body["dataset"])
    lines = (Path(body["intake_path"]) / "refused.jsonl").read_text().splitlines()
    refused = {each["row"]: each for each in map(json.loads, lines)}
    return {row.sample.id: row.sample for row in read_split(dataset, "train")}, refused


def plain(message: Message) -> tuple[Part, ...]:
    """The parts without what preparation adds: digest and size of the images."""
    return tuple(
        replace(part, digest="", size=(0, 0)) if isinstance(part, Image) else part for part in message.parts
    )


def test_every_part_of_a_conversation_is_learned_as_it_was_handed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("front", "back", "part", "scene")):
        (tmp_path / f"{name}.png").write_bytes(picture(4000 + number))
    shown = [{"type": "image", "path": f"{name}.png"} for name in ("front", "back")]
    box = {"type": "box", "xyxy": [10, 20, 90, 100.0], "unit": "percent", "image": 1, "label": "stamp"}
    point = {"type": "point", "xy": [100, 200], "unit": "thousand"}
    span = {"type": "span", "seconds": [1.5, "0:01:04"], "label": "signs"}
    turns = [
        {"role": "system", "content": "You read forms."},
        {"role": "user", "content": [*shown, {"type": "text", "text": "What is on the back?"}]},
        {"role": "assistant", "content": [{"type": "tool_call", "name": "zoom", "arguments": CALL}]},
        {"role": "tool", "content": [{"type": "image", "path": "part.png"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "A stamp."}]},
        {"role": "user", "content": "Where?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "text": "It is round."},
                box,
                {"type": "text", "text": " and "},
                point,
            ],
        },
    ]
    origin = {"source": "march", "licence": "CC0-1.0", "consent": "c-7", "labeller": "ada", "guideline": "v3"}
    whole = {"id": "whole", "group": "a", "tools": [ZOOM], "origin": origin, "messages": turns}
    solid = {"type": "box_3d", "values": [0, 0, 0, 1, 1, 1, 0, 0, 0]}
    scene = {"type": "image", "path": "scene.png"}
    asked = {"role": "user", "content": [scene, {"type": "text", "text": "Where is it?"}]}
    rows = [
        whole,
        {"id": "solid", "group": "b", "messages": [asked, {"role": "assistant", "content": [solid]}]},
        {"id": "video", "group": "c", "messages": [asked, {"role": "assistant", "content": [span]}]},
    ]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = str(tmp_path / "labels.jsonl")
    learned, refused = prepared(tmp_path, capsys, "serve.max_images=3", source=source)
    assert learned.keys() == {"whole", "video"}
    sample = learned["whole"]
    assert [message.role for message in sample.messages] == [each["role"] for each in turns]
    assert [plain(message) for message in sample.messages] == [
        (Text("You read forms."),),
        (Image("front.png"), Image("back.png"), Text("What is on the back?")),
        (ToolCall("zoom", CALL),),
        (Image("part.png"),),
        (Text("A stamp."),),
        (Text("Where?"),),
        (
            Thinking("It is round."),
            Region("box", (0.1, 0.2, 0.9, 1.0), "stamp", 1),
            Text(" and "),
            Region("point", (0.1, 0.2)),
        ),
    ]
    assert list(sample.tools) == [ZOOM]
    assert {name: getattr(sample.origin, name) for name in origin} == origin
    assert plain(learned["video"].messages[-1]) == (Region("span", (1.5, 64.0), "signs"),)
    assert refused.keys() == {"solid"}
    assert "3-D boxes are not supported" in refused["solid"]["reason"]


@pytest.mark.parametrize("rotated", ["refuse", "hull"])
def test_boxes_relations_and_turned_boxes_of_label_studio(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rotated: str
) -> None:
    for number, name in enumerate(("scans/form 1.png", "upload/3/ab12-form.png")):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_bytes(picture(4010 + number, 400, 200))
    tasks = json.loads((GOLDEN / "label_studio.json").read_bytes())
    box = {"x": 0, "y": 0, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["a"]}
    result = {"id": "b", "type": "rectanglelabels", "from_name": "box", "value": box}
    result |= {"original_width": 400, "original_height": 200}
    data = tasks[0]["data"] | {"form": "upright"}
    tasks.append({"id": 99, "data": data, "annotations": [{"completed_by": 1, "result": [result]}]})
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    options = {
        "prompt_field": "data.question",
        "id": "data.form",
        "group": "data.customer",
        "answer": "regions",
    }
    learned, refused = prepared(
        tmp_path,
        capsys,
        source=str(tmp_path / "export.json"),
        options=options | {"rotated": rotated},
        labels={"same": "none"},
    )
    assert learned["upright"].messages[-1].parts == (Region("box", (0, 0, 0.5, 0.5), "a"),)
    if rotated == "refuse":
        assert "a box is turned by 90 degrees" in refused["f-2"]["reason"]
        return
    amount, stamp, date = learned["f-2"].messages[-1].parts
    assert amount == Region("box", (0.1, 0.2, 0.4, 0.6), "amount")
    assert stamp == Region("point", (0.5, 0.75), "stamp")
    assert isinstance(date, Region)
    assert date.values == pytest.approx((180 / 400, 100 / 200, 200 / 400, 180 / 200))
    assert learned["f-2"].meta["relations"] == [
        {"from": 0, "to": 2, "direction": "right", "labels": ["paid on"]}
    ]
