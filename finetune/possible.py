"""Whether a training can be made, and its model served: what is known before a weight is read."""

from __future__ import annotations

from finetune.launcher import Launcher, method_problems
from lensmith.artifact import Artifact
from lensmith.context import context_problems, length_problems
from lensmith.errors import InputError, Problem
from lensmith.recipe import Recipe


def check_possible(recipe: Recipe, launcher: Launcher, dataset: Artifact) -> None:
    """Raise InputError with everything for which the recipe cannot be trained by `launcher` on `dataset`, or
    no engine would serve what comes out."""
    problems = [
        *method_problems(launcher, recipe),
        *evaluation_problems(recipe, dataset),
        *length_problems(recipe, recipe.base.path),
        *context_problems(recipe, recipe.base.path),
    ]
    if problems:
        raise InputError(f"this cannot be trained with {launcher.path}, or not be served", problems)


def evaluation_problems(recipe: Recipe, dataset: Artifact) -> list[Problem]:
    """Why the recipe's evaluations during training cannot be made."""
    evaluate, answer = recipe.train.evaluate, recipe.data.answer
    problems: list[Problem] = []
    if not evaluate.every:
        return problems
    if not dataset.body["rows"]["validation"]:
        mend = "give data.split.validation a share of the groups; or leave out train.evaluate"
        problems.append(Problem("the dataset has no validation rows", "train.evaluate", mend))
    if not evaluate.fits(answer):
        metric = evaluate.task_metric(answer)
        mend = "use exact_match or character_error_rate"
        problems.append(Problem(f"{metric} says nothing of {answer} answers", "train.evaluate.metric", mend))
    return problems
