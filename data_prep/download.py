"""Fetching images by http(s), from hosts that the recipe names and from nowhere inside this network."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urljoin

from data_prep.addresses import Network, Target, Unfit, check_addresses, parse
from data_prep.refusal import Flaw, quoted

_TYPES = (
    "image/png",
    "image/jpeg",
    "image/webp",
    "image/tiff",
    "image/bmp",
    "image/x-ms-bmp",
    "image/gif",
    # What object stores say of files whose type nobody told them; the decoder looks at the content anyway.
    "application/octet-stream",
    "binary/octet-stream",
)
_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK_BYTES = 1 << 16

# Every address that a name stands for now, as text: IPv4 or IPv6.
Resolver = Callable[[str, int], list[str]]


@dataclass(frozen=True)
class DownloadPolicy:
    """What a recipe allows to fetch.

    `hosts` are exact names, with a port where it is not the scheme's own ("images.example.org:8443").
    `networks` lifts the ban on addresses inside.
    """

    hosts: frozenset[str]
    schemes: tuple[str, ...] = ("https",)
    networks: tuple[Network, ...] = ()
    types: tuple[str, ...] = _TYPES
    max_bytes: int = 50_000_000
    max_redirects: int = 3
    connect_seconds: float = 10.0
    total_seconds: float = 60.0


@dataclass(frozen=True)
class Downloaded:
    """A fetched file: where it lies, its bytes, and whether it was there before."""

    path: Path
    size: int
    cached: bool


def resolve(host: str, port: int) -> list[str]:
    """The addresses of `host` as this machine sees them. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True)
class Downloader:
    """Fetches into `folder`, one file an address; a second request for an address costs nothing.

    May be used by several threads. Proxies of the environment are not used: a proxy would resolve the
    name again, where nothing checks what comes out.
    """

    policy: DownloadPolicy
    folder: Path
    resolver: Resolver = resolve
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)

    def fetch(self, url: str) -> Downloaded | Flaw:
        """The image at `url`, from the folder where it has been fetched before."""
        try:
            target = parse(url, self.policy.hosts, self.policy.schemes)
            path = self.folder / _place(target.url)
            if path.is_file():
                return Downloaded(path, path.stat().st_size, cached=True)
            data = self._follow(target)
            _keep(path, data)
        except Unfit as error:
            return Flaw("image_download", f"{quoted(url)}: {error.what}", error.mend)
        return Downloaded(path, len(data), cached=False)

    def forget(self, url: str) -> None:
        """Keep no copy of what was fetched from `url`."""
        try:
            target = parse(url, self.policy.hosts, self.policy.schemes)
        except Unfit:
            # What may not be fetched was not.
            return
        (self.folder / _place(target.url)).unlink(missing_ok=True)

    def _follow(self, target: Target) -> bytes:
        deadline = time.monotonic() + self.policy.total_seconds
        for _ in range(self.policy.max_redirects + 1):
            exchange = _Exchange(self, target, deadline)
            found = exchange.run()
            if isinstance(found, bytes):
                return found
            target = parse(found, self.policy.hosts, self.policy.schemes)
        raise Unfit(
            f"is moved more than {self.policy.max_redirects} times", "give the address where the image is"
        )

    def addresses(self, target: Target, deadline: float) -> list[str]:
        """The checked addresses of the target. Raises Unfit."""
        # The system's resolver knows no time limit: it is left behind when it takes too long.
        executor = ThreadPoolExecutor(1)
        try:
            wait = max(0.0, min(self.policy.connect_seconds, deadline - time.monotonic()))
            found = executor.submit(self.resolver, target.host, target.port).result(wait)
        except FutureTimeout:
            raise _too_slow(self.policy) from None
        except (OSError, UnicodeError) as error:
            raise Unfit(f"the name {quoted(target.host)} is not known", "correct the address") from error
        finally:
            executor.shutdown(wait=False, cancel_futures=True)
        check_addresses(target.host, found, self.policy.networks)
        return found


class _Exchange:
    """One request and its answer, under the deadline however slowly the bytes drip."""

    def __init__(self, downloader: Downloader, target: Target, deadline: float) -> None:
        self._downloader = downloader
        self._policy = downloader.policy
        self._target = target
        self._deadline = deadline
        self._late = threading.Event()

    def run(self) -> bytes | str:
        """The body, or the address to which the image has moved. Raises Unfit."""
        addresses = self._downloader.addresses(self._target, self._deadline)
        raw = self._connect(addresses)
        # A second handle on the connection: it can be cut while TLS or HTTP waits on the first.
        with raw.dup() as knife:
            timer = threading.Timer(max(0.0, self._deadline - time.monotonic()), self._cut, [knife])
            timer.daemon = True
            timer.start()
            try:
                return self._ask(raw)
            except ssl.SSLCertVerificationError as error:
                mend = "tell whoever runs the server"
                raise Unfit(f"its certificate is not right: {error.verify_message}", mend) from error
            except (OSError, http.client.HTTPException, ValueError) as error:
                if self._late.is_set():
                    raise _too_slow(self._policy) from error
                mend = "try again, or hand over the file itself"
                raise Unfit(f"the connection failed ({type(error).__name__})", mend) from error
            finally:
                timer.cancel()
                timer.join()
                raw.close()

    def _cut(self, knife: socket.socket) -> None:
        self._late.set()
        try:
            knife.shutdown(socket.SHUT_RDWR)
        except OSError:
            # The server was quicker.
            return

    def _connect(self, addresses: list[str]) -> socket.socket:
        """A connection to the first of the checked addresses that answers: to these, not to the name."""
        for address in addresses:
            left = min(self._policy.connect_seconds, self._deadline - time.monotonic())
            if left <= 0:
                raise _too_slow(self._policy)
            try:
                raw = socket.create_connection((address, self._target.port), timeout=left)
            except OSError:
                continue
            raw.settimeout(self._policy.total_seconds)
            return raw
        raise Unfit("no server answers there", "try again, or hand over the file itself")

    def _ask(self, raw: socket.socket) -> bytes | str:
        target = self._target
        connection = http.client.HTTPConnection(target.host, target.port)
        # The certificate must be the name's, whatever address it has.
        connection.sock = (
            self._downloader.tls.wrap_socket(raw, server_hostname=target.host)
            if target.scheme == "https"
            else raw
        )
        try:
            headers = {"Accept": ", ".join(self._policy.types), "Accept-Encoding": "identity"}
            connection.request("GET", target.path, headers=headers)
            with connection.getresponse() as answer:
                if self._late.is_set():
                    # What there is of a head that was cut reads like a whole one.
                    raise http.client.IncompleteRead(b"")
                if answer.status in _REDIRECTS and (where := answer.getheader("Location")):
                    return urljoin(target.url, where)
                self._check_head(answer)
                return self._body(answer)
        finally:
            connection.close()

    def _check_head(self, answer: http.client.HTTPResponse) -> None:
        if answer.status != http.client.OK:
            raise Unfit(
                f"the server answers {answer.status}", "correct the address, or hand over the file itself"
            )
        kind = (answer.getheader("Content-Type") or "").partition(";")[0].strip().lower()
        if kind not in self._policy.types:
            raise Unfit(
                f"the server sends {quoted(kind)}, not an image", "give the address of the image itself"
            )
        # A packed answer could unpack to anything.
        if (answer.getheader("Content-Encoding") or "identity").strip().lower() != "identity":
            raise Unfit("the server packs what it sends", "hand over the file itself")
        if answer.length is not None and answer.length > self._policy.max_bytes:
            raise self._too_large()

    def _body(self, answer: http.client.HTTPResponse) -> bytes:
        parts = []
        size = 0
        while part := answer.read(_CHUNK_BYTES):
            parts.append(part)
            size += len(part)
            if size > self._policy.max_bytes:
                raise self._too_large()
        # An end before the stated length is an end by the timer, or a broken connection.
        if self._late.is_set() or answer.length:
            raise http.client.IncompleteRead(b"")
        return b"".join(parts)

    def _too_large(self) -> Unfit:
        return Unfit(f"more than {self._policy.max_bytes:,} bytes", "save the image smaller")


def _too_slow(policy: DownloadPolicy) -> Unfit:
    return Unfit(
        f"takes more than {policy.total_seconds:g} seconds", "try again, or hand over the file itself"
    )


def _place(url: str) -> Path:
    digest = hashlib.sha256(url.encode()).hexdigest()
    return Path(digest[:2]) / digest


def _keep(path: Path, data: bytes) -> None:
    """Write the whole file or none: a name in the cache means complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, unfinished = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(descriptor)
        Path(unfinished).replace(path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise
