"""The cluster: the one that RAY_ADDRESS names, or one on this machine, for as long as it is needed."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import secrets
import signal
import tempfile
import threading
from collections.abc import Iterator

import psutil

from lensmith.errors import InputError, Problem

# How long a cluster of our own may take to end by itself, in seconds.
_END_S = 20.0
# Shared memory of a cluster of our own, in bytes; what does not fit goes to disk.
_STORE_BYTES = 1_000_000_000
# Before Ray is imported. Nothing is told to anyone; a cluster of our own hears this machine only, whatever
# its system, and only who knows its token.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
_ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Use a cluster inside the block; what was started for it is ended with it.

    Raises InputError where Ray is not installed, or nothing answers at RAY_ADDRESS.
    """
    if importlib.util.find_spec("ray") is None:
        problem = Problem("ray is not installed", "data.engine: ray", "pip install 'lensmith[ray]'")
        raise InputError("this engine needs another library", [problem])
    address = os.environ.get("RAY_ADDRESS", "")
    os.environ.update(_QUIET)
    if not address:
        os.environ.update(_ALONE, RAY_AUTH_TOKEN=secrets.token_hex())
    import ray

    if ray.is_initialized():
        # Whoever connected this process ends it.
        yield
        return
    with contextlib.ExitStack() as stack:
        stack.callback(ray.shutdown)
        with _signals_kept():
            if address:
                _join(address)
            else:
                # Not where TMPDIR points: the path of a socket may have 107 bytes.
                folder = tempfile.TemporaryDirectory(
                    prefix="lensmith-", dir="/tmp", ignore_cleanup_errors=True
                )
                started = _start(stack.enter_context(folder))
                # In front of the folder: what runs there ends first.
                stack.callback(_end, started)
        yield


def _join(address: str) -> None:
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError) as error:
        problem = Problem(
            str(error).splitlines()[0], f"RAY_ADDRESS={address}", "start it, or unset RAY_ADDRESS"
        )
        raise InputError("there is no Ray cluster to work on", [problem]) from error


def _start(folder: str) -> list[psutil.Process]:
    """The processes of the cluster: what was started."""
    import ray

    before = set(psutil.Process().children(recursive=True))
    ray.init(
        # Never one that somebody else's session left on this machine.
        address="local",
        num_cpus=len(os.sched_getaffinity(0)),
        object_store_memory=_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=folder,
    )
    return [each for each in psutil.Process().children(recursive=True) if each not in before]


def _end(started: list[psutil.Process]) -> None:
    """End the cluster; its processes are gone then, so that nothing writes into its folder any more."""
    import ray

    ray.shutdown()
    _, left = psutil.wait_procs(started, timeout=_END_S)
    for each in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(left, timeout=_END_S)


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself: give it back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def cores() -> int:
    """How many cores the cluster has, at least 1."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def machines() -> int:
    """How many machines the cluster has."""
    import ray

    return len({node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]})
