"""A program in vLLM's place that can misbehave on cue: python engine_double.py PORT BEHAVIOUR

Behaviours: "well"; "dies-after-5": ends without a word at the sixth question; "drops-first": closes the
connection of the first question unanswered; "refuses-odd": answers 400 to every other question.
"""

from __future__ import annotations

import http.server
import itertools
import json
import os
import random
import sys
import threading
import time

BEHAVIOUR = sys.argv[2]
COUNT = itertools.count(1)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers each question with its own text's length as the token, after a random pause; a guided one with
    the text "guided"."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(200, {"version": "0.32.0"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][0]["content"][-1]["text"]
        if "response_format" in body:
            text = "guided"
        number = next(COUNT)
        if BEHAVIOUR == "dies-after-5" and number > 5:
            os._exit(1)
        if BEHAVIOUR == "drops-first" and number == 1:
            self.close_connection = True
            self.connection.close()
            return
        if BEHAVIOUR == "refuses-odd" and int(text.split()[-1]) % 2:
            self._send(400, {"error": {"message": f"cannot take {text}"}})
            return
        time.sleep(random.random() / 50)
        if body.get("stream"):
            self._stream(text)
            return
        token = {"token": f"token_id:{len(text)}", "logprob": -0.1}
        other = {"token": "token_id:0", "logprob": -3.0}
        choice = {
            "message": {"content": text},
            "logprobs": {"content": [{**token, "top_logprobs": [token, other]}]},
            "token_ids": [len(text)],
            "finish_reason": "stop",
        }
        self._send(200, {"choices": [choice], "prompt_token_ids": [1, 9, 9]})

    def _stream(self, text: str) -> None:
        """The answer as events: the role, the text, an end with the usage."""
        deltas = [{"role": "assistant", "content": ""}, {"content": text}]
        events: list[object] = [{"choices": [{"delta": delta}]} for delta in deltas]
        events.append({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}})
        data = "".join(f"data: {json.dumps(each)}\n\n" for each in events).encode() + b"data: [DONE]\n\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _send(self, status: int, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
threading.Thread(target=server.serve_forever).start()
