"""Starting and watching an engine, with small programs in the place of vLLM."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from lensmith.errors import InputError, IntegrityError
from lensmith.home import Home
from lensmith.process import run_child, stop_tree
from serving.engine import Engine, _wait_healthy, log_problems, running_engine
from serving.port import free_port
from serving.profile import derive_profile
from tests.serving.exam import CPU
from tests.serving.small import small_base, small_recipe

# Answers /health and /version as vLLM does.
SERVER = """
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        self.wfile.write(json.dumps({"version": "0.32.0"}).encode())
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def start(log: Path, *argv: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as stream:
        return run_child([sys.executable, "-c", *argv], stdout=stream, stderr=subprocess.STDOUT)


def test_a_port_in_use_is_found_before_anything_starts(tmp_path: Path, home: Home) -> None:
    recipe = small_recipe(tmp_path)
    base = small_base(home, recipe)
    profile = derive_profile(recipe, home, base, base, CPU)
    before = psutil.Process().children()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with (
            pytest.raises(InputError, match="cannot be used"),
            running_engine(profile, home, listener.getsockname()[1]),
        ):
            pass
    assert not (home.root / "logs").exists()
    assert psutil.Process().children() == before


def test_weights_that_were_changed_are_not_served(tmp_path: Path, home: Home) -> None:
    recipe = small_recipe(tmp_path)
    base = small_base(home, recipe)
    profile = derive_profile(recipe, home, base, base, CPU)
    (recipe.base.path / "chat_template.jinja").write_text("{{ 'other' }}")
    with pytest.raises(IntegrityError, match="not what was pinned"), running_engine(profile, home):
        pass


def test_healthy_is_when_it_answers(tmp_path: Path) -> None:
    log = tmp_path / "log"
    port = free_port("127.0.0.1")
    process = start(log, SERVER, str(port))
    try:
        assert _wait_healthy(process, f"http://127.0.0.1:{port}", log, 30) == "0.32.0"
    finally:
        stop_tree(process)


def test_an_engine_that_dies_fails_at_once_with_its_errors(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "import sys; print('ValueError: no such dtype'); print('last words'); sys.exit(7)"
    process = start(log, script)
    with pytest.raises(InputError, match=r"did not start \(exit code 7\)") as caught:
        _wait_healthy(process, f"http://127.0.0.1:{free_port('127.0.0.1')}", log, 30)
    assert "ValueError: no such dtype" in str(caught.value)
    assert "last words" in str(caught.value)
    assert str(log) in str(caught.value)


def test_an_engine_that_never_gets_ready_is_given_up(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start(log, "import time; time.sleep(60)")
    try:
        with pytest.raises(InputError, match="was not ready after 1 s"):
            _wait_healthy(process, f"http://127.0.0.1:{free_port('127.0.0.1')}", log, 1)
    finally:
        stop_tree(process)


def test_alive_until_ended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start(log, "import time; time.sleep(60)")
    engine = Engine("http://127.0.0.1:1", "m", "0.32.0", log, process.pid)
    assert engine.alive()
    process.kill()
    # Not waited for yet: a zombie is not alive.
    for _ in range(100):
        if not engine.alive():
            break
        psutil.Process().cpu_percent(0.05)
    assert not engine.alive()
    process.wait()
    assert not engine.alive()


def test_errors_deep_in_a_log_are_found_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    deep = ["torch.OutOfMemoryError: CUDA out of memory"] * 3
    log.write_text("\n".join([*deep, *(f"line {i}" for i in range(50))]))
    lines = [problem.what for problem in log_problems(log)]
    assert lines.count("OutOfMemoryError: CUDA out of memory") == 1
    assert lines[-1] == "line 49"
