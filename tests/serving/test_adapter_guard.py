"""Who may load adapters into a running engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from serving.adapter_guard import MIDDLEWARE, TOKEN_HEADER, TOKEN_VARIABLE, AdapterGuard

TOKEN = (TOKEN_HEADER.encode(), b"the token")
GUARDED = (
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/v1/load_lora_adapter/",
    "/proxy/v1/load_lora_adapter",
    "/adapters",
    "/adapters/bank-forms",
)


def ask(path: str, headers: Sequence[tuple[bytes, bytes]] = (), token: str = "the token") -> int:
    """The status of the answer: 200 where the request reached what is guarded."""
    sent: list[Any] = []

    async def engine(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TOKEN_VARIABLE, token)
        guard = AdapterGuard(engine)
    asyncio.run(guard({"type": "http", "path": path, "headers": list(headers)}, None, send))  # type: ignore[arg-type]
    if len(sent) > 1:
        assert "lensmith load" in json.loads(sent[1]["body"])["error"]["message"]
    return sent[0]["status"]


@pytest.mark.parametrize("path", GUARDED)
def test_adapters_are_changed_with_the_token_alone(path: str) -> None:
    assert ask(path) == 403
    assert ask(path, [(TOKEN_HEADER.encode(), b"another")]) == 403
    assert ask(path, [(b"authorization", b"Bearer the token")]) == 403
    assert ask(path, [TOKEN]) == 200


def test_without_a_token_nobody_changes_them() -> None:
    assert ask("/adapters", [(TOKEN_HEADER.encode(), b"")], token="") == 403


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/health", "/version"])
def test_all_else_passes(path: str) -> None:
    assert ask(path) == 200


def test_a_start_and_an_end_of_the_server_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "x")
    seen: list[str] = []

    async def engine(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    asyncio.run(AdapterGuard(engine)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert seen == ["lifespan"]


def test_it_is_what_the_engine_is_told_to_import() -> None:
    assert f"{AdapterGuard.__module__}.{AdapterGuard.__qualname__}" == MIDDLEWARE
