"""Which paths of an engine answer, and to whom. What vLLM itself has behind them: `test_vllm_commands`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from serving.guard import MIDDLEWARE, OPEN, TOKEN_HEADER, TOKEN_VARIABLE, Guard

TOKEN = (TOKEN_HEADER, "the token")
KEY = ("authorization", "Bearer the key")
ADAPTERS = (
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/v1/load_lora_adapter/",
    "/proxy/v1/load_lora_adapter",
    "/adapters",
    "/adapters/bank-forms",
)
ANSWERS = ("/v1/chat/completions", "/v1/completions", "/v1/responses/resp_1", "/v1/models")
# What vLLM 0.32 has beside /v1, most of it open to everybody, and other spellings of it.
CLOSED = (
    "/invocations",
    "/generative_scoring",
    "/tokenize",
    "/detokenize",
    "/scale_elastic_ep",
    "/is_scaling_elastic_ep",
    "/kv_event_sources",
    "/inference/v1/generate",
    "/inference/v1/abort_requests",
    "/v2/rerank",
    "/pooling",
    "/score",
    "/sleep",
    "/openapi.json",
    "/docs",
    "/",
    "//invocations",
    "/invocations/",
    "/Invocations",
    "/health/../invocations",
    "/v1",
    "/v10/models",
)


async def engine(scope: Any, receive: Any, send: Any) -> None:
    """What is guarded: it answers everything."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN[1])
    monkeypatch.setenv("VLLM_API_KEY", "the key")


def ask(path: str, *headers: tuple[str, str], method: str = "POST") -> int:
    """The status of the answer: 200 where the request reached what is guarded."""

    async def asked() -> httpx.Response:
        # Sent as it is written: a client would take `..` out.
        url = httpx.URL("http://engine", raw_path=path.encode())
        transport = httpx.ASGITransport(Guard(engine))
        return await transport.handle_async_request(httpx.Request(method, url, headers=headers))

    reply = asyncio.run(asked())
    if reply.status_code != 200:
        content = json.loads(asyncio.run(reply.aread()))
        assert content["error"]["code"] == reply.status_code
        assert content["error"]["message"]
    return reply.status_code


@pytest.mark.parametrize("path", ADAPTERS)
def test_adapters_are_changed_with_the_token_alone(path: str) -> None:
    assert ask(path) == 403
    assert ask(path, KEY) == 403
    assert ask(path, (TOKEN_HEADER, "another"), KEY) == 403
    assert ask(path, ("authorization", "Bearer the token")) == 403
    assert ask(path, TOKEN) == 200


@pytest.mark.parametrize("token", ["", None])
def test_without_a_token_nobody_changes_them(token: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE)
    if token is not None:
        monkeypatch.setenv(TOKEN_VARIABLE, token)
    assert ask("/adapters", (TOKEN_HEADER, ""), KEY) == 403
    assert ask("/adapters", KEY) == 403


@pytest.mark.parametrize("path", ANSWERS)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_questions_are_answered_with_the_key(path: str, method: str) -> None:
    assert ask(path, method=method) == 401
    for wrong in ("Bearer another", "Bearer ", "the key", "Basic the key", "Bearer the key "):
        assert ask(path, ("authorization", wrong), method=method) == 401, wrong
    assert ask(path, TOKEN, method=method) == 401
    assert ask(path, KEY, method=method) == 200
    assert ask(path, ("Authorization", "bearer the key"), method=method) == 200


@pytest.mark.parametrize("path", ANSWERS)
def test_where_no_key_is_set_none_is_asked_for(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "")
    assert ask(path) == 200


@pytest.mark.parametrize("path", OPEN)
def test_whether_it_lives_is_told_to_everybody(path: str) -> None:
    assert ask(path, method="GET") == 200


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("headers", [(), (KEY,), (KEY, TOKEN)])
def test_nothing_else_answers(path: str, headers: Sequence[tuple[str, str]]) -> None:
    assert ask(path, *headers) == 403
    assert ask(path, *headers, method="GET") == 403


def test_a_websocket_is_a_request_too() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    def dial(path: str, *headers: tuple[bytes, bytes]) -> str:
        scope = {"type": "websocket", "path": path, "headers": headers}
        asyncio.run(Guard(engine)(scope, None, send))  # type: ignore[arg-type]
        return sent.pop(0)

    assert dial("/v1/realtime") == dial("/realtime") == "websocket.close"
    assert sent == []
    assert dial("/v1/realtime", (b"authorization", b"Bearer the key")) == "http.response.start"


def test_a_start_and_an_end_of_the_server_pass() -> None:
    seen: list[str] = []

    async def server(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    asyncio.run(Guard(server)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan"]


def test_it_is_what_the_engine_is_told_to_import() -> None:
    assert f"{Guard.__module__}.{Guard.__qualname__}" == MIDDLEWARE
