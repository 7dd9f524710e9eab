"""Labelled rows in; a dataset, its sealed held-out set and the intake that tells of both out.

Three artifacts are made. `dataset` holds the rows for training and validation and their card. `held_out`
holds the exam, and nothing in the dataset's directory leads to its rows; they are read through
`lensmith.dataset.read_held_out`, which logs why. `intake` holds what was handed over, what was refused and
why, and the report with pictures.

The first two are their rows alone: the same rows from another file give the same ids. Neither is an input of
the other, so that a machine that trains can verify its dataset without holding the exam; the dataset's body
names the id of its held-out set, so that a report can be checked to have used the right exam. The intake was
made from both.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.asked import Asked, ask
from data_prep.body import dataset_body, held_out_body, intake_body
from data_prep.card import write_card
from data_prep.engines.engine import Engine, open_engine
from data_prep.enough import stop_if_empty, stop_if_too_many
from data_prep.evidence import find_evidence
from data_prep.fetching import drop_refused, fetch_pictures
from data_prep.group_names import flag_spellings
from data_prep.history import most_pictures, open_exams, read_previous, refuse_exam_rows
from data_prep.judging import judge_rows
from data_prep.labels.disagreements import write_disagreements
from data_prep.leaks import prove_no_leaks
from data_prep.lengths import MakeCounter, too_long_rows
from data_prep.looking import look_at_pictures
from data_prep.picture_cache import PictureCache
from data_prep.proven import Proven
from data_prep.reading import read_rows
from data_prep.reducing import reduce_pictures
from data_prep.refusals_file import write_flagged, write_refusals, write_taken
from data_prep.report import Gallery, write_report
from data_prep.settling import disagreements, settle_labels
from data_prep.shares import cap_sources, weigh_sources
from data_prep.split import SplitName
from data_prep.splitting import Alike, split_rows
from data_prep.stored_before import StoredBefore
from data_prep.thumbnails import ThumbnailFile
from data_prep.videos.showing import Showing
from data_prep.workbook import Workbook
from data_prep.writing import write_split
from data_prep.written import Written
from lensmith.artifact import Artifact
from lensmith.dataset import HELD_OUT_FILE, split_file
from lensmith.errors import InputError, IntegrityError, Problem
from lensmith.files import is_disk_full
from lensmith.home import Draft, Home
from lensmith.recipe import Recipe


@dataclass(frozen=True)
class Prepared:
    """What `prepare` makes."""

    dataset: Artifact
    held_out: Artifact
    intake: Artifact


def find_prepared(recipe: Recipe, home: Home) -> Prepared | None:
    """What was already prepared for this recipe and this data, or None.

    Reads the labelled file and looks at size and time of its images; decodes none.
    Raises InputError where the labelled file cannot be read at all.
    """
    return _find(ask(recipe, home), home)


def prepare(recipe: Recipe, home: Home, make_counter: MakeCounter | None = None) -> Prepared:
    """Check every row, refuse the bad ones with reasons, split by group, prove the splits apart, write.

    Raises InputError when the labelled file cannot be read, when more than `data.max_bad` of its rows are
    refused, or when a split is left without rows; nothing is written then. Raises IntegrityError when
    the written splits share a group or an image.

    `make_counter` is asked for what counts rows where long ones are refused or resized (`data.too_long`).
    """
    asked = ask(recipe, home)
    # One at a time for the same data: the other then finds what this one made.
    with home.locked(f"prepare-{asked.intake_key}"):
        return _find(asked, home) or _make(asked, home, make_counter)


def _make(asked: Asked, home: Home, make_counter: MakeCounter | None) -> Prepared:
    started = time.time()
    work = home.work_path(asked.intake_key)
    try:
        with Workbook(work / "workbook.sqlite") as book, open_engine(asked.recipe, asked.limits) as engine:
            told = _decide(book, engine, asked, home, work, make_counter)
            dataset, held_out = _write_rows(book, engine, asked, home)
            intake = _write_intake(book, asked, home, told, dataset, held_out, started)
    except InputError:
        # What is to be mended changes the key: nobody would go on from here.
        shutil.rmtree(work, ignore_errors=True)
        raise
    except (OSError, sqlite3.Error) as error:
        if is_disk_full(error):
            raise home.no_space("preparing the data") from error
        raise
    return Prepared(dataset, held_out, intake)


@dataclass(frozen=True)
class _Told:
    """What deciding found: how far labellers agree, a mapping a field, and what hangs together."""

    agreement: list[dict[str, Any]]
    alike: Alike


def _decide(
    book: Workbook,
    engine: Engine,
    asked: Asked,
    home: Home,
    work: Path,
    make_counter: MakeCounter | None,
) -> _Told:
    """Which rows are taken, and which split each lies in."""
    recipe, data = asked.recipe, asked.recipe.data
    read_rows(book, asked.sources, engine, asked.forgotten, Showing(asked.films, asked.limits))
    with PictureCache(home.root / "cache/pictures.sqlite", asked.limits) as cache:
        fetch_pictures(book, asked.sources)
        look_at_pictures(book, asked.sources, asked.limits, cache, engine)
        drop_refused(book, asked.sources)
    book.forget_judgements()
    agreement = settle_labels(book, data.labels)
    too_long = too_long_rows(book, recipe, asked.grid, make_counter)
    reduce_pictures(book, asked.sources, engine)
    judge_rows(book, too_long)
    cap_sources(book, asked.sources, data)
    exams = open_exams(asked.exams, home)
    thumbnails = ThumbnailFile(book, work / "thumbnails", most_pictures(exams))
    refuse_exam_rows(book, exams, thumbnails, data, work)
    previous = read_previous(asked.previous, home)
    alike = split_rows(book, data, previous, thumbnails, work)
    flag_spellings(book, previous.groups)
    stop_if_too_many(book, data)
    stop_if_empty(book, data)
    weigh_sources(book, asked.sources, data)
    return _Told(agreement, alike)


def _write_rows(book: Workbook, engine: Engine, asked: Asked, home: Home) -> tuple[Artifact, Artifact]:
    """The dataset and its held-out set."""
    with StoredBefore(home, asked.limits) as before:
        dataset, held_out, written = _write_splits(book, engine, asked, home, before)
        before.remember(dataset.artifact, held_out.artifact, written)
        for draft in (dataset, held_out):
            if not draft.found:
                before.remember_files(draft.artifact, written)
    return dataset.artifact, held_out.artifact


def _write_splits(
    book: Workbook, engine: Engine, asked: Asked, home: Home, before: StoredBefore
) -> tuple[Draft, Draft, dict[SplitName, Written]]:
    recipe = asked.recipe
    with home.create("dataset", asked.dataset_key, {}) as draft:
        files: dict[SplitName, Path] = {
            "train": draft.path / split_file("train"),
            "validation": draft.path / split_file("validation"),
        }
        with home.create("held_out", asked.held_out_key, {}) as sealed:
            files["held_out"] = sealed.path / HELD_OUT_FILE
            written: dict[SplitName, Written] = {
                split: write_split(book, asked.sources, split, path, engine, before)
                for split, path in files.items()
            }
            draft.digests.update({**written["train"].whole, **written["validation"].whole})
            sealed.digests.update(written["held_out"].whole)
            with Proven(home, asked.limits) as proven:
                leaks = prove_no_leaks(written, proven)
            sealed.body.update(held_out_body(book, recipe.data))
        draft.body.update(dataset_body(book, leaks, asked.grid, recipe), held_out=sealed.artifact.id)
        write_card(draft.path, draft.body)
    return draft, sealed, written


def _write_intake(
    book: Workbook,
    asked: Asked,
    home: Home,
    told: _Told,
    dataset: Artifact,
    held_out: Artifact,
    started: float,
) -> Artifact:
    data = asked.recipe.data
    inputs = {"dataset": dataset, "held_out": held_out}
    with home.create("intake", asked.intake_key, inputs) as draft:
        draft.body.update(intake_body(book, asked.sources, data, told.alike, told.agreement))
        write_refusals(draft.path, book.refusals())
        write_flagged(draft.path, book.flagged())
        write_taken(draft.path, book.learned())
        write_disagreements(draft.path, disagreements(book, data.labels))
        found = find_evidence(book, asked.sources)
        with Gallery(asked.sources, asked.limits, home.root / "cache/thumbnails.sqlite") as gallery:
            write_report(draft.path, dataset, draft.body, found, gallery, asked.before)
        draft.record.update(places=asked.places, seconds=round(time.time() - started, 2))
    return draft.artifact


def _find(asked: Asked, home: Home) -> Prepared | None:
    dataset = home.find("dataset", asked.dataset_key)
    held_out = home.find("held_out", asked.held_out_key)
    intake = home.find("intake", asked.intake_key)
    if dataset is None or held_out is None or intake is None:
        return None
    stated = (dataset.body["held_out"], intake.manifest.inputs["held_out"], intake.manifest.inputs["dataset"])
    if stated != (held_out.id, held_out.id, dataset.id):
        raise IntegrityError(
            f"{dataset.short}, {held_out.short} and {intake.short} do not belong together",
            [Problem("they were made apart", str(dataset.path), "remove all three and prepare again")],
        )
    return Prepared(dataset, held_out, intake)
