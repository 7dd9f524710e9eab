"""Ports: free or not, and who listens there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import psutil
import pytest

from lensmith.errors import InputError
from serving.port import check_port, free_port
from tests.conftest import ROOT

# Starts a program that listens, as a server starts its engine, and waits.
SERVER = """
import sys
from lensmith.process import run_child
run_child([sys.executable, "-c", sys.argv[1]], stdout=sys.stdout).wait()
"""
LISTENER = """
import socket, time
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    time.sleep(600)
"""


def test_a_port_that_someone_listens_on_is_refused_with_who_it_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} of 127.0.0.1 cannot be used") as caught:
            check_port("127.0.0.1", port)
    (problem,) = caught.value.problems
    assert problem.what.startswith(f"process {os.getpid()} listens there: ")
    assert problem.mend == f"kill {os.getpid()}, or give another with --port"
    check_port("127.0.0.1", free_port("127.0.0.1"))


def test_of_an_engine_its_server_is_told() -> None:
    """Killing the engine alone would make its server fail, and a supervisor that is killed end nothing."""
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, LISTENER], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        with pytest.raises(InputError) as caught:
            check_port("127.0.0.1", port)
        assert f"process {server.pid} listens there" in str(caught.value)
    finally:
        family = psutil.Process(server.pid).children(recursive=True)
        server.kill()
        server.wait()
    psutil.wait_procs(family, 30)


def test_an_address_of_another_machine_is_told_as_it_is() -> None:
    # TEST-NET-1, RFC 5737: nobody's.
    with pytest.raises(InputError, match="cannot be used") as caught:
        check_port("192.0.2.1", 8000)
    (problem,) = caught.value.problems
    assert "requested address" in problem.what
