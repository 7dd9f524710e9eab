"""What stands before every engine's web server: which paths answer, and to whom.

vLLM 0.32's API key guards paths that begin with /v1, /v2, /inference or /cohere and no others (its
entrypoints/serve/middleware/authenticate.py): /invocations and /generative_scoring answer questions,
/tokenize reads media, /scale_elastic_ep has the engine divided anew, each for anybody who reaches the port.
Here a path answers because it is known to be needed. What loads adapters takes any folder of the server under
any name from all who have the clients' key, and on /adapters from everybody: it asks for a token that only
its own Lensmith has. vLLM imports this by name (`--middleware`): nothing of ours is imported here.
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

# Of a live engine's environment, drawn anew at each start; and of a request that may change what is loaded.
TOKEN_VARIABLE = "LENSMITH_ADAPTER_TOKEN"
TOKEN_HEADER = "x-lensmith-token"
_KEY = "VLLM_API_KEY"
MIDDLEWARE = "serving.guard.Guard"
# Told to everybody: whether it lives, which version, how busy. They read only.
OPEN = ("/health", "/load", "/metrics", "/metrics/", "/ping", "/version")
# For all who have the key, where one is set: what the models are, and their answers.
_ANSWERS = "/v1/"
# In any place of the path: however it is spelt, what reaches a handler has one of these in it.
_ADAPTERS = ("lora_adapter", "/adapters")
# RFC 6455, section 7.4.1: a policy is violated.
_VIOLATED = 1008

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """ASGI middleware: without the key 401, without the token for adapters and on all other paths 403."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._token = os.environ.get(TOKEN_VARIABLE, "").encode()
        self._key = os.environ.get(_KEY, "").encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, or answer it."""
        refusal = None if scope["type"] == "lifespan" else self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _VIOLATED})
            return
        status, message = refusal
        body = json.dumps({"error": {"message": message, "code": status}}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The status and words of an answer that is none; None for a request that may go on."""
        path = scope["path"]
        if any(part in path for part in _ADAPTERS):
            known = self._token and _has(scope, TOKEN_HEADER, self._token)
            return None if known else (403, "adapters are loaded by `lensmith load`")
        if path in OPEN:
            return None
        if not path.startswith(_ANSWERS):
            return 403, f"this server answers on {_ANSWERS} alone"
        if self._key and not _has(scope, "authorization", self._key, b"bearer"):
            return 401, "the request has not the server's API key"
        return None


def _has(scope: Scope, header: str, secret: bytes, scheme: bytes = b"") -> bool:
    """Whether a header has the secret, behind the name of its scheme where it has one (RFC 9110, 11.4)."""
    for name, value in scope["headers"]:
        before, _, given = value.partition(b" ") if scheme else (b"", b"", value)
        if name == header.encode() and before.lower() == scheme and hmac.compare_digest(given, secret):
            return True
    return False
