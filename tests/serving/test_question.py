"""One row as a request, one reply as a trace row."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import pytest
from PIL import Image as Picture

from lensmith import families
from lensmith.errors import InputError
from lensmith.film import Film, unpack
from lensmith.guide import Guide
from lensmith.images import pixel_digest
from lensmith.rendering import Rendering
from lensmith.row_file import Row
from lensmith.sample import Image, Message, Sample, Text, Thinking, ToolCall, Video
from serving.question import read_reply, request_body

PAD = 9
RENDERING = Rendering(families.get("qwen3_vl"))


def png(colour: str) -> bytes:
    stream = io.BytesIO()
    Picture.new("RGB", (32, 32), colour).save(stream, "PNG")
    return stream.getvalue()


def two_image_row() -> Row:
    messages = (
        Message("system", (Text("Be short."),)),
        Message("user", (Text("Compare "), Image("a.png"), Text(" with "), Image("b.png"))),
        Message("assistant", (Text("the answer"),)),
    )
    return Row(Sample("r", "g", messages), (png("red"), png("blue")))


def reply(**changes: Any) -> bytes:
    tokens = [
        {
            "token": "token_id:5",
            "logprob": -0.1,
            "top_logprobs": [
                {"token": "token_id:5", "logprob": -0.1},
                {"token": "token_id:6", "logprob": -2.6},
            ],
        },
        {
            "token": "token_id:7",
            "logprob": -0.5,
            "top_logprobs": [
                {"token": "token_id:8", "logprob": -0.9},
                {"token": "token_id:7", "logprob": -0.5},
            ],
        },
    ]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "five"},
        "logprobs": {"content": tokens},
        "token_ids": [5, 7],
        "finish_reason": "stop",
    }
    content = {"id": "x", "choices": [choice | changes], "prompt_token_ids": [1, PAD, PAD, 2, PAD, 3]}
    return json.dumps(content).encode()


def test_a_video_goes_as_its_frames_with_their_times() -> None:
    film = Video("a.mp4", (Image("a#1"), Image("a#2")), (0.0, 1.5), 2.25)
    parts = (Image("b"), film, Text("When?"), Image("c"))
    messages = (Message("user", parts), Message("assistant", (Text("the answer"),)))
    pictures = tuple(map(png, ("red", "green", "blue", "white")))
    body = request_body(Row(Sample("r", "g", messages), pictures), RENDERING, "forms", 12)
    before, shown, asked, behind = body["messages"][0]["content"]
    assert asked["text"] == "When?"
    stills = [each["image_url"]["url"].partition(",")[2] for each in (before, behind)]
    assert [base64.b64decode(each) for each in stills] == [pictures[0], pictures[3]]
    kind, _, sent = shown["video_url"]["url"].partition(",")
    assert kind == "data:video/x-lensmith-film;base64"
    assert unpack(base64.b64decode(sent)) == Film(pictures[1:3], (0, 1500), 2250)


def test_texts_and_images_keep_their_order_and_the_answer_is_not_sent() -> None:
    body = request_body(two_image_row(), RENDERING, "bank-forms", 12)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    parts = body["messages"][1]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url", "text", "image_url"]
    sent = [base64.b64decode(part["image_url"]["url"].partition(",")[2]) for part in parts[1::2]]
    assert sent == [png("red"), png("blue")]
    assert "the answer" not in json.dumps(body)
    assert body["model"] == "bank-forms"
    assert body["max_completion_tokens"] == 12


def tool_row() -> Row:
    zoom = {"type": "function", "function": {"name": "zoom"}}
    messages = (
        Message("user", (Image("a.png"), Text("What is there?"))),
        Message("assistant", (Thinking("Small."), ToolCall("zoom", {"img_idx": {"$image": 0}, "why": "Ä"}))),
        Message("tool", (Text("cut:"), Image("b.png"))),
        Message("assistant", (Text("the answer"),)),
    )
    return Row(Sample("r", "g", messages, tools=(zoom,)), (png("red"), png("blue")))


def test_tools_calls_and_their_results_are_sent_as_training_rendered_them() -> None:
    body = request_body(tool_row(), RENDERING, "m", 1)
    _, call, result = body["messages"]
    assert body["tools"] == RENDERING.tools(tool_row().sample)
    # With any other choice the engine would take the answer apart, or refuse.
    assert body["tool_choice"] == "none"
    assert (call["content"], call["reasoning"]) == ([], "Small.")
    function = {"name": "zoom", "arguments": '{"img_idx": 0, "why": "Ä"}'}
    assert call["tool_calls"] == [{"id": "call_0", "type": "function", "function": function}]
    assert result["tool_call_id"] == "call_0"
    sent = base64.b64decode(result["content"][1]["image_url"]["url"].partition(",")[2])
    assert sent == png("blue")
    assert "tools" not in request_body(two_image_row(), RENDERING, "m", 1)


def test_how_tokens_are_chosen_is_left_to_the_engine_as_production_leaves_it() -> None:
    body = request_body(two_image_row(), RENDERING, "m", 1)
    assert body.keys() == {
        "model",
        "messages",
        "max_completion_tokens",
        "logprobs",
        "top_logprobs",
        "return_token_ids",
        "return_tokens_as_token_ids",
    }


def test_a_guided_question_is_the_same_with_the_schema_beside_it() -> None:
    free = request_body(two_image_row(), RENDERING, "m", 1)
    body = request_body(two_image_row(), RENDERING, "m", 1, Guide(answer_schema='{"b": 1, "a": 2}'))
    asked = body.pop("response_format")
    assert body == free
    assert asked["type"] == "json_schema"
    assert [*asked["json_schema"]["schema"].items()] == [("b", 1), ("a", 2)], "in the schema's own order"


def test_a_token_that_was_not_the_most_probable_has_no_lead() -> None:
    """As vLLM tells it: the token that came stands first, the most probable one behind it."""
    came, best = {"token": "token_id:5", "logprob": -3.0}, {"token": "token_id:9", "logprob": -0.5}
    content = [{**came, "top_logprobs": [came, best]}]
    row = read_reply(two_image_row(), reply(token_ids=[5], logprobs={"content": content}), {PAD})
    assert row.margins == [-2.5]


def test_a_reply_becomes_a_trace_row() -> None:
    row = read_reply(two_image_row(), reply(), {PAD})
    assert (row.row, row.group, row.answer_text, row.finish) == ("r", "g", "five", "stop")
    assert row.answer_ids == [5, 7]
    assert row.image_tokens == 3
    assert row.answer_logprobs == [-0.1, -0.5]
    assert row.margins == pytest.approx([2.5, 0.4])
    assert row.image_digests == [pixel_digest(Picture.new("RGB", (32, 32), c)) for c in ("red", "blue")]


def test_an_empty_answer_is_an_answer() -> None:
    content = {"role": "assistant", "content": None}
    assert read_reply(two_image_row(), reply(message=content), {PAD}).answer_text == ""


def test_a_reply_without_token_ids_is_refused() -> None:
    with pytest.raises(InputError, match=r"choices\.0\.token_ids"):
        read_reply(two_image_row(), reply(token_ids=None), {PAD})


def test_log_probabilities_of_other_tokens_are_refused() -> None:
    with pytest.raises(InputError, match="not those of its token ids"):
        read_reply(two_image_row(), reply(token_ids=[5, 8]), {PAD})
