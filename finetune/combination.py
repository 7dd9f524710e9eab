"""What a recipe makes of its run and further adapters: one change of the base. No torch.

A change is what an adapter, by itself, adds to a weight: a matrix of float32 for each linear and each routed
expert that it adapts (for DoRA what its merged weight, in float32, differs by). They are combined matrix by
matrix, the run's first, then the others in the recipe's order; an adapter without a part of a matrix has no
say in it. In float32, n changes d with weights w:

- linear: the sum of w * d.
- ties (arXiv 2306.01708): of each d only its `density * elements` largest by magnitude stay, and what equals
  the smallest of these; an element's sign is that of the sum of what stayed, positive for 0; the elements of
  that sign are multiplied by w, added, and divided by how many they are.
- dare (arXiv 2311.03099): each element of d stays with probability `density` and is divided by it, else it is
  0; then as linear, or as ties without its first step.

So PEFT 0.21 defines them for tensors (utils/merge_utils.py), which elects before it weighs. The base in
float32 plus the outcome is rounded once to the base's dtype.

dare draws with Philox 4x64 (Salmon et al. 2011), 32 bits an element in the order of rows: it stays where they
are below density * 2**32. The key is the first 128 bits, as a little-endian number, of the SHA-256 of
[seed, the adapter's number, the weight's name in transformers' class, the expert's number or null] as JSON.
So what stays does not depend on blocks, threads or the files' layout.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from lensmith.artifact import Artifact
from lensmith.merge_settings import DRAWN, SEED, Method
from lensmith.recipe import Recipe


class Combination(BaseModel):
    """How changes are combined. weights: the run's own, then the others' in the recipe's order. density and
    seed are None for methods that have none."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    method: Method
    weights: tuple[float, ...]
    density: float | None
    seed: int | None


def combination_of(recipe: Recipe) -> Combination | None:
    """What the recipe asks for; None where its run is merged alone."""
    merge = recipe.merge
    if merge is None:
        return None
    seed = merge.seed
    if merge.method in DRAWN and seed is None:
        seed = SEED
    weights = (merge.weight, *(each.weight for each in merge.adapters))
    return Combination(method=merge.method, weights=weights, density=merge.density, seed=seed)


def roles(others: Sequence[Artifact]) -> dict[str, Artifact]:
    """The further adapters by their role in the manifest of what is made of them."""
    return {f"adapter_{number}": each for number, each in enumerate(others, 1)}


def check_count(combination: Combination | None, others: Sequence[Artifact]) -> None:
    """Raise ValueError where `others` are not as many as there are weights for."""
    weights = len(combination.weights) - 1 if combination else 0
    if len(others) != weights:
        raise ValueError(f"{len(others)} further adapters for {weights} weights")
