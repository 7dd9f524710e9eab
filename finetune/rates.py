"""Towers that learn at their own rate: an optimizer's parameter groups, cut by it."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim import Optimizer

from finetune.adapter import module_name
from lensmith.recipe import Recipe


def split_by_rate(
    optimizer: Optimizer, parameters: Iterable[tuple[str, nn.Parameter]], recipe: Recipe
) -> None:
    """Cut the groups of a new `optimizer` so that each parameter learns at its tower's peak rate.

    `parameters`: the model's by name. What a group has besides its rate, such as weight decay, stays. Groups
    at `train.learning_rate` come first, where a trainer looks for the rate that it reports. For a schedule
    that is made afterwards: it takes each group's rate for its peak.
    """
    family, train = recipe.model_family, recipe.train
    rates = {
        parameter: train.learning_rate_of(family.tower_of(module_name(name)))
        for name, parameter in parameters
        if parameter.requires_grad
    }
    groups = [
        {**group, "params": [each for each in group["params"] if rates[each] == rate], "lr": rate}
        for group in optimizer.param_groups
        for rate in dict.fromkeys(rates.values())
    ]
    optimizer.param_groups = sorted(
        (group for group in groups if group["params"]), key=lambda group: group["lr"] != train.learning_rate
    )
