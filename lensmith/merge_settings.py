"""The recipe's `merge` section: further adapters of the same base, merged with its run by weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from lensmith.section import ResolvedPath, Section, finite, refuse
from lensmith.train_settings import Train

Method = Literal["linear", "ties", "dare_linear", "dare_ties"]
# Those that keep a share of each change.
SPARSE: tuple[Method, ...] = ("ties", "dare_linear", "dare_ties")
# Those that draw which.
DRAWN: tuple[Method, ...] = ("dare_linear", "dare_ties")
SEED = 17
# vLLM applies one adapter to a request, and its weight is the adapter's own.
MERGED_ONLY = (
    "vLLM does not add several adapters by weights, so they will be merged: set serve.mode to merged, or"
    " remove merge"
)


def _counts(value: float) -> float:
    if value == 0:
        raise ValueError("weight 0 would leave it out: remove it, or give it a weight")
    return finite(value)


Weight = Annotated[float, AfterValidator(_counts)]


class Further(Section):
    """An adapter that is merged with the run."""

    run: Annotated[str, Field(pattern=r"^run-[0-9a-f]{6,64}$")] | None = Field(
        default=None, description="a run in this home: run- and 6 or more digits of its id"
    )
    path: ResolvedPath | None = Field(
        default=None,
        description="or a folder with adapter_config.json and adapter_model.safetensors, as PEFT, ms-swift,"
        " LLaMA-Factory or Unsloth leave it",
    )
    weight: Weight = Field(description="what its change of the base is multiplied by")

    @model_validator(mode="after")
    def _stands_once(self) -> Further:
        if (self.run is None) == (self.path is None):
            raise ValueError("give either run or path")
        return self

    @property
    def told(self) -> str:
        """As the recipe names it."""
        return self.run or str(self.path)


class Merge(Section):
    """Further adapters of the same base, merged with this recipe's run by weights."""

    adapters: Annotated[list[Further], Field(min_length=1)] = Field(description="those beside this run's")
    method: Method = Field(
        default="linear",
        description="linear adds the weighted changes; ties keeps the largest of each and, element by"
        " element, those of one sign (arXiv 2306.01708); dare drops some of each by chance and enlarges the"
        " rest (arXiv 2311.03099), before either",
    )
    weight: Weight = Field(default=1.0, description="what this run's own change is multiplied by")
    density: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="share of each change that is kept; for ties and dare, which need it"
    )
    seed: int | None = Field(
        default=None, description=f"of what dare drops; {SEED} where absent, for dare alone"
    )

    @model_validator(mode="after")
    def _fits_method(self) -> Merge:
        problems: list[str] = []
        if self.method in SPARSE and self.density is None:
            problems.append(f"method {self.method} needs density, the share of each change that is kept")
        if self.method not in SPARSE and self.density is not None:
            problems.append(f"method {self.method} keeps every change whole: remove density")
        if self.method not in DRAWN and self.seed is not None:
            problems.append(f"method {self.method} draws nothing: remove seed")
        told = [each.told for each in self.adapters]
        problems += [
            f"{each} is named twice: add its weights" for each in sorted(set(told)) if told.count(each) > 1
        ]
        refuse(problems)
        return self


def merge_problems(train: Train) -> list[str]:
    """Why the run of `train` cannot be merged with further adapters: it is no change of the base alone."""
    problems: list[str] = []
    if train.method == "full":
        problems.append("method full makes no adapter: set train.method to lora")
    if train.method == "qlora":
        problem = "a qlora adapter is a change of the base in 4 bits, the others are of the base as it is"
        problems.append(f"{problem}: set train.method to lora")
    if whole := train.whole_beside:
        names = ", ".join(whole)
        problems.append(f"weights held whole ({names}) cannot be weighed: set them to adapt or freeze")
    if train.new_tokens:
        problems.append(
            "rows of new tokens are whole values, which cannot be weighed: leave out train.new_tokens"
        )
    return [f"merge.adapters: {each}" for each in problems]
