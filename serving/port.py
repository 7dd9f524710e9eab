"""A port of this machine: whether it is free, and who listens on it."""

from __future__ import annotations

import contextlib
import errno
import shlex
import socket

import psutil

from lensmith.errors import InputError, Problem
from lensmith.process import stated_owner

_SHOWN = 120


def check_port(host: str, port: int) -> None:
    """Raise InputError where another program listens on the port, with its number and command."""
    with _socket(host) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            held = error.errno == errno.EADDRINUSE
            problems = [_held_by(each) for each in listeners(port)] if held else []
            mend = "stop what listens there, or give another with --port"
            raise InputError(
                f"port {port} of {host} cannot be used",
                problems or [Problem(error.strerror or str(error), mend=mend)],
            ) from error


def free_port(host: str) -> int:
    """A port of `host` that nobody listens on now."""
    with _socket(host) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def listeners(port: int) -> list[psutil.Process]:
    """The processes that listen on `port` of any address; those of other users are not seen."""
    found: dict[int, psutil.Process] = {}
    for each in psutil.net_connections("tcp"):
        if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port and each.pid:
            with contextlib.suppress(psutil.NoSuchProcess):
                found[each.pid] = psutil.Process(each.pid)
    return list(found.values())


def _held_by(process: psutil.Process) -> Problem:
    try:
        process = _server_of(process)
        command = shlex.join(process.cmdline())
    except psutil.Error:
        command = "?"
    shown = command if len(command) <= _SHOWN else f"{command[:_SHOWN]} ..."
    mend = f"kill {process.pid}, or give another with --port"
    return Problem(f"process {process.pid} listens there: {shown}", mend=mend)


def _server_of(process: psutil.Process) -> psutil.Process:
    """The program of ours that started an engine; any other process is its own."""
    supervisor = process.parent()
    if supervisor is None or stated_owner(supervisor.cmdline()) is None:
        return process
    return supervisor.parent() or process


def _socket(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
