"""One held-out row as a request to the engine, and the engine's reply as a trace row. No network here."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from lensmith.artifact import Artifact
from lensmith.errors import InputError, Problem
from lensmith.film import MEDIA_TYPE, Film, pack
from lensmith.guide import Guide
from lensmith.images import decode_stored, pixel_digest
from lensmith.rendering import Rendering, ThinkingChoice
from lensmith.row_file import Row
from lensmith.sample import Video
from lensmith.trace import TraceRow

# How vLLM names a token when `return_tokens_as_token_ids` is asked.
_TOKEN = "token_id:"


class _Reply(BaseModel):
    """A part of a chat completion; what is not read here is ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _TopToken(_Reply):
    token: str
    logprob: float


class _Token(_TopToken):
    top_logprobs: list[_TopToken]


class _Logprobs(_Reply):
    content: list[_Token]


class _Message(_Reply):
    content: str | None


class _Choice(_Reply):
    message: _Message
    logprobs: _Logprobs
    token_ids: list[int]
    finish_reason: str


class _Completion(_Reply):
    choices: list[_Choice]
    prompt_token_ids: list[int]


def taught_thinking(run: Artifact) -> ThinkingChoice:
    """How a run was taught to think; the recipe's default for one that does not say."""
    return run.body.get("asked", {}).get("train", {}).get("thinking", "keep")


def chat_request(row: Row, rendering: Rendering, model_name: str, max_new_tokens: int) -> dict[str, Any]:
    """The chat request for `row`: images and videos inline, videos as the frames that were taken of them.

    Tools are offered as in training; an answer comes back as it was written, a call in it not taken apart.
    How tokens are chosen is left to the engine's defaults, as whoever asks in production leaves it: defaults
    that are not greedy must show.
    """
    shown = _Shown(iter(row.images), iter(row.sample.videos))
    tools = rendering.tools(row.sample)
    return {
        "model": model_name,
        "messages": [_message(each, shown) for each in rendering.messages(row.sample.prompt)],
        **({"tools": tools, "tool_choice": "none"} if tools else {}),
        "max_completion_tokens": max_new_tokens,
    }


def request_body(
    row: Row, rendering: Rendering, model_name: str, max_new_tokens: int, guide: Guide | None = None
) -> dict[str, Any]:
    """As `chat_request`, and what a trace row is made of is asked for: token ids and log-probabilities.

    guide: what the answer is to be kept to.
    """
    return {
        **chat_request(row, rendering, model_name, max_new_tokens),
        **({} if guide is None else {"response_format": _response_format(guide)}),
        "logprobs": True,
        "top_logprobs": 2,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
    }


def _response_format(guide: Guide) -> dict[str, Any]:
    """OpenAI's way of asking for guided answers."""
    schema = {"name": "answer", "strict": True, "schema": json.loads(guide.answer_schema)}
    return {"type": "json_schema", "json_schema": schema}


@dataclass(frozen=True)
class _Shown:
    """What a row shows, in order: the pictures, frames among them, and the videos."""

    pictures: Iterator[bytes]
    videos: Iterator[Video]


def _message(message: dict[str, Any], shown: _Shown) -> dict[str, Any]:
    """A message of `Rendering.messages` as HTTP takes it; vLLM gives its template what training gave."""
    sent = dict(message)
    if not isinstance(sent["content"], str):
        sent["content"] = [_part(part, shown) for part in sent["content"]]
    if "reasoning_content" in sent:
        sent["reasoning"] = sent.pop("reasoning_content")
    if "tool_calls" in sent:
        sent["tool_calls"] = [_call(each) for each in sent["tool_calls"]]
    return sent


def _part(part: dict[str, Any], shown: _Shown) -> dict[str, Any]:
    match part["type"]:
        case "image":
            return {"type": "image_url", "image_url": {"url": _inline("image/png", next(shown.pictures))}}
        case "video":
            film = pack(_film(next(shown.videos), shown.pictures))
            return {"type": "video_url", "video_url": {"url": _inline(MEDIA_TYPE, film)}}
        case _:
            return part


def _inline(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _film(video: Video, pictures: Iterator[bytes]) -> Film:
    frames = tuple(next(pictures) for _ in video.frames)
    times = tuple(round(each * 1000) for each in video.seconds)
    return Film(frames, times, round(video.duration * 1000))


def _call(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    return {**call, "function": {"name": function["name"], "arguments": arguments}}


def read_reply(row: Row, reply: bytes, image_tokens: Collection[int]) -> TraceRow:
    """The trace row that the engine's JSON `reply` to `row` gives.

    image_tokens: ids of the tokens that stand for a piece of an image or a frame. Image digests are of the
    bytes that were sent. Raises InputError where the reply lacks token ids or log-probabilities.
    """
    try:
        completion = _Completion.model_validate_json(reply)
    except ValidationError as error:
        problems = [Problem(each["msg"], ".".join(map(str, each["loc"]))) for each in error.errors()[:5]]
        raise InputError(f"the engine's reply to row {row.sample.id} cannot be read", problems) from error
    choice = completion.choices[0]
    tokens = choice.logprobs.content
    if [token.token for token in tokens] != [f"{_TOKEN}{each}" for each in choice.token_ids]:
        raise InputError(
            f"the engine's reply to row {row.sample.id} cannot be read",
            [Problem("its log-probabilities are not those of its token ids")],
        )
    return TraceRow(
        row=row.sample.id,
        group=row.sample.group,
        image_digests=[pixel_digest(decode_stored(data)) for data in row.images],
        prompt_ids=completion.prompt_token_ids,
        image_tokens=sum(each in image_tokens for each in completion.prompt_token_ids),
        answer_ids=choice.token_ids,
        answer_text=choice.message.content or "",
        answer_logprobs=[token.logprob for token in tokens],
        margins=[_margin(token) for token in tokens],
        finish=choice.finish_reason,
    )


def _margin(token: _Token) -> float:
    """The lead of the token that was chosen over the best other, which stands among the top two."""
    return token.logprob - max(each.logprob for each in token.top_logprobs if each.token != token.token)
