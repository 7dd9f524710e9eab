"""What stands before a live engine's web server: only its own Lensmith loads and unloads adapters.

vLLM's endpoints for it load any path of the server under any name, for anybody who reaches the port: its API
key is the one that all clients have, and guards /v1 but not /adapters, where the same handlers answer again.
vLLM imports this by name (`--middleware`): nothing of ours is imported here.
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

# Of the engine's environment, drawn anew at each start; and of a request that may change what is loaded.
TOKEN_VARIABLE = "LENSMITH_ADAPTER_TOKEN"
TOKEN_HEADER = "x-lensmith-token"
MIDDLEWARE = "serving.adapter_guard.AdapterGuard"
# In any place of the path: however it is spelt, what reaches a handler has one of these in it.
_GUARDED = ("lora_adapter", "/adapters")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class AdapterGuard:
    """ASGI middleware that answers 403 to a request for another adapter without the engine's token."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._token = os.environ[TOKEN_VARIABLE].encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, or answer it."""
        guarded = scope["type"] != "lifespan" and any(part in scope["path"] for part in _GUARDED)
        if guarded and not self._knows(scope):
            content = {"error": {"message": "adapters are loaded by `lensmith load`", "code": 403}}
            body = json.dumps(content).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        await self._app(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == TOKEN_HEADER.encode()]
        return bool(self._token) and any(hmac.compare_digest(value, self._token) for value in given)
