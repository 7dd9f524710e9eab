"""The engine of one machine: rows in this process, pictures in child processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self

from data_prep.decoding.pool import DecoderPool
from data_prep.decoding.work import Request, module_of
from data_prep.refusal import Flaw
from data_prep.screening import Screening
from data_prep.sources.source import Found
from lensmith.images import ImageLimits
from lensmith.recipe import Recipe


class LocalEngine:
    """See `Engine`. A context manager: leaving it ends the children."""

    def __init__(self, recipe: Recipe, limits: ImageLimits) -> None:
        self._recipe, self._limits = recipe, limits
        self._pool: DecoderPool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.close()

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the children that run now."""
        return () if self._pool is None else self._pool.pids

    def screen(self, batches: Iterable[list[Found]]) -> Iterator[list[Found]]:
        """Raises InputError where the recipe's schema of answers cannot be used."""
        screening = Screening(self._recipe)
        for batch in batches:
            yield [screening.screen(found) for found in batch]

    def look(self, work: str, requests: Iterable[Request]) -> Iterator[Any | Flaw]:
        """Starts no children where there is nothing to look at. Raises PoolBroken."""
        yield from self._children(work).facts(requests, work)

    def _children(self, work: str) -> DecoderPool:
        """The children of the last call where their module has this work too."""
        if self._pool is None or module_of(work) != module_of(self._pool.work):
            if self._pool is not None:
                self._pool.close()
            self._pool = DecoderPool(self._limits, work=work)
        return self._pool
