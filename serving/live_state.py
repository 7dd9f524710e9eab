"""What a live server leaves in `<home>/live/` for other processes and its next start: two files a port.

PORT.json: the releases that are live, by name, which the next start loads again. PORT.server.json: where the
server is now and the token that changes its adapters; gone when it ends well.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from lensmith.artifact import Artifact
from lensmith.errors import InputError, IntegrityError, Problem
from lensmith.files import write_json
from lensmith.home import Home
from serving.command import LIVE_BASE
from serving.engine import NO_TLS, Engine

_FOLDER = "live"
_ANSWER_S = 30.0
_Content = TypeVar("_Content", bound=BaseModel)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Wanted(_File):
    """PORT.json. adapters: ids of releases by the name of each."""

    schema_version: int = 1
    adapters: dict[str, str]


class Server(_File):
    """PORT.server.json. profile: id of the one that the engine was started for. used: the release that each
    name meant last, of all that were asked for since the start, live or not."""

    schema_version: int = 1
    url: str
    version: str
    log: str
    pid: int
    token: str
    profile: str
    used: dict[str, str] = {}

    @property
    def engine(self) -> Engine:
        """The running engine, as the process that started it knows it."""
        return Engine(self.url, LIVE_BASE, self.version, Path(self.log), self.pid, self.token)


class LiveState:
    """The files of one port."""

    def __init__(self, home: Home, port: int) -> None:
        self.port = port
        folder = home.root / _FOLDER
        # Who can read the token can load any file of this machine as an adapter.
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._wanted = folder / f"{port}.json"
        self._server = folder / f"{port}.server.json"

    @property
    def wanted(self) -> dict[str, str]:
        """The id of the release that each name means, from the last server of this port. Raises
        IntegrityError where the file cannot be read."""
        if not self._wanted.is_file():
            return {}
        return _read(_Wanted, self._wanted).adapters

    def want(self, adapters: Mapping[str, str]) -> None:
        """Note what is live from now on; on disk before this returns."""
        write_json(self._wanted, _Wanted(adapters=dict(adapters)).model_dump())

    def opened(self, engine: Engine, profile: Artifact) -> None:
        """Note where the server is."""
        self.note(
            Server(
                url=engine.url,
                version=engine.version,
                log=str(engine.log),
                pid=engine.pid,
                token=engine.token,
                profile=profile.id,
            )
        )

    def note(self, server: Server) -> None:
        """Keep what is known of the running server."""
        write_json(self._server, server.model_dump())

    def closed(self) -> None:
        """The server has ended."""
        self._server.unlink(missing_ok=True)

    def find_server(self) -> Server | None:
        """The server of this port, where one runs: what a killed one left is no server.

        Raises InputError where it runs and does not answer: what it has cannot be told or changed then.
        """
        if not self._server.is_file():
            return None
        server = _read(Server, self._server)
        if not server.engine.alive():
            return None
        try:
            reply = httpx.get(f"{server.url}/health", timeout=_ANSWER_S, trust_env=False, verify=NO_TLS)
        except httpx.TimeoutException as error:
            problem = Problem(f"no answer in {_ANSWER_S:.0f} s", server.url, f"look into {server.log}")
            raise InputError("the live server is there and does not answer", [problem]) from error
        except httpx.TransportError:
            return None
        return server if reply.status_code == httpx.codes.OK else None

    def server(self) -> Server:
        """As `find_server`. Raises InputError where none runs."""
        found = self.find_server()
        if found is None:
            problem = Problem("no live server runs there", f"port {self.port}", "lensmith serve RELEASE")
            raise InputError("there is nothing to load adapters into", [problem])
        return found


def port_of(url: str) -> int:
    """The port of a server's address."""
    return urlsplit(url).port or 0


def find_state(home: Home, port: int | None) -> LiveState:
    """The state of `port`, or of the one port that there is something known of.

    Raises InputError where there are several, or none.
    """
    if port is not None:
        return LiveState(home, port)
    folder = home.root / _FOLDER
    ports = sorted({int(each.name.partition(".")[0]) for each in folder.glob("[0-9]*.json")})
    if len(ports) == 1:
        return LiveState(home, ports[0])
    running = [state for each in ports if (state := LiveState(home, each)).find_server()]
    if len(running) == 1:
        return running[0]
    problems = [Problem("is known", f"port {each}", "give it with --port") for each in ports]
    none = [Problem("none was started from this home", mend="lensmith serve RELEASE")]
    raise InputError("which live server is meant?" if ports else "there is no live server", problems or none)


def _read(kind: type[_Content], path: Path) -> _Content:
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        mend = "remove it, and start the server again"
        raise IntegrityError(f"{path} cannot be read", [Problem(str(error), mend=mend)]) from error
