"""lensmith plan: what a run would do; starts nothing and leaves nothing in the home."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lensmith.base import check_base, has_weights
from lensmith.cli.arguments import add_recipe, home_of, recipe_of
from lensmith.cli.output import note, print_json, table
from lensmith.cli.pipeline import counter_of
from lensmith.cli.stages import stage_states
from lensmith.downloaded import pinned_revision
from lensmith.families.family import TOWERS, Family
from lensmith.home import Home
from lensmith.large_imports import no_collection
from lensmith.lora_ranks import rank_slot
from lensmith.recipe import Recipe
from lensmith.signals import signals_held
from lensmith.units import GIB

if TYPE_CHECKING:
    from data_prep.prepare import Prepared
    from finetune.plan import PacksPlan, Plan, Proposal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    add_recipe(parser)
    parser.add_argument(
        "--gpu",
        metavar="NAME|GIB",
        action="append",
        default=[],
        help="say whether it fits, and the fastest setting that does: h100-80, a100-40,l40s-48, or a GPU's "
        "memory in GiB (repeatable)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Raises InputError for everything that would also stop the run before its first step."""
    from finetune.gpus import parse_gpus

    gpus = parse_gpus(arguments.gpu)
    recipe, home = recipe_of(arguments), home_of(arguments)

    from serving.profile import check_engine

    check_engine(recipe)
    check_base(recipe.base.path, recipe.model_family, weights=False)
    pinned_revision(recipe.base.path, recipe.base.revision)

    from data_prep.prepare import find_prepared
    from finetune.further import check_named

    check_named(recipe, home)
    with signals_held(), no_collection():
        from finetune.plan import plan

    done = find_prepared(recipe, home)
    states = stage_states(recipe, home, done)
    if not has_weights(recipe.base.path):
        note(f"no weights in {recipe.base.path}: planned from its configuration; a training needs them")
    with contextlib.nullcontext(done) if done else _prepared_aside(recipe) as prepared:
        planned = plan(recipe, prepared.dataset, gpus)
        rows, refused = prepared.dataset.body["rows"], prepared.intake.body["refused"]["rows"]
    if arguments.json:
        stages = {state.stage: state.made.id if state.made else None for state in states}
        told = dataclasses.asdict(planned)
        told["memory"].update(total=planned.memory.total, reserve=planned.memory.reserve)
        print_json({"stages": stages, "rows": rows, "plan": told})
        return 0
    print(table([(each.stage, each.made.short if each.made else "to do") for each in states], ("stage", "")))
    print(f"\n{_figures(recipe, planned, rows, refused)}")
    for proposal in planned.proposals:
        print(f"\n{_proposal(proposal)}")
    print(end=engine_limits(recipe.model_family))
    return 0


def engine_limits(family: Family) -> str:
    """What vLLM cannot serve of the family, or serves otherwise, a line each; "" where nothing is known."""
    known = [
        *(f"images, built for {device}: {what}." for device, what in family.vllm_images.items()),
        *(f"adapters, built for {device}: {what}." for device, what in family.vllm_no_adapters.items()),
        *family.vllm_limits,
    ]
    return f"\nvLLM and {family.title}:\n" + "".join(f"- {each}\n" for each in known) if known else ""


@contextlib.contextmanager
def _prepared_aside(recipe: Recipe) -> Iterator[Prepared]:
    """The data, prepared outside the home, and gone when the plan is told."""
    from data_prep.prepare import prepare

    note("the data was not prepared yet: reading it once, keeping nothing")
    with tempfile.TemporaryDirectory(prefix="lensmith-plan-") as folder:
        yield prepare(recipe, Home(Path(folder)), counter_of(recipe))


def _most(recipe: Recipe) -> str:
    # Counted are answers whole, as memory and packs need them.
    return "at most " if recipe.train.thinking == "mask" or recipe.train.objective == "dpo" else ""


def _packs(packs: PacksPlan) -> str:
    return (
        f"{packs.passes} a process and step, of {packs.mean_tokens:,} tokens in the mean, "
        f"{packs.tokens:,} at most"
    )


def _new_tokens(ids: dict[str, int]) -> str:
    return f"{len(ids):,}, in rows {min(ids.values()):,} to {max(ids.values()):,}"


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
        ("processes", f"{planned.launcher.processes}, {planned.launcher.division}"),
        ("parameters", f"{planned.parameters:,}"),
        *([("routed experts", f"computed by {planned.experts}")] if planned.experts else []),
        *([("new tokens", _new_tokens(planned.new_tokens))] if planned.new_tokens else []),
    ]
    train = recipe.train
    adapted, frozen = train.towers.in_mode("adapt"), train.towers.in_mode("freeze")
    for tower in TOWERS:
        how = "freeze" if tower in frozen else train.lora.told(tower) if tower in adapted else "train"
        if tower == "language" and train.method == "qlora":
            how += f", held in 4 bits ({train.quantization.type})"
            how += "; routed experts whole" if recipe.model_family.experts else ""
        if tower not in frozen:
            how += f", learning rate {train.learning_rate_of(tower):g}"
        if tower == "language" and "experts" in planned.adapted:
            how += f"; routed experts {train.lora.told('experts')}"
        lines.append((f"trained, {tower}", f"{planned.trained_parameters.get(tower, 0):,} ({how})"))
    if room := adapter_room(recipe):
        lines.append(("served as an adapter", room))
    memory = planned.memory
    parts = dataclasses.asdict(memory)
    # Not a part: the most of some of them together.
    del parts["at_once"]
    if not train.evaluate.every:
        del parts["answers"]
    if planned.image_features:
        lines.append(("image features", f"made once and kept: {_gib(planned.image_features)} of host memory"))
    else:
        del parts["features"]
    lines += [(f"memory, {name}", _gib(size)) for name, size in parts.items()]
    lines.append(("memory a device", f"{_gib(memory.total)} at most, and {_gib(memory.reserve)} in reserve"))
    return table(lines)


def adapter_room(recipe: Recipe) -> str:
    """What vLLM keeps free for the adapter that is served beside its base; "" where it is merged."""
    if recipe.serve.mode != "adapter":
        return ""
    lora, live = recipe.train.lora, recipe.serve.live
    adapted = recipe.train.towers.in_mode("adapt")
    rank = max(recipe.model_family.vllm_rank(tower, lora.rank_of(tower)) for tower in adapted)
    slot = rank_slot(rank if live is None else live.max_rank)
    text = f"rank {rank}, vLLM keeps room for {slot}"
    return text if live is None else f"{text}; for {live.max_adapters} adapters live"


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"


def _proposal(proposal: Proposal) -> str:
    gpu = proposal.gpu
    verdict = f"fits, {_gib(proposal.spare)} to spare"
    if not proposal.fits:
        verdict = f"does not fit, {_gib(-proposal.spare)} short"
    lines = [f"{gpu.name} ({_gib(gpu.memory)}): {verdict}"]
    if proposal.memory is None:
        lines.append(
            "  no setting of this launcher's kind fits: lower pixels.max_pixels, take more or larger GPUs"
        )
    elif not proposal.changes:
        lines.append("  as it is it is the fastest setting that fits")
    else:
        lines.append(f"  fastest that fits, {_gib(proposal.memory.total)}:")
        for key, value in proposal.changes.items():
            why = f"   # {proposal.reasons[key]}" if key in proposal.reasons else ""
            lines.append(f"    {key}: {value}{why}")
    return "\n".join(lines)
