"""Addresses of stores, as fsspec writes them: s3://bucket/folder, sftp://host/folder, zip://a::file:///b.zip.

What goes over plain http(s) is no address here: pictures from the web have a guarded way of their own.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lensmith.errors import InputError, LensmithError, Problem
from lensmith.files import is_disk_full

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

_FORM = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*(://|::)")
_REFUSED = ("http", "https")


@dataclass(frozen=True)
class Store:
    """An opened address: the file system, and the path there, without a / at its end."""

    fs: AbstractFileSystem
    root: str
    address: str

    def path(self, relative: str) -> str:
        """The path of a file below the root, given relative, POSIX."""
        return f"{self.root}/{relative}" if self.root else relative


def is_address(text: str) -> bool:
    """Whether `text` is the address of a store, and no path."""
    return _FORM.match(text) is not None


def checked_address(text: str) -> str:
    """The address. Raises ValueError for one by http(s), with a password in it, or that leans on a folder."""
    parts = text.split("::")
    for part in parts:
        protocol = part.partition("://")[0].lower()
        if protocol in _REFUSED:
            raise ValueError(f"an address by {protocol} is not read: copy it to a store, or to a folder")
        if "://" in part and urlsplit(part).password is not None:
            raise ValueError("a password does not belong here: give it to the store's own configuration")
    if "://" not in parts[-1]:
        raise ValueError(f"{parts[-1]!r} is no address: begin it with file:// or another store's name")
    return text


def open_store(address: str) -> Store:
    """The store at `address`. Raises InputError where it is no address, or its library is missing."""
    import fsspec

    try:
        # Another call may come after the store has changed: nothing of an earlier one is known.
        fs, root = fsspec.url_to_fs(checked_address(address), skip_instance_cache=True)
    except ImportError as error:
        problem = Problem("the store's library is not installed", address, str(error))
        raise InputError("this store needs another library", [problem]) from error
    except (ValueError, OSError) as error:
        raise InputError("the address cannot be used", [Problem(str(error), address)]) from error
    return Store(fs, root.rstrip("/"), address)


@contextlib.contextmanager
def reaching(address: str) -> Iterator[None]:
    """Raise InputError for whatever a store raises inside: each library has errors of its own."""
    try:
        yield
    except LensmithError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise
        what = f"{type(error).__name__}: {error}"[:300]
        raise InputError("the store could not be read or written", [Problem(what, address)]) from error


def plain_name(path: str) -> str:
    """A relative path from outside, checked. Raises InputError where it would leave its folder."""
    parts = path.split("/")
    if not path or "\0" in path or "\\" in path or any(part in ("", ".", "..") for part in parts):
        raise InputError("a file's name leads out of its folder", [Problem("is not plain", repr(path)[:200])])
    return path


def files_below(store: Store, folder: str) -> dict[str, dict[str, Any]]:
    """What the store says of every plain file below `folder`, by relative path; links are no plain files.

    Raises InputError where a name leads out of the folder.
    """
    found = store.fs.find(folder, detail=True)
    assert isinstance(found, dict)
    return {
        plain_name(path.removeprefix(folder).lstrip("/")): facts
        for path, facts in found.items()
        if facts["type"] == "file"
    }
