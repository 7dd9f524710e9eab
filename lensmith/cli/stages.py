"""Which stages of a recipe are done already, without doing any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lensmith.artifact import Artifact, Kind
from lensmith.base import base_key, has_weights
from lensmith.home import Home
from lensmith.recipe import Recipe

if TYPE_CHECKING:
    from data_prep.prepare import Prepared


@dataclass(frozen=True)
class StageState:
    """A stage, and the artifact it has made already, if it has."""

    stage: str
    made: Artifact | None


def stage_states(recipe: Recipe, home: Home, prepared: Prepared | None) -> list[StageState]:
    """The stages in order, after what of the data is `prepared`. From the merge on, what was made from the
    run is taken for done: whether a later stage's code has changed since is seen when it runs.

    A base without its weights is none that was made. Raises InputError where the base cannot be used.
    """
    from finetune.run import run_key

    base = home.find("base", base_key(recipe)) if has_weights(recipe.base.path) else None
    dataset = prepared.dataset if prepared else None
    run = home.find("run", run_key(recipe, base, dataset)) if base and dataset else None
    model = _made_from(home, "model", "run", run, _asked_combination(recipe))
    served = run if recipe.serve.mode == "adapter" else model
    profile = _made_from(home, "profile", "subject", served)
    trace = _made_from(home, "trace", "profile", profile)
    return [
        StageState("base", base),
        StageState("prepare", dataset),
        StageState("train", run),
        *([StageState("merge", model)] if recipe.serve.mode == "merged" else []),
        StageState("profile", profile),
        StageState("trace", trace),
        StageState("report", _made_from(home, "report", "trace", trace)),
        StageState("release", _made_from(home, "release", "model", served)),
    ]


def _asked_combination(recipe: Recipe) -> dict[str, Any] | None:
    from finetune.combination import combination_of

    combination = combination_of(recipe)
    return combination and combination.model_dump(mode="json")


def _made_from(
    home: Home,
    kind: Kind,
    role: str,
    upstream: Artifact | None,
    combination: dict[str, Any] | None = None,
) -> Artifact | None:
    if upstream is None:
        return None
    made = [
        each
        for each in home.all(kind)
        if each.manifest.inputs.get(role) == upstream.id and each.body.get("combination") == combination
    ]
    # What was asked on validation rows is no part of a release.
    made = [each for each in made if "validation" not in each.manifest.inputs]
    return made[-1] if made else None
