"""Labelled rows in, a dataset and its sealed held-out set out.

Two artifacts are made from one source. `dataset` holds the rows for training and validation, what was
refused and why, a data card and a report with pictures. `held_out` holds the exam, and nothing in the
dataset's directory leads to its rows; they are read through `lensmith.dataset.read_held_out`, which logs why.

Neither is an input of the other: both were made from the labelled file, and both bodies state its digest
under `sources`. The dataset's body names the id of its held-out set, so that a report can be checked to
have used the right exam, while a machine that trains can verify its dataset without holding the exam.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from data_prep.answer_schema.schema import read_schema
from data_prep.body import by_reason, dataset_body, held_out_body, source_facts
from data_prep.card import write_card
from data_prep.engines.engine import Engine, open_engine
from data_prep.evidence import exact_copies, find_evidence
from data_prep.fetching import drop_refused, fetch_pictures
from data_prep.figures.describe import describe
from data_prep.forgetting import Forgotten
from data_prep.history import (
    most_pictures,
    open_exams,
    read_previous,
    refuse_exam_pictures,
    resolve_exams,
    resolve_previous,
)
from data_prep.judging import judge_rows
from data_prep.labels.disagreements import write_disagreements
from data_prep.leaks import prove_no_leaks
from data_prep.lengths import MakeCounter, counted_with, too_long_rows
from data_prep.looking import look_at_pictures
from data_prep.picture_cache import PictureCache
from data_prep.reading import read_rows
from data_prep.refusal import TITLES
from data_prep.refusals_file import write_flagged, write_refusals
from data_prep.remote import with_sources_here
from data_prep.report import write_report
from data_prep.settling import disagreements, settle_labels
from data_prep.shares import cap_sources, weigh_sources
from data_prep.sources.opening import open_sources
from data_prep.sources.source import Source
from data_prep.split import SPLITS, SplitName
from data_prep.splitting import split_rows
from data_prep.statistics import counts
from data_prep.templates import FOLDER
from data_prep.thumbnails import ThumbnailFile
from data_prep.workbook import Workbook
from data_prep.writing import write_split
from lensmith.artifact import Artifact
from lensmith.data_settings import Data
from lensmith.dataset import HELD_OUT_FILE, split_file
from lensmith.errors import InputError, IntegrityError, Problem
from lensmith.files import digest_json, is_disk_full
from lensmith.home import Home
from lensmith.images import ImageLimits
from lensmith.page import template_digests
from lensmith.provenance import stage_key
from lensmith.recipe import Recipe
from lensmith.tokens import ImageGrid, read_grid

MODULE = "data_prep.prepare"
PACKAGES = ("pillow", "pyarrow", "pydantic", "jinja2", "numpy", "xxhash", "jsonschema", "phonenumbers")
_ROWS_IN_ERROR = 10
# What names a place: the key holds what lies there instead; and what must not matter.
_TOLD_BY_CONTENT: dict[str, Any] = {
    "source": True,
    "sources": {"__all__": {"path"}},
    "previous": True,
    "exams": True,
    "answer_schema": {"file", "inline"},
    # Who does the work changes nothing of it.
    "engine": True,
}


@dataclass(frozen=True)
class Prepared:
    """What `prepare` makes."""

    dataset: Artifact
    held_out: Artifact


@dataclass(frozen=True)
class _Asked:
    """What is asked of this stage: the recipe with its data on this machine and the places that it came
    from, the sources as opened, the earlier datasets that bind this one, what is forgotten, the image grid
    of the base, and the two keys."""

    recipe: Recipe
    places: list[str]
    sources: list[Source]
    previous: Artifact | None
    exams: list[Artifact]
    limits: ImageLimits
    grid: ImageGrid | None
    forgotten: Forgotten
    dataset_key: str
    held_out_key: str


def find_prepared(recipe: Recipe, home: Home) -> Prepared | None:
    """What was already prepared for this recipe and this data, or None.

    Reads the labelled file and looks at size and time of its images; decodes none.
    Raises InputError where the labelled file cannot be read at all.
    """
    return _find(_ask(recipe, home), home)


def prepare(recipe: Recipe, home: Home, make_counter: MakeCounter | None = None) -> Prepared:
    """Check every row, refuse the bad ones with reasons, split by group, prove the splits apart, write.

    Raises InputError when the labelled file cannot be read, when more than `data.max_bad` of its rows are
    refused, or when a split is left without rows; nothing is written then. Raises IntegrityError when
    the written splits share a group or an image.

    `make_counter` is asked for what counts rows where the recipe refuses long ones (`data.too_long`).
    """
    asked = _ask(recipe, home)
    if found := _find(asked, home):
        return found
    started = time.time()
    work = home.work_path(asked.dataset_key)
    try:
        with Workbook(work / "workbook.sqlite") as book, open_engine(asked.recipe, asked.limits) as engine:
            return _make(book, engine, asked, home, make_counter, started)
    except InputError:
        # What is to be mended changes the key: nobody would go on from here.
        shutil.rmtree(work, ignore_errors=True)
        raise
    except (OSError, sqlite3.Error) as error:
        if is_disk_full(error):
            raise home.no_space("preparing the data") from error
        raise


def _make(
    book: Workbook,
    engine: Engine,
    asked: _Asked,
    home: Home,
    make_counter: MakeCounter | None,
    started: float,
) -> Prepared:
    recipe, data = asked.recipe, asked.recipe.data
    read_rows(book, asked.sources, engine, asked.forgotten)
    with PictureCache(home.root / "cache/pictures.sqlite", asked.limits) as cache:
        fetch_pictures(book, asked.sources)
        look_at_pictures(book, asked.sources, asked.limits, cache, engine)
        drop_refused(book, asked.sources)
    book.forget_judgements()
    agreement = settle_labels(book, data.labels)
    judge_rows(book, too_long_rows(book, recipe, asked.grid, make_counter))
    cap_sources(book, asked.sources, data)
    exams = open_exams(asked.exams, home)
    work = home.work_path(asked.dataset_key)
    thumbnails = ThumbnailFile(book, work / "thumbnails", most_pictures(exams))
    refuse_exam_pictures(book, exams, thumbnails)
    similar = split_rows(book, data, read_previous(asked.previous, home), thumbnails, work)
    _stop_if_too_many(book, data)
    _stop_if_empty(book, data)
    weigh_sources(book, asked.sources, data)

    with home.create("dataset", asked.dataset_key, {}) as draft:
        files: dict[SplitName, Path] = {
            "train": draft.path / split_file("train"),
            "validation": draft.path / split_file("validation"),
        }
        with home.create("held_out", asked.held_out_key, {}) as sealed:
            files["held_out"] = sealed.path / HELD_OUT_FILE
            for split, path in files.items():
                write_split(book, asked.sources, split, path, engine)
            leaks = prove_no_leaks(files, asked.limits)
            sources = source_facts(book, asked.sources)
            sealed.body.update(held_out_body(sources, book, recipe.data))
            sealed.record.update(places=asked.places)
        draft.body.update(dataset_body(sources, book, leaks, asked.grid, recipe))
        draft.body["similar"] = {
            "exact": exact_copies(book),
            "pairs": similar.pictures,
            "answers": similar.answers,
            "kept": data.similar,
        }
        draft.body.update(describe(book, asked.grid))
        draft.body["left_out"] = book.left_out()
        draft.body["agreement"] = agreement
        draft.body["held_out"] = sealed.artifact.id
        write_refusals(draft.path, book.refusals())
        write_flagged(draft.path, book.flagged())
        write_disagreements(draft.path, disagreements(book, data.labels))
        write_card(draft.path, draft.body)
        found = find_evidence(book, asked.sources)
        write_report(draft.path, draft.body, found, asked.sources, asked.limits, asked.previous)
        draft.record.update(places=asked.places, seconds=round(time.time() - started, 2))
    return Prepared(draft.artifact, sealed.artifact)


def _ask(recipe: Recipe, home: Home) -> _Asked:
    places = [str(each.path) for each in recipe.data.all_sources()]
    recipe = with_sources_here(recipe, home)
    data = recipe.data
    sources = open_sources(data, home.root / "cache/downloads")
    grid = _grid(recipe)
    previous = resolve_previous(data, home)
    exams = resolve_exams(data, home)
    forgotten = Forgotten.load(home.root)
    asked = {
        "sources": [_source_asked(source) for source in sources],
        "data": data.model_dump(mode="json", exclude=_TOLD_BY_CONTENT),
        "previous": previous and previous.id,
        "exams": [each.id for each in exams],
        "schema": None
        if data.answer_schema is None
        else digest_json(read_schema(data.answer_schema).content),
        "coordinates": asdict(recipe.model_family.coordinates),
        "markup": list(recipe.model_family.markup),
        "max_images": recipe.serve.max_images,
        "forgotten": forgotten.digest,
        "counted": counted_with(recipe, grid),
    }
    held_out_key = stage_key("held_out", MODULE, PACKAGES, asked, {})
    # The exam does not depend on what the base's processor makes of its images; the dataset's figures do.
    templates = template_digests(FOLDER)
    seen = {"grid": grid and asdict(grid), "family": recipe.family, "templates": templates}
    dataset_key = stage_key("dataset", MODULE, PACKAGES, asked | seen, {})
    limits = ImageLimits(max_bytes=data.max_image_bytes, max_pixels=data.max_image_pixels)
    return _Asked(
        recipe, places, sources, previous, exams, limits, grid, forgotten, dataset_key, held_out_key
    )


def _grid(recipe: Recipe) -> ImageGrid | None:
    """The base's image grid; None while there is no base yet: data can be checked before it arrives."""
    if not recipe.base.path.is_dir():
        return None
    return read_grid(recipe.base.path, recipe.model_family, recipe.pixel_budget)


def _source_asked(source: Source) -> list[object]:
    """Name, format and content of a source; size and time of change of every picture that its rows name."""
    paths = {image.path for found in source.rows() if found.sample for image in found.sample.images}
    stamps = [[path, *source.picture_stamp(path)] for path in sorted(paths)]
    return [source.name, source.format, source.facts(), digest_json(stamps)]


def _find(asked: _Asked, home: Home) -> Prepared | None:
    dataset = home.find("dataset", asked.dataset_key)
    held_out = home.find("held_out", asked.held_out_key)
    if dataset is None or held_out is None:
        return None
    if dataset.body["held_out"] != held_out.id:
        raise IntegrityError(
            f"{dataset.short} belongs to another held-out set than {held_out.short}",
            [Problem("the two were made apart", str(dataset.path), "remove both and prepare again")],
        )
    return Prepared(dataset, held_out)


def _stop_if_too_many(book: Workbook, data: Data) -> None:
    # What was forgotten on purpose is no mistake of the hand-over.
    forgotten = dict(by_reason(book.refusals())).get("forgotten", 0)
    refused, rows = book.refused() - forgotten, book.count() - forgotten
    share = refused / rows if rows else 0.0
    # From 1 on it is a count.
    if (refused if data.max_bad >= 1 else share) <= data.max_bad:
        return
    allowed = f"{data.max_bad:,}" if data.max_bad >= 1 else f"{data.max_bad:.1%}"
    problems = [Problem(f"{count} rows", TITLES[code]) for code, count in by_reason(book.refusals())]
    problems += [
        Problem(flaw.what, refusal.place, flaw.mend)
        for refusal in islice(book.refusals(), _ROWS_IN_ERROR)
        for flaw in refusal.flaws
    ]
    if refused > _ROWS_IN_ERROR:
        problems.append(Problem(f"and {refused - _ROWS_IN_ERROR:,} more rows"))
    raise InputError(
        f"{refused:,} of {rows:,} rows are refused ({share:.1%}), data.max_bad allows"
        f" {allowed}: nothing was written",
        problems,
    )


def _stop_if_empty(book: Workbook, data: Data) -> None:
    rows, groups = counts(book)
    asked = {
        "train": 1 - data.split.held_out - data.split.validation,
        "validation": data.split.validation,
        "held_out": data.split.held_out,
    }
    problems = [
        Problem(
            f"no row left, {asked[split]:.0%} of the groups were to go there",
            split,
            "hand over rows of more groups, or change data.split",
        )
        for split in SPLITS
        if asked[split] and not rows[split]
    ]
    if problems:
        raise InputError(
            f"{sum(rows.values()):,} rows of {sum(groups.values()):,} groups do not fill every split",
            problems,
        )
