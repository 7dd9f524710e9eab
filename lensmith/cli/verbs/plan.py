"""lensmith plan: what a run would do; starts nothing and leaves nothing in the home."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lensmith.cli.arguments import add_recipe, home_of, recipe_of
from lensmith.cli.output import note, print_json, table
from lensmith.cli.pipeline import counter_of
from lensmith.cli.stages import stage_states
from lensmith.families.family import TOWERS
from lensmith.home import Home
from lensmith.recipe import Recipe
from lensmith.signals import signals_held
from lensmith.units import GIB

if TYPE_CHECKING:
    from data_prep.prepare import Prepared
    from finetune.plan import PacksPlan, Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    add_recipe(parser)


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError for everything that would also stop the run before its first step."""
    from data_prep.prepare import find_prepared

    with signals_held():
        from finetune.plan import plan

    recipe, home = recipe_of(arguments), home_of(arguments)
    done = find_prepared(recipe, home)
    states = stage_states(recipe, home, done)
    with contextlib.nullcontext(done) if done else _prepared_aside(recipe) as prepared:
        planned = plan(recipe, prepared.dataset)
        rows, refused = prepared.dataset.body["rows"], prepared.intake.body["refused"]["rows"]
    if arguments.json:
        stages = {state.stage: state.made.id if state.made else None for state in states}
        print_json({"stages": stages, "rows": rows, "plan": dataclasses.asdict(planned)})
        return 0
    print(table([(each.stage, each.made.short if each.made else "to do") for each in states], ("stage", "")))
    print(f"\n{_figures(recipe, planned, rows, refused)}")
    return 0


@contextlib.contextmanager
def _prepared_aside(recipe: Recipe) -> Iterator[Prepared]:
    """The data, prepared outside the home, and gone when the plan is told."""
    from data_prep.prepare import prepare

    note("the data was not prepared yet: reading it once, keeping nothing")
    with tempfile.TemporaryDirectory(prefix="lensmith-plan-") as folder:
        yield prepare(recipe, Home(Path(folder)), counter_of(recipe))


def _most(recipe: Recipe) -> str:
    # Counted are answers whole, as memory and packs need them.
    return "at most " if recipe.train.thinking == "mask" else ""


def _packs(packs: PacksPlan) -> str:
    return (
        f"{packs.passes} a process and step, of {packs.mean_tokens:,} tokens in the mean, "
        f"{packs.tokens:,} at most"
    )


def _figures(recipe: Recipe, planned: Plan, rows: dict[str, int], refused: int) -> str:
    tokens = planned.rows
    lines = [
        (
            "rows",
            f"{rows['train']:,} train, {rows['validation']:,} validation, {rows['held_out']:,} held-out",
        ),
        ("rows refused", f"{refused:,}"),
        ("tokens a pass", f"{tokens.image_tokens:,} image, {tokens.text_tokens:,} text"),
        ("tokens with loss", f"{_most(recipe)}{tokens.answer_tokens:,}"),
        ("steps", f"{planned.steps:,} of {planned.global_batch} rows"),
        *([("packs", _packs(planned.packs))] if planned.packs else []),
        ("processes", f"{planned.launcher.processes}, ZeRO stage {planned.launcher.zero_stage}"),
        ("parameters", f"{planned.parameters:,}"),
    ]
    train = recipe.train
    adapted, frozen = train.towers.in_mode("adapt"), train.towers.in_mode("freeze")
    for tower in TOWERS:
        how = "freeze" if tower in frozen else train.lora.told(tower) if tower in adapted else "train"
        if tower not in frozen:
            how += f", learning rate {train.learning_rate_of(tower):g}"
        if tower == "language" and "experts" in planned.adapted:
            how += f"; routed experts {train.lora.told('experts')}"
        lines.append((f"trained, {tower}", f"{planned.trained_parameters.get(tower, 0):,} ({how})"))
    memory = planned.memory
    detail = ", ".join(f"{name} {size / GIB:.2f}" for name, size in dataclasses.asdict(memory).items())
    lines.append(("memory a device", f"{memory.total / GIB:.2f} GiB ({detail})"))
    return table(lines)
