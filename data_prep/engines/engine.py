"""What preparation asks of an engine, and the engine that a recipe names.

Reading sources, the workbook and every decision stay with the caller; an engine only does work that looks
at one row or one picture at a time, so that what it is cannot change what comes out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from data_prep.decoding.work import Request
from data_prep.engines.local import LocalEngine
from data_prep.engines.ray_cluster import connected
from data_prep.engines.ray_data import RayEngine
from data_prep.refusal import Flaw
from data_prep.sources.source import Found
from lensmith.images import ImageLimits
from lensmith.recipe import Recipe


class Engine(Protocol):
    """Both methods answer in the order of what they are given, and take only some of it ahead."""

    def screen(self, batches: Iterable[list[Found]]) -> Iterator[list[Found]]:
        """Every batch of rows as `Screening.screen` gives it."""
        ...

    def look(self, work: str, requests: Iterable[Request]) -> Iterator[Any | Flaw]:
        """For each picture what `work` (see `DecoderPool`) gives, or the Flaw for which it is refused."""
        ...


@contextlib.contextmanager
def open_engine(recipe: Recipe, limits: ImageLimits) -> Iterator[Engine]:
    """The engine of `data.engine`; what it started is ended with the block.

    Raises InputError where a cluster is asked for and there is none.
    """
    with LocalEngine(recipe, limits) as local:
        if recipe.data.engine == "local":
            yield local
            return
        with connected():
            yield RayEngine(recipe, limits, local)
