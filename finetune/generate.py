"""The reference: what base and adapter answer in transformers, greedily, in a fresh process.

`python -m finetune.generate REQUEST` is that process; REQUEST is a `Request` as JSON.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from finetune.combination import Combination, check_count, combination_of, roles
from finetune.quantized import read_quantized
from lensmith.artifact import Artifact
from lensmith.base import checkpoint_path
from lensmith.errors import LensmithError
from lensmith.failure import read_failure, write_failure
from lensmith.guide import Guide, recipe_guide
from lensmith.home import Home
from lensmith.large_imports import QuickExit, no_collection
from lensmith.left_out import IN_FOUR_BITS, UNUSED, leave_out
from lensmith.new_tokens import learned_tokens
from lensmith.process import run_child, stop_tree
from lensmith.provenance import ROOT, package_versions, stage_key
from lensmith.recipe import Recipe
from lensmith.rendering import ThinkingChoice
from lensmith.signals import signals_held
from lensmith.tokens import PixelBudget
from lensmith.trace import TraceSettings

PACKAGES = ("torch", "transformers", "peft", "xgrammar")
REASON = "reference trace"
ERROR_FILE = "error.json"
STDERR = 2


class Request(BaseModel):
    """What the fresh process is asked. `run` None asks the base as it is; `out` is an artifact's draft.

    others: further adapters that are combined with the run's, as `combination` says.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    home: Path
    held_out: Path
    base: Path
    run: Path | None
    others: list[Path] = []
    combination: Combination | None = None
    family: str
    thinking: ThinkingChoice
    new_tokens: list[str]
    pixels: PixelBudget | None
    dtype: str
    rows: int
    max_new_tokens: int
    guide: Guide | None
    out: Path


def reference_trace(
    recipe: Recipe,
    home: Home,
    base: Artifact,
    run: Artifact | None,
    held_out: Artifact,
    rows: int,
    others: Sequence[Artifact] = (),
) -> Artifact:
    """The trace of `run` (of the base itself where None) on the first `rows` rows of `exam.proof_rows`.

    Greedy, unmerged, in the dtype that is served; a run's guided answers as well, where they are offered.
    With `others`, the further adapters of the recipe's `merge` section, the base's own weights plus their
    combination. Raises what the process raised; RuntimeError where it ended without saying why.
    """
    combination = combination_of(recipe) if run else None
    check_count(combination, others)
    inputs = {"base": base, "held_out": held_out} | ({"run": run} if run else {}) | roles(others)
    serve = recipe.serve
    budget = recipe.pixel_budget
    guide = recipe_guide(recipe) if run else None
    asked = {
        "pixels": budget and asdict(budget),
        "family": recipe.family,
        "thinking": recipe.train.thinking,
        "dtype": serve.dtype,
        "max_new_tokens": serve.max_new_tokens,
        "rows": rows,
        "combination": combination and combination.model_dump(mode="json"),
        "guided": guide.digest if guide else "",
    }
    ids = {role: artifact.id for role, artifact in inputs.items()}
    key = stage_key("reference", "finetune.generate", PACKAGES, asked, ids)
    if found := home.find("trace", key):
        return found
    with home.create("trace", key, inputs) as draft:
        answered = _ask(
            Request(
                home=home.root,
                held_out=held_out.path,
                base=checkpoint_path(base),
                run=run.path if run else None,
                others=[each.path for each in others],
                combination=combination,
                family=recipe.family,
                thinking=recipe.train.thinking,
                new_tokens=list(learned_tokens(run.body)) if run else [],
                pixels=budget,
                dtype=serve.dtype,
                rows=rows,
                max_new_tokens=serve.max_new_tokens,
                guide=guide,
                out=draft.path,
            )
        )
        settings = TraceSettings(
            subject=(run or base).id,
            held_out=held_out.id,
            engine="transformers",
            engine_version=package_versions(("transformers",))["transformers"],
            dtype=serve.dtype,
            max_new_tokens=serve.max_new_tokens,
            rows=answered,
            serving="none",
            template=base.body["template"],
            guided=guide.digest if guide else "",
        )
        draft.body.update(settings.model_dump())
    return draft.artifact


def _ask(request: Request) -> int:
    """Run the fresh process to its end; the number of rows it answered."""
    error = request.out / ERROR_FILE
    # OpenMP's threads spin while they wait: seven times slower on a machine that others use too.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    argv = [sys.executable, "-m", "finetune.generate", request.model_dump_json()]
    # What it prints goes where errors go: our own standard output may be JSON.
    # In a group of its own: Ctrl-C is ours to handle; a child that still imports would print a traceback.
    process = run_child(argv, env=environment, cwd=ROOT, stdout=STDERR, own_group=True)
    try:
        code = process.wait()
    finally:
        stop_tree(process)
    if error.is_file():
        raise read_failure(error)
    if code != 0:
        raise RuntimeError(f"the reference process ended with code {code}")
    with (request.out / "trace.jsonl").open("rb") as lines:
        return sum(1 for _ in lines)


def main() -> None:
    """The fresh process: answer the request on the command line."""
    ending = QuickExit()
    request = Request.model_validate_json(sys.argv[1])
    leave_out(*UNUSED)
    if request.run is None or read_quantized(request.run) is None:
        leave_out(IN_FOUR_BITS)
    # Imported here: whoever only starts the process needs no torch.
    with signals_held(), no_collection():
        from finetune.greedy import answer

    try:
        answer(request)
    except LensmithError as error:
        write_failure(request.out / ERROR_FILE, error)
        ending.exit(error.exit_code)
    ending.exit(0)


if __name__ == "__main__":
    main()
