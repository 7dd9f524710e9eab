"""What the rows that are meant reached: what was made from them, what quotes them, what serves it now."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from markupsafe import escape

from data_prep.conditions import Facts
from data_prep.forgetting import removed_before
from finetune.evaluation.predictions import PREDICTIONS_FILE
from lensmith.artifact import KINDS, Artifact, Kind
from lensmith.cli.forget.descent import Descent
from lensmith.cli.forget.rows import Survey, Unread
from lensmith.errors import IntegrityError
from lensmith.home import Home
from lensmith.report import PAGE_FILE
from lensmith.trace import TRACE_FILE
from serving.registry import REGISTRY_FILE, Channel, Registry

# What holds weights, or stands for them.
WEIGHTS: tuple[Kind, ...] = ("base", "run", "model", "profile", "release")
_QUOTING: dict[Kind, str] = {
    "trace": TRACE_FILE,
    "report": PREDICTIONS_FILE,
    "release": f"report/{PAGE_FILE}",
}


# What a model is asked: an exam, or a dataset's validation rows.
_ASKED: tuple[Kind, ...] = ("held_out", "dataset")


@dataclass(frozen=True)
class Reached:
    """An artifact made from the rows, or examined with them.

    learned: whether its weights learned from them; quotes: ids of the rows that it shows; may_quote: whether
    its exam was removed because of them, so that nobody can tell any more.
    """

    artifact: Artifact
    learned: bool
    quotes: tuple[str, ...]
    may_quote: bool


@dataclass(frozen=True)
class Served:
    """A channel that points at a release made from the rows.

    before: the release that a rollback would put there, None where there is none; before_reached: whether
    that one was made from the rows too.
    """

    channel: str
    release: str
    learned: bool
    before: str | None
    before_reached: bool


@dataclass(frozen=True)
class Reach:
    """All of it. `unread` could not be looked into, so nothing is known of it."""

    survey: Survey
    reached: list[Reached]
    served: list[Served]
    unread: list[Unread] = field(default_factory=list)

    def channels_of(self, release: Artifact) -> list[str]:
        """The channels that point at a release."""
        return [each.channel for each in self.served if each.release == release.id]

    def removable(self) -> list[Artifact]:
        """What holds or quotes the rows, in the order it is to be removed: what leads to it comes last.

        A release that a channel points at is not among it.
        """
        quoting = [each.artifact for each in reversed(self.reached) if each.quotes or each.may_quote]
        kept = {each.release for each in self.served}
        quoting = [each for each in quoting if each.id not in kept]
        return [*quoting, *(holding.artifact for holding in self.survey.holdings)]


def reach_of(home: Home, survey: Survey) -> Reach:
    """What the rows that `survey` found reached; what stands nearest to them first."""
    descent = Descent(home)
    held = {each.artifact.id: list(each.rows) for each in survey.holdings}
    # What was removed in an earlier round has children that are still there.
    gone = {each.id: each.splits for each in removed_before(home.root, survey.conditions) if each.splits}
    held = gone | held
    holding = set(held)
    trained = {each for each, splits in held.items() if "train" in splits}
    below, learned = descent.of(holding), descent.of(trained)
    unread = list(survey.unread)
    asked = {each.artifact.id: each.ids for each in survey.holdings}
    known = {each.id for kind in _ASKED for each in home.all(kind)}
    known -= {each.artifact.id for each in survey.unread}
    reached: list[Reached] = []
    for artifact in sorted(home.all(), key=lambda each: KINDS.index(each.kind)):
        quotes: tuple[str, ...] = ()
        may_quote = False
        if artifact.kind in _QUOTING:
            exam = _asked(artifact)
            may_quote = exam in gone and exam not in known
        if artifact.kind in _QUOTING and not may_quote:
            try:
                quotes = _quotes(artifact, survey, asked, known)
            except (IntegrityError, ValueError, KeyError, OSError) as error:
                unread.append(Unread(artifact, " ".join(str(error).split())))
        if quotes or may_quote or (artifact.id in below and artifact.id not in holding):
            by_weights = artifact.kind in WEIGHTS and artifact.id in learned
            reached.append(Reached(artifact, by_weights, quotes, may_quote))
    return Reach(survey, reached, _served(home, below, learned), unread)


def _quotes(
    artifact: Artifact, survey: Survey, asked: Mapping[str, set[str]], known: set[str]
) -> tuple[str, ...]:
    """Ids of the rows that a trace, report or release shows.

    Raises IntegrityError where what it was asked is gone and nothing else tells whose rows they are.
    """
    path = artifact.path / _QUOTING[artifact.kind]
    exam = _asked(artifact)
    if exam in known:
        wanted = asked.get(exam, set())
        if not wanted:
            return ()
        if artifact.kind == "release":
            return tuple(_shown(path.read_text(encoding="utf-8"), sorted(wanted)))
        return tuple(row for row, _ in _asked_rows(artifact) if row in wanted)
    if artifact.kind == "release":
        raise IntegrityError(f"what its page quotes is not known: its exam held_out-{exam[:12]} is gone")
    if not {each.field for each in survey.conditions} <= {"id", "group"}:
        raise IntegrityError(f"it names rows and groups only, and what it was asked, {exam[:12]}, is gone")
    rows = _asked_rows(artifact)
    return tuple(row for row, group in rows if Facts(row, group, {}, {}).meet(survey.conditions))


def _asked(artifact: Artifact) -> str:
    """Id of what a trace or report was made on, or a release judged on."""
    inputs = artifact.manifest.inputs
    return inputs["held_out"] if "held_out" in inputs else inputs["validation"]


def _asked_rows(artifact: Artifact) -> Iterator[tuple[str, str]]:
    """(id, group) of every row of a trace or report."""
    with (artifact.path / _QUOTING[artifact.kind]).open(encoding="utf-8") as lines:
        for line in lines:
            content = json.loads(line)
            yield content["row"], content["group"]


def _shown(page: str, rows: Iterable[str]) -> Iterator[str]:
    for row in rows:
        if re.search(rf"(?<![\w-]){re.escape(str(escape(row)))}(?![\w-])", page):
            yield row


def _served(home: Home, below: set[str], learned: set[str]) -> list[Served]:
    if not (home.root / REGISTRY_FILE).is_file():
        return []
    with Registry.open(home) as registry:
        channels: dict[tuple[str, Channel], None] = dict.fromkeys(
            (act.name, act.channel) for act in registry.acts()
        )
        found: list[Served] = []
        for name, channel in channels:
            current = registry.current(name, channel)
            # A release whose files are gone is known by what it serves.
            known = {current.release, registry.entry(current.release).subject}
            if known & below:
                before = registry.previous(name, channel)
                again = {before, registry.entry(before).subject} if before else set()
                found.append(
                    Served(
                        f"{name}@{channel}",
                        current.release,
                        bool(known & learned),
                        before,
                        bool(again & below),
                    )
                )
    return found
