"""Images by address through the command line, from a real server on this machine that means harm or not."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from data_prep import fetching
from data_prep.download import Downloaded
from data_prep.prepare import prepare
from data_prep.sources import fetched
from lensmith.data_settings import Data
from lensmith.home import Home
from lensmith.recipe import load_recipe
from tests.conftest import ROOT
from tests.data_prep.folder import Folder, picture
from tests.data_prep.told import Told, prepare_told

OURS = (ipaddress.ip_network("127.0.0.1/32"),)
KILLED = 9


class Server(ThreadingHTTPServer):
    """Serves pictures by number, and what a hostile one would; counts what is asked of it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: Counter[str] = Counter()
        self.mended = False

    @property
    def host(self) -> str:
        return f"localhost:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are what is tested."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1
        word, _, rest = self.path[1:].partition("?")
        if word == "move":
            self.send_response(302)
            self.send_header("Location", rest)
            self.end_headers()
            return
        data = b"\x89PNG torn" if word == "torn" and not self.server.mended else picture(_number(word))
        self.send_response(200)
        self.send_header("Content-Type", "image/png")
        self.send_header("Content-Length", str(10**9 if word == "huge" else len(data)))
        self.end_headers()
        self.wfile.write(data)


def _number(word: str) -> int:
    return 1000 + int(word) if word.isdigit() else 999


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that alone in the network inside may be fetched from."""
    monkeypatch.setattr(fetched, "INSIDE", OURS)
    one = Server()
    thread = threading.Thread(target=one.serve_forever, args=(0.02,))
    thread.start()
    yield one
    one.shutdown()
    thread.join()
    one.server_close()


def addressed(folder: Folder, base: str, count: int = 20) -> None:
    for number in range(count):
        folder.add(folder.row(f"row-{number}", path=f"{base}/{number}"))


def told(folder: Folder, capsys: pytest.CaptureFixture[str], *hosts: str, **data: Any) -> Told:
    download = {"hosts": list(hosts), "http": True}
    return prepare_told(folder.root.parent, capsys, source=str(folder.write()), download=download, **data)


def reasons(found: Told) -> dict[str, str]:
    return {row: records[0]["reason"] for row, records in found.refused().items()}


def test_pictures_are_fetched_once_and_kept(
    folder: Folder, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    addressed(folder, f"http://{server.host}")
    folder.fill(1)
    first = told(folder, capsys, server.host)
    assert (first.code, first.rows) == (0, 21)
    assert server.asked == Counter({f"/{number}": 1 for number in range(20)})
    # Another recipe, the same pictures.
    again = told(folder, capsys, server.host, split={"validation": 0.2, "held_out": 0.2, "seed": 5})
    assert (again.rows, server.asked.total()) == (21, 20)


def test_hosts_and_places_that_are_not_allowed(
    folder: Folder, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    base = f"http://{server.host}"
    port = server.server_address[1]
    addressed(folder, base)
    for row, path in {
        "other host": "http://example.org/a.png",
        "other port": "http://localhost:1/a.png",
        "redirect to another host": f"{base}/move?http://169.254.169.254/latest/meta-data",
        "redirect inside": f"{base}/move?http://127.0.0.2:{port}/7",
        "inside": f"http://127.0.0.2:{port}/7",
        "too large": f"{base}/huge",
        "not http": "ftp://example.org/a.png",
    }.items():
        folder.add(folder.row(row, path=path))
    found = told(folder, capsys, server.host, f"127.0.0.2:{port}")
    assert found.rows == 20
    said = reasons(found)
    assert set(said) == set(found.refused())
    for row, words in {
        "other host": "the recipe does not allow 'example.org'",
        "other port": "the recipe does not allow 'localhost:1'",
        "redirect to another host": "the recipe does not allow '169.254.169.254'",
        "redirect inside": "leads to 127.0.0.2, which is not on the public internet",
        "inside": "leads to 127.0.0.2, which is not on the public internet",
        "too large": "more than 50,000,000 bytes",
        "not http": "is an address",
    }.items():
        assert words in said[row], row
    assert all(records[0]["mend"] for records in found.refused().values())
    codes = {row: records[0]["code"] for row, records in found.refused().items()}
    assert codes.pop("not http") == "image_path"
    assert set(codes.values()) == {"image_download"}
    assert "/7" not in [path for path, times in server.asked.items() if times > 1]


def test_a_name_that_turns_inside_is_refused(
    folder: Folder, server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name leads to the server once, as for a check, and then to a machine of the network inside."""
    turns = iter(["127.0.0.1"])
    port = server.server_address[1]
    real = socket.getaddrinfo

    def turning(host: str, *rest: Any, **more: Any) -> Any:
        if host != "images.test":
            return real(host, *rest, **more)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(turns, "10.0.0.7"), port))]

    monkeypatch.setattr(socket, "getaddrinfo", turning)
    addressed(folder, f"http://{server.host}")
    folder.add(folder.row("turned", path=f"http://images.test:{port}/move?/50"))
    found = told(folder, capsys, server.host, f"images.test:{port}")
    assert found.rows == 20
    assert "leads to 10.0.0.7, which is not on the public internet" in reasons(found)["turned"]


def test_no_recipe_reaches_this_machine(
    folder: Folder, server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutant of the tests' own permission: without it their server is as closed as any inside."""
    monkeypatch.setattr(fetched, "INSIDE", ())
    folder.fill(20)
    folder.add(folder.row("ours", path=f"http://{server.host}/1"))
    found = told(folder, capsys, server.host)
    assert (found.rows, server.asked.total()) == (20, 0)
    assert "which is not on the public internet" in reasons(found)["ours"]
    (folder.root.parent / "home").rename(folder.root.parent / "old-home")
    code = prepare_told(
        folder.root.parent,
        capsys,
        source=str(folder.labels),
        download={"hosts": [], "networks": ["127.0.0.1"]},
    )
    assert (code.code, "networks" in code.said) == (2, True)


def test_without_a_host_nothing_is_fetched(
    folder: Folder, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.fill(20)
    folder.add(folder.row("named", path=f"http://{server.host}/1"))
    found = told(folder, capsys)
    ((record,),) = found.refused().values()
    assert (record["code"], server.asked.total()) == ("image_path", 0)
    assert "data.download.hosts" in record["mend"]
    # Without encryption only where the recipe says so, and never by a host's address in capitals or a scheme.
    plain = prepare_told(
        folder.root.parent, capsys, source=str(folder.labels), download={"hosts": [server.host]}
    )
    assert "'http' is not allowed" in reasons(plain)["named"]
    for wrong in ("https://example.org", "Example.org", "a b"):
        assert told(folder, capsys, wrong).code == 2


def test_a_picture_that_was_refused_is_fetched_again(
    folder: Folder, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    addressed(folder, f"http://{server.host}")
    folder.add(folder.row("torn", path=f"http://{server.host}/torn"))
    assert reasons(told(folder, capsys, server.host)).keys() == {"torn"}
    server.mended = True
    again = told(folder, capsys, server.host, max_bad=0.8)
    assert (again.rows, server.asked["/torn"], server.asked["/1"]) == (21, 2, 1)


@pytest.mark.slow
def test_what_one_recipe_refuses_another_keeps(
    folder: Folder, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(20):
        folder.add(folder.row(f"small-{number}", path=folder.image(f"{number}.png", picture(number, 24, 16))))
    addressed(folder, f"http://{server.host}", 10)
    taken = told(folder, capsys, server.host)
    strict = told(folder, capsys, server.host, max_image_pixels=1000)
    assert (taken.rows, strict.rows) == (30, 20)
    asked = server.asked.total()
    # It is made once more, and from what it was made of.
    shutil.rmtree(taken.body["path"])
    again = told(folder, capsys, server.host)
    assert again.body["dataset"] == taken.body["dataset"]
    assert server.asked.total() == asked


def test_each_pair_of_limits_has_copies_of_its_own(server: Server, tmp_path: Path) -> None:
    url = f"http://{server.host}/1"
    allowed = Data.model_validate({"source": "a.jsonl", "download": {"hosts": [server.host], "http": True}})
    strict = allowed.model_copy(update={"max_image_pixels": 1000})
    loose, tight = (fetched.downloader(each, tmp_path) for each in (allowed, strict))
    for one in (loose, tight):
        assert isinstance(one.fetch(url), Downloaded)
    tight.forget(url)
    found = [one.fetch(url) for one in (loose, tight)]
    assert [isinstance(each, Downloaded) and each.cached for each in found] == [True, False]


@pytest.mark.slow
def test_a_killed_run_fetches_nothing_twice(folder: Folder, server: Server, tmp_path: Path) -> None:
    addressed(folder, f"http://{server.host}", 30)
    recipe = folder.recipe(download={"hosts": [server.host], "http": True})
    home = Home(tmp_path / "home")
    assert recipe.data.download.hosts == (server.host,)
    command = [sys.executable, "-m", "tests.data_prep.killed_fetching", str(folder.root.with_suffix(".yaml"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*command, str(home.root), "12"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == -KILLED, done.stderr
    kept = [each for each in (home.root / "cache/downloads").rglob("*") if each.is_file()]
    whole = [each for each in kept if not each.name.startswith(".")]
    assert 12 <= len(whole) < 30
    before = dict(server.asked)
    prepared = prepare(load_recipe(folder.root.with_suffix(".yaml")), home)
    assert sum(prepared.dataset.body["rows"].values()) == 30
    # What was kept is not asked for again; only what was under way when it died is.
    assert sum(server.asked[path] == 1 for path in before) >= len(whole)
    assert server.asked.total() <= 30 + fetching.AT_ONCE
    assert json.dumps(prepared.dataset.body).count("http://") == 0
