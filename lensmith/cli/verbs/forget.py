"""lensmith forget: what a person's or a source's rows reached, and that they are not used again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from lensmith.cli.arguments import add_settings, home_of
from lensmith.cli.output import print_json
from lensmith.cli.pipeline import Pipeline
from lensmith.decision import check_decision
from lensmith.errors import InputError, IntegrityError, Problem
from lensmith.home import Home

if TYPE_CHECKING:
    from data_prep.conditions import Condition
    from lensmith.cli.forget.rows import Survey


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    parser.add_argument(
        "--where",
        metavar="FIELD=VALUE",
        action="append",
        default=[],
        help="the rows meant, by id, group, origin.labeller, origin.source (or another part of origin) or"
        " meta.KEY; repeated: all must hold",
    )
    parser.add_argument("--who", required=True, help="who decides this")
    parser.add_argument("--why", required=True, help="the reason, kept as written: name nobody in it")
    parser.add_argument("--dry-run", action="store_true", help="only list; nothing is decided or changed")
    parser.add_argument("--recipe", metavar="RECIPE", help="the recipe to make the dataset again with")
    add_settings(parser)
    parser.add_argument(
        "--delete",
        action="store_true",
        help="remove datasets, held-out sets and intakes that hold the rows, and traces, reports and releases"
        " that quote them",
    )
    parser.add_argument(
        "--even-served", action="store_true", help="--delete also while a channel points at what was made"
    )


def run(arguments: argparse.Namespace) -> int:
    """Gives 4 where an artifact could not be looked into.

    Raises InputError for conditions that mean nothing here, GateRefused where --delete may not, and
    IntegrityError where the dataset made again still holds the rows.
    """
    from data_prep.conditions import parse_conditions
    from data_prep.forgetting import Forgotten, record_decision
    from lensmith.cli.forget.reach import reach_of
    from lensmith.cli.forget.removal import check_removable, remove
    from lensmith.cli.forget.rows import survey
    from lensmith.cli.forget.telling import as_json, listing, next_steps

    conditions = parse_conditions(arguments.where)
    who, why = arguments.who, arguments.why
    check_decision(who, why)
    home = home_of(arguments)
    pipeline = Pipeline(Path(arguments.recipe), arguments.settings, home) if arguments.recipe else None
    found = survey(home, conditions, why)
    if not Forgotten.load(home.root).knows(conditions):
        _check_meta(found)
    reach = reach_of(home, found)
    told = as_json(reach)
    if not arguments.json:
        print("\n".join(listing(reach)), flush=True)
    lines: list[str] = []
    if not arguments.dry_run:
        if arguments.delete:
            check_removable(reach, arguments.even_served)
        fresh = record_decision(home, conditions, who, why)
        told["recorded"] = fresh
        lines += ["", f"{'recorded' if fresh else 'already recorded'}: such rows are refused from now on"]
        if pipeline:
            told |= _remake(pipeline, home, conditions, why)
            lines.append(
                f"made without them: dataset-{told['dataset'][:12]}, held_out-{told['held_out'][:12]}"
            )
        if arguments.delete:
            removed = remove(home, reach, who, why)
            told["removed"] = [each.id for each in removed]
            lines += [f"removed {each.short}" for each in removed]
    gone = arguments.delete and not arguments.dry_run
    told["next"] = next_steps(reach, remade="dataset" in told, removed=gone)
    if arguments.json:
        print_json(told)
    else:
        print("\n".join([*lines, "", "next:", *(f"  - {step}" for step in told["next"])]))
    return IntegrityError.exit_code if reach.unread else 0


def _check_meta(found: Survey) -> None:
    """A key that no row has is a misspelt key; without any row there is nothing to hold it against."""
    import difflib

    from data_prep.conditions import META

    problems: list[Problem] = []
    for each in found.conditions:
        if found.rows and each.field.startswith(META) and not found.values[each.field]:
            close = difflib.get_close_matches(each.field.removeprefix(META), sorted(found.meta), n=1)
            hint = f"did you mean {META + close[0]!r}?" if close else "look at a row: lensmith preview RECIPE"
            problems.append(Problem(f"no row here has {each.field!r}", f"--where {each.field}", hint))
    if problems:
        raise InputError("it is not clear which rows are meant", problems)


def _remake(pipeline: Pipeline, home: Home, conditions: tuple[Condition, ...], why: str) -> dict[str, str]:
    """Prepare again, and look into what came of it."""
    from lensmith.cli.forget.rows import Survey

    dataset, held_out, intake = pipeline.dataset, pipeline.held_out, pipeline.intake
    left = Survey(conditions)
    for artifact in (dataset, held_out):
        left.look_into(home, artifact, why)
    left.look_at_intake(intake)
    if left.holdings or left.unread:
        problems = [Problem("still holds such rows", each.artifact.short) for each in left.holdings]
        problems += [Problem(each.why, each.artifact.short) for each in left.unread]
        raise IntegrityError("the dataset was made again, and the rows are not gone", problems)
    return {"dataset": dataset.id, "held_out": held_out.id, "intake": intake.id}
