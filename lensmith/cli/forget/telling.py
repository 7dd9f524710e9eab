"""What `lensmith forget` says: to people as lines, to programs as one object."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from lensmith.cli.forget.reach import WEIGHTS, Reach, Reached, Served
from lensmith.cli.forget.rows import Holding

_IDS_SHOWN = 8
# What a release has to do with the rows, by whether its weights learned from them.
HOW = {True: "learned from", False: "was examined with"}


def listing(reach: Reach) -> list[str]:
    """What matches, what was made from it, and what could not be looked into."""
    survey = reach.survey
    rows = "1 row matches" if survey.matching == 1 else f"{survey.matching:,} rows match"
    lines = [f"{rows} in {len(survey.holdings)} of the datasets, held-out sets and intakes here"]
    lines += [f"  {_held(each)}" for each in survey.holdings]
    if not survey.holdings:
        lines += [f"  {hint}" for hint in _near(reach)]
    if reach.reached:
        lines += ["", "made from them, or examined with them:"]
        lines += [f"  {_reached(reach, each)}" for each in reach.reached]
    here = {each.artifact.id for each in reach.reached}
    lines += [
        f"  release-{each.release[:12]}  its files are not here; {each.channel} points at it NOW"
        for each in reach.served
        if each.release not in here
    ]
    if reach.unread:
        lines += ["", "NOT looked into, look yourself:"]
        lines += [f"  {each.artifact.short}  {each.why}" for each in reach.unread]
    return lines


def next_steps(reach: Reach, *, remade: bool, removed: bool) -> list[str]:
    """What is left for a person to do."""
    steps: list[str] = []
    if reach.survey.holdings and not remade:
        steps.append("make the dataset without them: lensmith prepare RECIPE (or forget ... --recipe RECIPE)")
    learned = [each.artifact for each in reach.reached if each.learned]
    if learned:
        names = ", ".join(each.short for each in learned if each.kind in ("run", "model", "release"))
        steps.append(f"weights learned from these rows, and removing files does not take it out: {names}")
        steps.append("train again without them: lensmith run RECIPE, then remove the old ones")
    elif reach.reached and reach.survey.holdings:
        steps.append("no weights learned from these rows, but an exam has them: lensmith run RECIPE")
    for each in reach.served:
        steps.append(
            f"{each.channel} is release-{each.release[:12]}, which {HOW[each.learned]} them: {_way_out(each)}"
        )
    if reach.removable() and not removed:
        steps.append(
            f"what still holds or quotes the rows here, {len(reach.removable())} in all: --delete removes it"
        )
    quoting = [each.artifact for each in reach.reached if each.quotes or each.may_quote]
    kept = [each for each in quoting if reach.channels_of(each)]
    if removed and kept:
        names = ", ".join(each.short for each in kept)
        steps.append(f"not removed, because a channel points at it, though its page quotes the rows: {names}")
    steps.append(
        "not looked into: what was handed over, exports, backups, copies; work/ where something is unfinished"
    )
    return steps


def as_json(reach: Reach) -> dict[str, Any]:
    """The listing for programs. Values of conditions are not in it."""
    return {
        "where": [each.field for each in reach.survey.conditions],
        "holds": [
            {"kind": each.artifact.kind, "id": each.artifact.id, "path": str(each.artifact.path)}
            | {"rows": each.rows}
            for each in reach.survey.holdings
        ],
        "made_from_them": [
            {
                "kind": each.artifact.kind,
                "id": each.artifact.id,
                "path": str(each.artifact.path),
                "learned": each.learned,
                "quotes": list(each.quotes),
                "may_quote": each.may_quote,
                "channels": reach.channels_of(each.artifact),
            }
            for each in reach.reached
        ],
        "served": [
            {"channel": each.channel, "release": each.release, "learned": each.learned}
            for each in reach.served
        ],
        "unread": [{"id": each.artifact.id, "why": each.why} for each in reach.unread],
    }


def _held(holding: Holding) -> str:
    splits = ", ".join(f"{len(ids):,} {split}" for split, ids in holding.rows.items())
    return f"{holding.artifact.short}  {splits}: {_names(sorted(holding.ids))}"


def _names(ids: Sequence[str]) -> str:
    more = len(ids) - _IDS_SHOWN
    # Ids are hostile text: repr keeps control characters out of a terminal.
    shown = ", ".join(repr(each)[1:-1] for each in ids[:_IDS_SHOWN])
    return f"{shown} and {more:,} more" if more > 0 else shown


def _reached(reach: Reach, each: Reached) -> str:
    facts: list[str] = []
    if each.artifact.kind in WEIGHTS:
        facts.append(f"its weights {'learned' if each.learned else 'did not learn'} from them")
    if each.may_quote:
        facts.append("may quote them: its exam was removed because of them")
    if each.quotes:
        facts.append(f"quotes {len(each.quotes):,} of them")
    facts += [f"{channel} points at it NOW" for channel in reach.channels_of(each.artifact)]
    return f"{each.artifact.short}  {'; '.join(facts) or 'quotes none of them'}"


def _way_out(served: Served) -> str:
    promote = f"promote one without them (lensmith promote RELEASE --to {served.channel.partition('@')[2]})"
    if served.before is None:
        return f"{promote}, or stop serving it; there is none to roll back to"
    before = f"release-{served.before[:12]}"
    if served.before_reached:
        return f"{promote}, or stop serving it; a rollback gives {before}, which they reached too"
    return f"lensmith rollback {served.channel} gives {before}, or {promote}"


def _near(reach: Reach) -> Iterator[str]:
    for each in reach.survey.conditions:
        known = reach.survey.values.get(each.field, set())
        if each.value not in known:
            close = difflib.get_close_matches(each.value, sorted(known), n=3)
            seen = f"near it are {', '.join(map(repr, close))}" if close else "nor anything like it"
            yield f"no row here has this value in {each.field}; {seen}"
