"""Pictures that rows show reduced, made before the rows are judged: what is compared is what is written.

Two pictures that differ may be one once they are reduced, blank pages for instance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_prep.decoding.work import Drawing, Request
from data_prep.engines.engine import Engine
from data_prep.picture_table import Picture
from data_prep.refusal import Flaw
from data_prep.sight import STORE, reduce
from data_prep.sources.source import Source
from data_prep.workbook import Workbook
from lensmith.errors import InputError, Problem
from lensmith.progress import Progress


def reduce_pictures(book: Workbook, sources: Sequence[Source], engine: Engine) -> None:
    """Make every picture at each reduced size that a row shows and that was not made before.

    Raises InputError where a picture is no longer the one that was looked at.
    """
    asked: deque[tuple[Picture, bytes, tuple[int, int]]] = deque()

    def requests() -> Iterator[Request]:
        for each in book.pictures.to_reduce():
            asked.append(each)
            yield Request(each[0].path, opened(sources, each[0]))

    with Progress("pictures reduced") as progress:
        for stored in engine.look(STORE, requests()):
            picture, identity, size = asked.popleft()
            if isinstance(stored, Flaw) or stored.digest != identity.hex():
                raise changed(picture)
            book.pictures.keep_reduced(identity, reduce(stored.png, size))
            progress.add()


def opened(sources: Sequence[Source], picture: Picture) -> Path | bytes | Drawing:
    """A picture that was looked at, to be looked at again. Raises InputError where it cannot be."""
    found = sources[picture.source].picture(picture.path)
    if isinstance(found, Flaw):
        raise changed(picture)
    return found


def changed(picture: Picture) -> InputError:
    """A picture is not the one that was looked at."""
    what = "is not the image that was checked"
    mend = "prepare again when nobody writes to it"
    return InputError("the data changed while it was read", [Problem(what, picture.path, mend)])
