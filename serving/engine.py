"""A running vLLM: started on an address of this machine, watched until healthy, stopped without remains."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from lensmith.artifact import Artifact, verify
from lensmith.base import verify_base
from lensmith.errors import InputError, Problem
from lensmith.home import Home
from lensmith.process import run_child, stop_tree
from serving.advisories import Hit, find_hits, refuse_open, refuse_uncovered
from serving.build import installed_engine
from serving.command import engine_argv, engine_environment
from serving.hardware import read_hardware
from serving.lint import refuse_unsafe
from serving.orphans import wait_for_orphans
from serving.port import check_port, free_port
from serving.profile import find_places, read_profile
from serving.profile_file import Profile

_POLL_S = 0.2
# Engines speak plain HTTP. Without this every client reads all certificates of the system: 60 ms each time.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
# Loading weights from a slow disk dominates; 30 minutes is what vLLM's own Kubernetes examples allow.
START_LIMIT_S = 1800.0
# vLLM ends its engine process within a few seconds of SIGTERM.
STOP_GRACE_S = 20.0
_TAIL_LINES = 12
_ERROR = re.compile(r"\b\w*(?:Error|Exception)\b: .+")


@dataclass(frozen=True)
class Engine:
    """A healthy engine. url: without a path. model_name: what requests ask for. pid: its supervisor.

    token: what a request to load or unload an adapter has to show; "" where the engine takes none.
    advisories: what is known against its version.
    """

    url: str
    model_name: str
    version: str
    log: Path
    pid: int
    token: str = field(default="", repr=False)
    advisories: tuple[Hit, ...] = ()

    def alive(self) -> bool:
        """Whether the process is still there."""
        try:
            return psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def stopped(self, what: str) -> InputError:
        """The error for an engine that ended by itself while `what`, with the last lines of its log."""
        return InputError(f"vLLM stopped {what}", log_problems(self.log))


@contextlib.contextmanager
def running_engine(
    artifact: Artifact,
    home: Home,
    port: int = 0,
    *,
    proof: bool = False,
    live: bool = False,
    host: str | None = None,
    start_limit_s: float = START_LIMIT_S,
) -> Iterator[Engine]:
    """Start vLLM for a profile artifact and stop it, with every process it made, when the block ends.

    port: 0 takes a free one. proof: caches off, loopback address. live: the base alone, and a token with
    which adapters are loaded. host: another address than the profile's (`proof` has its own). The engine
    dies with this process, however that ends; the end of those that killed ones left is awaited. Raises
    IntegrityError where the profile or the weights were changed, InputError where the port is in use, such an
    engine does not end, a setting is not safe, nobody looked what is known against a vLLM so old, it has a
    known vulnerability that none keeps out and other machines reach it, the engine dies or is not healthy
    after `start_limit_s` seconds.
    """
    version = installed_engine().version
    refuse_uncovered(version)
    profile = read_profile(artifact)
    _verify_weights(profile, home)
    places = find_places(artifact, profile, home)
    if host is not None:
        profile = profile.model_copy(update={"host": host})
    host = "127.0.0.1" if proof else profile.host
    # One of this very port, or of this GPU's memory, may be about to end.
    wait_for_orphans()
    if port:
        check_port(host, port)
    else:
        port = free_port(host)
    argv = engine_argv(profile, places, port, proof=proof, live=live)
    token = secrets.token_urlsafe(32) if live else ""
    environment = engine_environment(profile, os.environ, proof=proof, token=token)
    refuse_unsafe(argv, environment, read_hardware().memory)
    hits = find_hits(version, argv, environment)
    refuse_open(host, hits)
    log = home.root / "logs" / f"vllm-{artifact.id[:12]}-{os.getpid()}-{port}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        process = run_child(
            argv,
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://{_reachable(host)}:{port}"
        version = _wait_healthy(process, url, log, start_limit_s)
        yield Engine(url, profile.served_name, version, log, process.pid, token, tuple(hits))
    finally:
        stop_tree(process, STOP_GRACE_S)


def _verify_weights(profile: Profile, home: Home) -> None:
    for artifact_id in {profile.subject, profile.base} if profile.mode == "adapter" else {profile.subject}:
        artifact = home.by_id(artifact_id)
        if artifact.kind == "base":
            verify_base(artifact)
        else:
            verify(artifact)


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)


def _wait_healthy(process: subprocess.Popen[bytes], url: str, log: Path, limit_s: float) -> str:
    """Wait until the server answers; gives the version it states."""
    deadline = time.monotonic() + limit_s
    with httpx.Client(trust_env=False, timeout=5.0, verify=NO_TLS) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise InputError(
                    f"vLLM did not start (exit code {process.returncode})",
                    [*log_problems(log), Problem("the whole log", str(log))],
                )
            try:
                if client.get(f"{url}/health").status_code == httpx.codes.OK:
                    return str(client.get(f"{url}/version").json()["version"])
            except httpx.TransportError:
                pass
            time.sleep(_POLL_S)
    raise InputError(
        f"vLLM was not ready after {limit_s:.0f} s", [*log_problems(log), Problem("the whole log", str(log))]
    )


def log_problems(log: Path) -> list[Problem]:
    """The errors that a log names, each once, then its last lines."""
    lines = log.read_text(errors="replace").splitlines()
    errors = dict.fromkeys(found.group(0)[:300] for line in lines if (found := _ERROR.search(line)))
    tail = [line[:300] for line in lines[-_TAIL_LINES:] if line.strip()]
    return [Problem(text) for text in [*list(errors)[:4], *tail]]
