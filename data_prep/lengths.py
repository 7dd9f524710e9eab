"""Rows that do not fit what is taught or served, told before anything is written; none is ever cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from data_prep.flag import Flag
from data_prep.refusal import Flaw
from data_prep.workbook import Workbook
from lensmith.counting import Counts
from lensmith.errors import InputError, Problem
from lensmith.files import digest_file
from lensmith.fit import fit
from lensmith.progress import Progress
from lensmith.provenance import code_digest, package_versions
from lensmith.recipe import Recipe
from lensmith.sample import Sample
from lensmith.tokens import Grid

# By name only: preparation must not import what trains. Another way to count is another dataset.
COUNTED_BY = "finetune.encoder"
_PACKAGES = ("transformers", "tokenizers")
# What says how a checkpoint makes tokens: tokenizer, chat template, image processor, end of turn.
_SETTINGS = {".json", ".jinja", ".txt", ".model"}
_ROWS_AT_ONCE = 256

Sizes = Sequence[Sequence[tuple[int, int]]]
Measured = tuple[int, Sample, list[tuple[int, int]]]


class RowCounter(Protocol):
    """Counts as training does."""

    def count(self, samples: Sequence[Sample], sizes: Sizes, grid: Grid) -> Counts:
        """int64 [samples, 3]: tokens of text, images and answer; sizes as (width, height) in pixels."""
        ...


MakeCounter = Callable[[], RowCounter]


def counted_with(recipe: Recipe, grid: Grid | None) -> dict[str, Any] | None:
    """All that decides which rows fit, as JSON values; None where the recipe leaves it to training.

    Raises InputError where rows are to be counted and there is no base to count with.
    """
    if recipe.data.too_long == "keep":
        return None
    base = recipe.base.path
    if grid is None:
        problem = Problem("is not there: nothing can be counted", str(base), "fetch it, or leave the key out")
        raise InputError("data.too_long needs the base's tokenizer", [problem])
    return {
        "grid": asdict(grid),
        "limits": [recipe.train.max_length, recipe.serve.max_model_len, recipe.serve.max_new_tokens],
        "thinking": recipe.train.thinking,
        "new_tokens": recipe.train.new_tokens,
        "objective": recipe.train.objective,
        "base": {path.name: digest_file(path) for path in _settings(base)},
        "code": code_digest(COUNTED_BY),
        "packages": package_versions(_PACKAGES),
    }


def _settings(base: Path) -> list[Path]:
    return sorted(path for path in base.iterdir() if path.suffix in _SETTINGS and path.is_file())


def too_long_rows(
    book: Workbook, recipe: Recipe, grid: Grid | None, make_counter: MakeCounter | None
) -> dict[int, Flaw]:
    """What is wrong with each undecided row that does not fit, by its number; rows with other flaws are not
    counted. Where the recipe says so, the book is told at which sizes of its pictures a row does fit.

    Raises ValueError where rows are to be counted and nobody gave a way to.
    """
    if recipe.data.too_long == "keep":
        return {}
    if grid is None or make_counter is None:
        raise ValueError("rows cannot be counted without a base and a counter")
    counter = make_counter()
    found: dict[int, Flaw] = {}
    waiting = _whole_rows(book)
    with Progress("row lengths counted") as progress:
        while batch := list(islice(waiting, _ROWS_AT_ONCE)):
            numbers, samples, sizes = zip(*batch, strict=True)
            counts = counter.count(samples, sizes, grid).tolist()
            counted = zip(numbers, samples, sizes, counts, strict=True)
            for number, sample, shown, (text, images, answer) in counted:
                flaw = _flaw(recipe, text, images, answer)
                if flaw is None:
                    continue
                most = min(recipe.train.max_length - answer, _asked_room(recipe))
                # A frame of a video costs less than an image: `fit` does not know what.
                may = recipe.data.too_long == "resize" and not sample.videos
                smaller = fit(shown, text, grid, most) if may else None
                if smaller is None:
                    found[number] = flaw
                else:
                    book.pictures.reduce(number, smaller)
                    to = ", ".join(f"{width} x {height}" for width, height in smaller)
                    what = f"{flaw.what}; its pictures are now {to} pixels"
                    book.add_flag(number, Flag("reduced", what, "check that they can still be read"))
            progress.add(len(batch))
    return found


def _whole_rows(book: Workbook) -> Iterator[Measured]:
    for row in book.readable(undecided=True):
        seen = book.pictures.shown_by(row.number)
        sizes = [(each.width, each.height) for each in seen if not isinstance(each, Flaw)]
        if not row.flaws and len(sizes) == len(seen):
            yield row.number, row.sample, sizes


def _asked_room(recipe: Recipe) -> int:
    return recipe.serve.max_model_len - recipe.serve.max_new_tokens


def _flaw(recipe: Recipe, text: int, images: int, answer: int) -> Flaw | None:
    taught, most = text + images + answer, recipe.train.max_length
    asked, room = text + images, _asked_room(recipe)
    if taught <= most and asked <= room:
        return None
    over = []
    if taught > most:
        over.append(f"has {taught:,} tokens, train.max_length is {most:,}")
    if asked > room:
        over.append(f"asks with {asked:,} tokens, serve.max_model_len leaves {room:,} before the answer")
    what = f"{' and '.join(over)} ({text:,} of text, {images:,} of images, {answer:,} of the answer)"
    return Flaw("too_long", what, "lower pixels.image_tokens.max, raise the limit, or split the row")
