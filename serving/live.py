"""Adapters that come and go beside a running base: served together, loaded, unloaded, told.

Every change is checked before the engine hears of it, and by the engine's own answers after; what is live is
on disk when it is done. Killed anywhere, the same call again finishes it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from lensmith.artifact import Artifact
from lensmith.errors import GateRefused, InputError, Problem
from lensmith.home import Home
from serving.advisories import start_lines
from serving.build import installed_engine
from serving.command import LIVE_BASE
from serving.engine import NO_TLS, Engine, running_engine
from serving.fleet import Engineering, Member, engineering, read_members
from serving.guard import TOKEN_HEADER
from serving.live_check import check_live
from serving.live_state import LiveState, Server, find_state, port_of
from serving.profile import find_places, images_differ
from serving.release_file import read_release
from serving.serve import check_address, check_version

_POLL_S = 0.5
# Reading an adapter from a slow disk into every worker.
_LOAD_LIMIT_S = 600.0
_KEY = "VLLM_API_KEY"
# lora/ops/torch_ops/lora_ops.py: a row without an adapter, number -1, is given the last slot's.
_CPU_BASE = "vLLM 0.32 built for cpu, vllm#48421"


@dataclass(frozen=True)
class Standing:
    """An adapter as it stands. unchecked: in the engine, by a load that was ended midway; missing: by our
    files live, and not in the engine; waiting: no server runs, the next one loads it."""

    name: str
    release: str
    state: Literal["live", "unchecked", "missing", "waiting"]


def serve_live(
    home: Home, releases: Sequence[Artifact], port: int | None = None, *, as_json: bool = False
) -> int:
    """Serve the base with the adapters of `releases`, and with those that were live on this port before.

    In the foreground, as `serving.serve.serve`; starts with all of them or not at all. Of two releases of one
    name the given one is served. Raises what `read_members` and `serving.serve.serve` raise, and GateRefused
    where an adapter does not answer as its proof says.
    """
    profile = home.by_id(read_release(releases[0]).profile)
    shared = engineering(profile)
    check_version(shared.profile, home)
    check_address(shared.profile)
    asked = shared.profile.port if port is None else port
    given = {read_release(each).name: each for each in releases}
    before = {} if asked == 0 else LiveState(home, asked).wanted
    again = {name: _kept(home, name, release) for name, release in before.items() if name not in given}
    members = read_members(home, [*releases, *again.values()], shared, installed_engine().version)
    if known := images_differ(shared.profile.family, shared.profile.engine.device):
        print(f"answers about images differ from the trained model's: {known}", file=sys.stderr)
    if shared.profile.engine.device == "cpu":
        print(f"{LIVE_BASE}, asked while adapters are, answers as one of them: {_CPU_BASE}", file=sys.stderr)
    with running_engine(profile, home, asked, live=True) as engine:
        for told in start_lines(engine.version, engine.advisories):
            print(told, file=sys.stderr)
        state = LiveState(home, port_of(engine.url))
        try:
            with _changing(home, state):
                state.opened(engine, profile)
                for member in members:
                    _load(state, state.server(), member)
                _check(home, engine, profile, members, [])
                state.want({member.name: member.release.id for member in members})
            print(_reach(engine, members) if as_json else _greeting(engine, members), flush=True)
            while engine.alive():
                time.sleep(_POLL_S)
            raise engine.stopped("by itself")
        finally:
            state.closed()


def load_adapter(home: Home, release: Artifact, port: int | None = None) -> Member:
    """Load a release's adapter into the live server of `port`; None: the only one of this home.

    It answers under its name while it is checked, and is unloaded again where its answers are not those of
    its proof: GateRefused. Raises InputError also where its name is taken, or was another release's since the
    engine started and images might be remembered as that one's tower saw them; see `read_members`.
    """
    state = find_state(home, port)
    with _changing(home, state):
        server = state.server()
        profile = home.by_id(server.profile)
        shared, name = engineering(profile), read_release(release).name
        wanted = state.wanted
        if wanted.get(name, release.id) != release.id:
            problem = Problem(f"is live as release {wanted[name][:12]}", name, f"lensmith unload {name}")
            raise InputError("an adapter of this name is live", [problem])
        old = {each: release_id for each, release_id in wanted.items() if each != name}
        neighbours = [_kept(home, each, release_id) for each, release_id in old.items()]
        *others, member = read_members(home, [*neighbours, release], shared, server.version)
        _check_unused(server, shared, member)
        there = _loaded(server)
        if name in there and there[name] != str(member.folder):
            # What a killed load of another release left.
            _unload(server, name)
            del there[name]
        if name not in there:
            _load(state, server, member)
        try:
            _check(home, server.engine, profile, [member], others)
        except BaseException:
            with contextlib.suppress(InputError):
                _unload(server, name)
            raise
        state.want({**old, name: release.id})
        return member


def unload_adapter(home: Home, name: str, port: int | None = None) -> None:
    """Take the adapter called `name` out of the live server, and out of what the next start loads.

    Also where no server runs. Raises InputError where there is no such adapter, with those that there are.
    """
    state = find_state(home, port)
    with _changing(home, state):
        wanted, server = state.wanted, state.find_server()
        there = _loaded(server) if server else {}
        if name not in wanted and name not in there:
            known = [Problem("is live", each) for each in sorted(wanted.keys() | there.keys())]
            raise InputError(f"no adapter is called {name!r} on port {state.port}", known)
        if server and name in there:
            _unload(server, name)
        state.want({each: release for each, release in wanted.items() if each != name})


def standing(home: Home, port: int | None = None) -> tuple[str, list[Standing]]:
    """The address of the live server ("" where none runs) and its adapters, by name."""
    state = find_state(home, port)
    wanted, server = state.wanted, state.find_server()
    if server is None:
        return "", [Standing(name, release, "waiting") for name, release in sorted(wanted.items())]
    there = _loaded(server)
    found = [
        Standing(name, release, "live" if name in there else "missing") for name, release in wanted.items()
    ]
    found += [Standing(name, server.used.get(name, ""), "unchecked") for name in there if name not in wanted]
    return server.url, sorted(found, key=lambda each: each.name)


@contextlib.contextmanager
def _changing(home: Home, state: LiveState) -> Iterator[None]:
    """One change of a server's adapters at a time."""
    with home.locked(f"live-{state.port}"):
        yield


def _kept(home: Home, name: str, release: str) -> Artifact:
    try:
        return home.by_id(release)
    except InputError as error:
        problem = Problem(f"release {release[:12]} is gone", name, f"restore it, or lensmith unload {name}")
        raise InputError("what was live before cannot be loaded again", [problem]) from error


def _check(
    home: Home, engine: Engine, profile: Artifact, new: Sequence[Member], old: Sequence[Member]
) -> None:
    places = find_places(profile, engineering(profile).profile, home)
    findings = check_live(home, engine, places, new, old, os.environ.get(_KEY, ""))
    if findings:
        names = ", ".join(member.name for member in new)
        problems = [Problem(each) for each in findings]
        raise GateRefused(f"what the engine answers is not what was proven; not live: {names}", problems)


def _check_unused(server: Server, shared: Engineering, member: Member) -> None:
    """vLLM 0.32 keeps what a tower made of an image under the adapter's name (v1/engine/input_processor.py):
    another adapter of that name would be given it."""
    adapter = shared.profile.adapter
    before = server.used.get(member.name, member.release.id)
    if adapter is None or not adapter.tower_connector or before == member.release.id:
        return
    what = f"was release {before[:12]} before, and vLLM remembers images as its tower saw them"
    raise InputError(
        f"{member.release.short} cannot be loaded under this name now",
        [Problem(what, member.name, "stop the server and start it with this release")],
    )


def _load(state: LiveState, server: Server, member: Member) -> None:
    # Before the engine has it: whatever ends this process, the name counts as used.
    used = {**server.used, member.name: member.release.id}
    state.note(server.model_copy(update={"used": used}))
    body = {"lora_name": member.name, "lora_path": str(member.folder)}
    try:
        _post(server, "/v1/load_lora_adapter", body, f"vLLM did not load {member.release.short}")
    except InputError:
        # A killed load may have been under way in the engine, which refuses a name that it has by now.
        if _loaded(server).get(member.name) != str(member.folder):
            raise


def _unload(server: Server, name: str) -> None:
    _post(server, "/v1/unload_lora_adapter", {"lora_name": name}, f"vLLM did not unload {name}")


def _post(server: Server, path: str, body: Mapping[str, Any], failed: str) -> None:
    headers = {**_authorization(), TOKEN_HEADER: server.token}
    try:
        reply = httpx.post(
            server.url + path,
            json=body,
            headers=headers,
            timeout=_LOAD_LIMIT_S,
            trust_env=False,
            verify=NO_TLS,
        )
    except httpx.TransportError as error:
        problem = Problem(f"{type(error).__name__} {error}", server.url, f"look into {server.log}")
        raise InputError(failed, [problem]) from error
    if reply.status_code != httpx.codes.OK:
        raise InputError(failed, [Problem(f"{reply.status_code}: {reply.text[:300]}", server.url)])


def _loaded(server: Server) -> dict[str, str]:
    """The folders of the adapters in the engine, by name. Raises InputError where it does not answer."""
    try:
        reply = httpx.get(
            f"{server.url}/v1/models", headers=_authorization(), timeout=30.0, trust_env=False, verify=NO_TLS
        )
    except httpx.TransportError as error:
        problem = Problem(f"{type(error).__name__} {error}", server.url, f"look into {server.log}")
        raise InputError("the live server does not answer", [problem]) from error
    if reply.status_code == httpx.codes.UNAUTHORIZED:
        problem = Problem(f"{_KEY} is not the server's", server.url, "set it as where the server was started")
        raise InputError("the live server does not know us", [problem])
    return {each["id"]: each["root"] for each in reply.json()["data"] if each["id"] != LIVE_BASE}


def _authorization() -> dict[str, str]:
    key = os.environ.get(_KEY)
    return {"Authorization": f"Bearer {key}"} if key else {}


def _reach(engine: Engine, members: Sequence[Member]) -> str:
    """The greeting for programs."""
    adapters = {member.name: member.release.id for member in members}
    advisories = [each.facts() for each in engine.advisories]
    told = {"url": engine.url, "model": LIVE_BASE, "adapters": adapters, "log": str(engine.log)}
    return json.dumps(told | {"advisories": advisories})


def _greeting(engine: Engine, members: Sequence[Member]) -> str:
    names = ", ".join(member.name for member in members)
    return (
        f"serving {names} beside {LIVE_BASE} at {engine.url}/v1 (vLLM {engine.version}; log: {engine.log})\n"
        "lensmith load RELEASE and lensmith unload NAME change what is live; lensmith live tells it.\n"
        "Ctrl-C stops it."
    )
