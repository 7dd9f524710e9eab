"""What each worker of a cluster does with the batches it gets. Knows nothing of the cluster itself."""

from __future__ import annotations

import platform
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from data_prep.decoding.pool import DecoderPool
from data_prep.decoding.work import Drawing, Request
from data_prep.refusal import Flaw
from data_prep.screening import Screening
from data_prep.sources.source import Found
from lensmith.errors import InputError, Problem
from lensmith.images import ImageLimits
from lensmith.provenance import code_digest, package_versions
from lensmith.recipe import Recipe

# Whatever sees rows and pictures: another version may see another thing.
_PACKAGES = ("pillow", "numpy", "xxhash", "isal", "jsonschema", "regex", "phonenumbers", "pydantic")
_PROGRAM = "data_prep.prepare"

Stamp = tuple[int, int]
_NOTHING: Stamp = (-1, -1)


class Station(Protocol):
    """Made once a worker, where it works."""

    def __call__(self, batch: list[Any]) -> Iterator[Any]:
        """The answers to a batch, in order."""
        ...


@dataclass(frozen=True)
class NotHere:
    """The answer to a picture whose file is not on the worker's machine, or is another one there."""


@dataclass(frozen=True)
class Sent:
    """A picture on its way; stamp: size in bytes and time of change of its file where it was sent."""

    request: Request
    stamp: Stamp | None

    @classmethod
    def of(cls, request: Request) -> Sent:
        """With the stamp of the file that the request names, None where it carries the picture itself."""
        return cls(request, _stamp(request))

    def is_here(self) -> bool:
        """Whether this machine has what was sent."""
        return self.stamp is None or (self.stamp != _NOTHING and _stamp(self.request) == self.stamp)


def _stamp(request: Request) -> Stamp | None:
    source = request.source
    if isinstance(source, bytes):
        return None
    try:
        facts = (source.file if isinstance(source, Drawing) else source).stat()
    except OSError:
        return _NOTHING
    return facts.st_size, facts.st_mtime_ns


class RowStation:
    """Screens rows. A batch is a `list[Found]`; its one answer is the list screened."""

    def __init__(self, recipe: Recipe) -> None:
        self._screening = Screening(recipe)

    def __call__(self, batch: list[Found]) -> Iterator[list[Found]]:
        """Every row of the batch, screened."""
        yield [self._screening.screen(found) for found in batch]


class PictureStation:
    """Looks at pictures. A batch is a `list[Sent]`; each has an answer of its own."""

    def __init__(self, work: str, limits: ImageLimits) -> None:
        # One child: the cluster counts this worker as one core. A deadly picture costs the child only.
        self._pool = DecoderPool(limits, work=work, workers=1)

    def __call__(self, batch: list[Sent]) -> Iterator[Any | Flaw | NotHere]:
        """Raises PoolBroken."""
        here = [sent.is_here() for sent in batch]
        answers = self._pool.facts(sent.request for sent, found in zip(batch, here, strict=True) if found)
        for found in here:
            yield next(answers) if found else NotHere()
        # Asked once more than it answers, the pool is free for the next batch.
        next(answers, None)


def versions() -> dict[str, str]:
    """What must be the same wherever a dataset is made."""
    return {
        "lensmith's code": code_digest(_PROGRAM)[:12],
        "Python": platform.python_version(),
        **package_versions(_PACKAGES),
    }


def check_versions(wanted: dict[str, str]) -> None:
    """Raises InputError where this machine has other versions: the dataset would hang on who did what."""
    found = versions()
    problems: Sequence[Problem] = [
        Problem(f"{name} is {found[name]}, {version} here", socket.gethostname(), "install the same")
        for name, version in wanted.items()
        if found[name] != version
    ]
    if problems:
        raise InputError("a machine of the cluster has other versions", problems)
