"""What is sent under load: the requests that a trace asks, without what only proofs need, marked by level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lensmith import families
from lensmith.rendering import Rendering
from lensmith.row_file import Row
from lensmith.sample import Image, Message, Sample, Text
from serving.loadtest.client import Task, _request, marked_request
from serving.loadtest.result import Load
from serving.question import request_body
from tests.release_artifacts import form_rows

RENDERING = Rendering(families.get("qwen3_vl"))


def task(**more: Any) -> Task:
    facts: dict[str, Any] = {
        "url": "http://127.0.0.1:1",
        "model_name": "bank-forms",
        "home": Path("/nowhere"),
        "held_out": Path("/nowhere"),
        "reason": "a test",
        "rows": 2,
        "family": "qwen3_vl",
        "thinking": "keep",
        "max_new_tokens": 16,
        "loads": [Load(concurrency=1)],
        "to_saturation": False,
        "side": 1,
        "round": 2,
        "mark": "m",
        "out": Path("/nowhere"),
    }
    return Task(**{**facts, **more})


def images(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for part in body["messages"][0]["content"] if part["type"] == "image_url"]


def test_the_request_is_the_one_that_was_examined_but_for_the_marks() -> None:
    (row,) = form_rows(1, 1)
    body = marked_request(row, RENDERING, task(), "0-7-4 in flight")
    assert body.pop("cache_salt") == "0-7-4 in flight"
    (image,) = images(body)
    assert image.pop("uuid") == "0-7-4 in flight-form-000-0"
    asked = request_body(row, RENDERING, "bank-forms", 16)
    extra = {"logprobs", "top_logprobs", "return_token_ids", "return_tokens_as_token_ids"}
    assert body == {name: value for name, value in asked.items() if name not in extra}


def test_every_image_of_every_row_and_level_has_a_mark_of_its_own() -> None:
    rows = form_rows(2, 1)
    shown = rows[0].sample.messages[0].parts[0]
    assert isinstance(shown, Image)
    message = Message("user", (shown, Text("and"), shown))
    twice = Row(Sample("twice", "g", (message, Message("assistant", (Text("x"),)))), rows[0].images * 2)
    bodies = [marked_request(row, RENDERING, task(), mark) for row in (*rows, twice) for mark in ("a", "b")]
    marks = [image["uuid"] for body in bodies for image in images(body)]
    assert len(set(marks)) == len(marks) == 8


def test_a_text_alone_is_marked_too() -> None:
    plain = Sample("text", "g", (Message("user", (Text("7?"),)), Message("assistant", (Text("7"),))))
    assert marked_request(Row(plain, ()), RENDERING, task(), "a")["cache_salt"] == "a"


def test_the_event_that_names_the_role_is_no_token() -> None:
    """Of three tokens the stream has four events: the first two come at once."""
    found = {
        "input_lens": [20, 21],
        "output_lens": [3, 0],
        "ttfts": [0.5, 0.0],
        "itls": [[0.00001, 0.02, 0.03], []],
        "latencies": [0.55, 0.0],
        "errors": ["", "Traceback ...\n  File x\naiohttp.ClientError: gone\n"],
    }
    answered = _request(task(), Load(concurrency=4), found, 0)
    assert (answered.first, answered.gaps, answered.latency) == (500.0, [20.0, 30.0], 550.0)
    assert (answered.side, answered.round, answered.row) == (1, 2, 0)
    failed = _request(task(), Load(concurrency=4), found, 1)
    assert failed.error == "aiohttp.ClientError: gone"
