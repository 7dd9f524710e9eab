"""The engine of several machines: the stations' work in actors of Ray Data.

Only the functions of this module and of `ray_cluster` import Ray, and only `data.engine: ray` calls them.

Batches are handed to Ray some hundred at a time, a chunk, so that neither this process nor the cluster holds
more than that of what is to come; what comes out of a chunk is read while it is worked on. An actor that dies
is started again and its batches are done again, by Ray.
"""

from __future__ import annotations

import functools
import logging
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_prep.decoding.work import PoolBroken, Request, read_file
from data_prep.engines.local import LocalEngine
from data_prep.engines.ray_cluster import cores, machines
from data_prep.engines.stations import (
    NotHere,
    PictureStation,
    RowStation,
    Sent,
    Station,
    check_versions,
    versions,
)
from data_prep.refusal import Flaw
from data_prep.sources.source import Found
from lensmith.errors import LensmithError
from lensmith.images import BadImage, ImageLimits
from lensmith.recipe import Recipe

# A batch of pictures: as many, or as many bytes handed over. Ray takes some milliseconds for each batch.
_BATCH_PICTURES = 64
_BATCH_BYTES = 16_000_000
# A chunk: as many batches, or bytes of them. Starting its actors takes seconds.
_CHUNK_BATCHES = 512
_CHUNK_BYTES = 128_000_000
# The first chunk where there are several machines: it shows whether they see the files.
_FIRST_BATCHES = 16
# What an actor gathers before it hands answers on, in bytes.
_ANSWER_BYTES = 16_000_000

# Ray itself unpickles what its workers say, so ours adds no trust: they are machines of the team's own, and
# what opens hostile files is a child of theirs that answers without pickles (`decoding.frames`).
_COLUMN = "pickled"


@dataclass(frozen=True)
class _Failed:
    """A worker cannot work; `error` is raised where the work was asked for."""

    error: Exception


class _Actor:
    """A station inside Ray: tables of pickled batches in, tables of pickled answers out."""

    def __init__(self, make: Callable[[], Station], wanted: dict[str, str]) -> None:
        self._station: Station | None = None
        self._failed: _Failed | None = None
        # Told as an answer: an actor whose making fails is made again for ever.
        try:
            check_versions(wanted)
            self._station = make()
        except LensmithError as error:
            self._failed = _Failed(error)

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        ready: list[bytes] = []
        size = 0
        for batch in table[_COLUMN].to_pylist():
            for answer in self._answers(pickle.loads(batch)):
                ready.append(pickle.dumps(answer, pickle.HIGHEST_PROTOCOL))
                size += len(ready[-1])
                if size >= _ANSWER_BYTES:
                    yield _table(ready)
                    ready, size = [], 0
        yield _table(ready)

    def _answers(self, batch: list[Any]) -> Iterator[Any]:
        if self._station is None:
            yield self._failed
            return
        try:
            yield from self._station(batch)
        except (LensmithError, PoolBroken) as error:
            yield _Failed(error)


def _table(pickled: list[bytes]) -> pa.Table:
    # Large: the lengths of a plain column end at two gigabytes.
    return pa.table({_COLUMN: pa.array(pickled, pa.large_binary())})


class RayEngine:
    """See `Engine`; to be used while `ray_cluster.connected` holds the cluster.

    local: does what no worker can, because it does not have the file. wanted: the versions that every worker
    must have.
    """

    def __init__(self, recipe: Recipe, limits: ImageLimits, local: LocalEngine) -> None:
        from ray.data import DataContext

        self._recipe, self._limits, self._local = recipe, limits, local
        self.wanted = versions()
        self._files_are_seen = True
        # Importing it sets its own level, and it tells every step.
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False

    def screen(self, batches: Iterable[list[Found]]) -> Iterator[list[Found]]:
        """Raises InputError where the recipe's schema of answers cannot be used."""
        return self._map(functools.partial(RowStation, self._recipe), iter(batches), _CHUNK_BATCHES)

    def look(self, work: str, requests: Iterable[Request]) -> Iterator[Any | Flaw]:
        """Pictures in files go as paths while every worker sees the files, else with their bytes."""
        asked: deque[Request] = deque()
        batches = self._batches(requests, asked)
        first = _CHUNK_BATCHES if machines() == 1 else _FIRST_BATCHES
        for answer in self._map(functools.partial(PictureStation, work, self._limits), batches, first):
            request = asked.popleft()
            if isinstance(answer, NotHere):
                self._files_are_seen = False
                yield from self._local.look(work, [request])
            else:
                yield answer

    def _batches(self, requests: Iterable[Request], asked: deque[Request]) -> Iterator[list[Sent]]:
        """What is sent; every request is noted in `asked`."""
        batch: list[Sent] = []
        size = 0
        for request in requests:
            asked.append(request)
            batch.append(Sent.of(request if self._files_are_seen else self._with_bytes(request)))
            source = batch[-1].request.source
            size += len(source) if isinstance(source, bytes) else 0
            if len(batch) == _BATCH_PICTURES or size >= _BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _with_bytes(self, request: Request) -> Request:
        if not isinstance(request.source, Path):
            return request
        try:
            return Request(request.name, read_file(request.source, self._limits.max_bytes))
        except (OSError, BadImage):
            # No worker has it, so that it comes back here, and is refused here in the usual words.
            return request

    def _map(self, make: Callable[[], Station], batches: Iterator[list[Any]], first: int) -> Iterator[Any]:
        """Every answer to every batch, in order; the first chunk has at most `first` batches."""
        from ray.data import ActorPoolStrategy, from_arrow

        most = first
        while chunk := _next_chunk(batches, most):
            most = _CHUNK_BATCHES
            tables = from_arrow([_table([each]) for each in chunk]).map_batches(
                _Actor,
                fn_constructor_args=(make, self.wanted),
                batch_format="pyarrow",
                # A block, so one of our batches, at a time.
                batch_size=None,
                compute=ActorPoolStrategy(size=min(cores(), len(chunk))),
                num_cpus=1,
            )
            for table in tables.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
                for pickled in table[_COLUMN]:
                    answer = pickle.loads(pickled.as_buffer())
                    if isinstance(answer, _Failed):
                        raise answer.error
                    yield answer


def _next_chunk(batches: Iterator[list[Any]], most: int) -> list[bytes]:
    chunk: list[bytes] = []
    size = 0
    for batch in batches:
        chunk.append(pickle.dumps(batch, pickle.HIGHEST_PROTOCOL))
        size += len(chunk[-1])
        if len(chunk) >= most or size >= _CHUNK_BYTES:
            break
    return chunk
