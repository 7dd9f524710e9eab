"""In vLLM's place, a server of one base whose adapters come and go, and that can be told to mix them up."""

from __future__ import annotations

import http.server
import json
import threading
import time
import zlib
from typing import Any

TOKEN = "the-token"


def answer_of(adapter: str | None, text: str) -> list[int]:
    """The token ids that an adapter (its folder; None for the base) answers to a text.

    The whole sum: of a thousand ids, one folder in a thousand would answer a row as the base does.
    """
    return [zlib.crc32(f"{adapter} {text}".encode()), len(text)]


class LiveDouble:
    """adapters: folders by name, in the order they came. slots: which adapter answers for a name, where that
    is another than its own. key: of the API, where it asks for one. slow: seconds before it answers a GET."""

    def __init__(self) -> None:
        self.adapters: dict[str, str] = {}
        self.slots: dict[str, str | None] = {}
        self.posts: list[str] = []
        self.key = ""
        self.slow = 0.0
        double = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # One packet a reply: two would wait for each other.
            wbufsize = -1

            def log_message(self, *args: Any) -> None:
                return

            def do_GET(self) -> None:
                time.sleep(double.slow)
                if self.path == "/v1/models" and double.key and not self._knows_key():
                    return self._send(401, {"error": "Unauthorized"})
                cards = [{"id": "base", "root": "/base"}]
                cards += [{"id": name, "root": root} for name, root in double.adapters.items()]
                return self._send(200, {"data": cards})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if double.key and not self._knows_key():
                    return self._send(401, {"error": {"message": "Unauthorized"}})
                if self.path == "/v1/chat/completions":
                    return self._send(*double.answer(body))
                if self.headers.get("x-lensmith-token") != TOKEN:
                    return self._send(403, {})
                double.posts.append(f"{self.path.split('/')[-1]} {body['lora_name']}")
                if self.path == "/v1/load_lora_adapter":
                    if body["lora_name"] in double.adapters:
                        return self._send(400, {"error": {"message": "has already been loaded"}})
                    double.adapters[body["lora_name"]] = body["lora_path"]
                else:
                    del double.adapters[body["lora_name"]]
                return self._send(200, {})

            def _knows_key(self) -> bool:
                return self.headers.get("Authorization") == f"Bearer {double.key}"

            def _send(self, status: int, content: object) -> None:
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, body: dict[str, Any]) -> tuple[int, object]:
        """The status and the content of a reply to a chat request."""
        name = body["model"]
        if name != "base" and name not in self.adapters:
            return 404, {"error": {"message": f"The model `{name}` does not exist."}}
        adapter = self.slots.get(name, self.adapters.get(name))
        ids = answer_of(adapter, body["messages"][0]["content"][-1]["text"])
        # No token that `answer_of` gives.
        other = {"token": f"token_id:{2**32}", "logprob": -3.0}
        tokens = [{"token": f"token_id:{each}", "logprob": -0.1} for each in ids]
        content = [{**token, "top_logprobs": [token, other]} for token in tokens]
        choice = {
            "message": {"content": "x"},
            "logprobs": {"content": content},
            "token_ids": ids,
            "finish_reason": "stop",
        }
        return 200, {"choices": [choice], "prompt_token_ids": [1, 9, 9]}

    def close(self) -> None:
        """Stop answering."""
        self.server.shutdown()
        self.server.server_close()
