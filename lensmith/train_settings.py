"""The recipe's section `train`: which towers, by what method, and how they are trained."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from lensmith.families.family import TOWERS, Tower
from lensmith.rendering import ThinkingChoice
from lensmith.section import Count, Every, Positive, ResolvedPath, Section, Share, finite, refuse
from lensmith.train_evaluation import TrainEvaluate

Rank = Annotated[int, Field(ge=1)]
TowerMode = Literal["train", "adapt", "freeze"]
# What has a rank and an alpha of its own: a tower's linears, or the language model's routed experts.
LoraPart = Tower | Literal["experts"]
LoraVariant = Literal["lora", "rslora", "dora"]
Method = Literal["lora", "qlora", "full"]
# As the field writes them: Hu et al. 2021 (arXiv:2106.09685), Kalajdzievski 2023 (arXiv:2312.03732), Liu et
# al. 2024 (arXiv:2402.09353).
LORA_VARIANTS: dict[LoraVariant, str] = {"lora": "LoRA", "rslora": "rsLoRA", "dora": "DoRA"}
# Of most experiments in Rafailov et al. 2023 (arXiv:2305.18290, appendix B); TRL's default too.
DPO_BETA = 0.1


class Towers(Section):
    """What happens to each tower: "train" all weights, "adapt" with LoRA, or "freeze".

    Beside an adapter vision and connector may be trained whole.
    """

    vision: TowerMode = Field(description="the image encoder")
    connector: TowerMode = Field(description="what projects image features into the language model")
    language: TowerMode = Field(description="the language model")

    def in_mode(self, mode: TowerMode) -> list[Tower]:
        """The towers that are set to `mode`."""
        modes: dict[Tower, TowerMode] = {
            "vision": self.vision,
            "connector": self.connector,
            "language": self.language,
        }
        return [tower for tower in TOWERS if modes[tower] == mode]


class TowerLora(Section):
    """What differs in one tower's adapter."""

    rank: Rank | None = Field(default=None, description="rank of its linears; train.lora.rank where absent")
    alpha: Positive | None = Field(default=None, description="its alpha; train.lora.alpha where absent")


class LoraTowers(Section):
    """Towers whose adapter differs."""

    vision: TowerLora = Field(default_factory=TowerLora, description="the image encoder's")
    connector: TowerLora = Field(default_factory=TowerLora, description="the projector's")
    language: TowerLora = Field(default_factory=TowerLora, description="the language model's")

    def of(self, tower: Tower) -> TowerLora:
        """What differs in `tower`'s."""
        return {"vision": self.vision, "connector": self.connector, "language": self.language}[tower]


class ExpertLora(Section):
    """The routed experts' adapter: an A and a B for each expert, its router frozen."""

    rank: Rank | None = Field(default=None, description="rank in each expert; the language model's if absent")
    alpha: Positive | None = Field(default=None, description="its alpha; the language model's where absent")


class TowerRates(Section):
    """Towers that learn at another rate."""

    vision: Positive | None = Field(default=None, description="the image encoder's")
    connector: Positive | None = Field(default=None, description="the projector's")
    language: Positive | None = Field(default=None, description="the language model's")

    def of(self, tower: Tower) -> float | None:
        """The rate of `tower`, None where it has none of its own."""
        return {"vision": self.vision, "connector": self.connector, "language": self.language}[tower]


class Lora(Section):
    """The adapter."""

    variant: LoraVariant = Field(
        default="lora",
        description="lora; rslora: scaled by alpha / sqrt(rank); dora: with a trained length of each row",
    )
    rank: Rank = Field(default=16, description="rank of every adapted linear")
    alpha: Positive = Field(default=32.0, description="the delta is scaled by alpha / rank")
    dropout: Share = Field(default=0.0, description="dropout on the adapter's input")
    towers: LoraTowers = Field(
        default_factory=LoraTowers, description="rank and alpha of towers that differ from these"
    )
    experts: ExpertLora | None = Field(
        default=None, description="adapts the language model's routed experts too; absent: they stay frozen"
    )

    def rank_of(self, part: LoraPart) -> int:
        """The rank of a tower's linears, or in each expert."""
        if part == "experts":
            return (self.experts and self.experts.rank) or self.rank_of("language")
        return self.towers.of(part).rank or self.rank

    def alpha_of(self, part: LoraPart) -> float:
        """The alpha of a tower's linears, or of the experts."""
        if part == "experts":
            return (self.experts and self.experts.alpha) or self.alpha_of("language")
        return self.towers.of(part).alpha or self.alpha

    def told(self, part: LoraPart) -> str:
        """Form, rank and alpha of a part's adapter as people read it."""
        form = LORA_VARIANTS[self.variant]
        return f"{form}, rank {self.rank_of(part)}, alpha {self.alpha_of(part):g}"

    def scale_of(self, part: LoraPart) -> float:
        """What a part's B @ A is multiplied by: alpha / rank, for rsLoRA alpha / sqrt(rank)."""
        rank = self.rank_of(part)
        return self.alpha_of(part) / (math.sqrt(rank) if self.variant == "rslora" else rank)

    @model_validator(mode="after")
    def _experts_take_plain_lora(self) -> Lora:
        # PEFT 0.21 raises for both (tuners/lora/layer.py, ParamWrapper): experts are parameters, no linears.
        if self.experts is None:
            return self
        problems: list[str] = []
        if self.dropout:
            problems.append(
                "PEFT applies no dropout on routed experts: set dropout to 0, or leave out experts"
            )
        if self.variant == "dora":
            mend = "set variant to lora or rslora, or leave out experts"
            problems.append(f"PEFT applies no DoRA on routed experts: {mend}")
        refuse(problems)
        return self


class Quantization(Section):
    """The base's linears in 4 bits (Dettmers et al. 2023, arXiv:2305.14314)."""

    type: Literal["nf4", "fp4"] = Field(
        default="nf4", description="the sixteen values that a weight may have"
    )
    double: bool = Field(default=True, description="the scales of blocks of 64 weights are quantised too")


class Train(Section):
    """The fine-tune."""

    objective: Literal["answers", "dpo"] = Field(
        default="answers",
        description="learn the answers, or to prefer them to rejected ones (DPO; the base is its reference)",
    )
    beta: Positive | None = Field(
        default=None, description="objective dpo: how closely it keeps to the base; 0.1 where absent"
    )
    method: Method = Field(
        description="lora: an adapter, beside it all weights of towers set to train; qlora: the same, with "
        "the language model held in 4 bits; full: all weights of the trained towers, no adapter"
    )
    towers: Towers = Field(description="what happens to each tower")
    lora: Lora = Field(default_factory=Lora, description="the adapter, for methods lora and qlora")
    quantization: Quantization = Field(
        default_factory=Quantization, description="the language model's linears, for method qlora"
    )
    new_tokens: list[str] = Field(
        default_factory=list,
        description="strings that become one token each, such as tags of a domain: trained as rows of the "
        "embeddings and the output head, from the mean of the pieces that they had before",
    )
    launcher: ResolvedPath = Field(description="accelerate launcher config")
    dtype: Literal["float32", "bfloat16"] = Field(
        default="bfloat16", description="of weights and activations"
    )
    epochs: Positive = Field(default=1.0, description="passes over the training rows")
    max_steps: Annotated[int, Field(ge=0)] = Field(
        default=0, description="stop after so many steps; 0: by epochs"
    )
    batch_size: Count = Field(default=1, description="rows per process and forward pass")
    gradient_accumulation: Count = Field(default=1, description="forward passes per optimizer step")
    learning_rate: Positive = Field(description="peak learning rate")
    tower_learning_rates: TowerRates = Field(
        default_factory=TowerRates, description="peak learning rates of towers that learn at another"
    )
    schedule: Literal["linear", "cosine", "constant"] = Field(
        default="cosine", description="after the warm-up"
    )
    warmup: Share = Field(default=0.03, description="share of the steps that warm up")
    weight_decay: Annotated[float, Field(ge=0), AfterValidator(finite)] = Field(
        default=0.0, description="AdamW's"
    )
    max_grad_norm: Positive = Field(default=1.0, description="gradients are clipped to this norm")
    gradient_checkpointing: Every = Field(
        default=False,
        description="recompute activations to save memory: true in every block, 2 in every second one, ...",
    )
    max_length: Count = Field(default=4096, description="tokens; a longer row is an error, never cut")
    pack_length: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="most tokens of a forward pass: the rows of an optimizer step, as many as batch_size, "
        "gradient_accumulation and processes say, are packed, each seeing itself alone, and shared out "
        "evenly; the same run, without padding. 0: batch_size rows at a time, padded",
    )
    image_features_gib: Annotated[float, Field(ge=0), AfterValidator(finite)] = Field(
        default=8.0,
        description="host memory, in GiB, for what vision and connector make of the training images: where "
        "both are frozen, on one process, it is computed once and not in every epoch; 0: in every epoch",
    )
    cpu_products: Literal["torch", "onednn"] = Field(
        default="torch",
        description="what multiplies by frozen float32 weights on a CPU: torch's library (MKL), or oneDNN, "
        "which is twice as fast on AMD's processors; the same run to rounding",
    )
    thinking: ThinkingChoice = Field(
        default="keep",
        description="thoughts in the labels: taught with the answer, or seen and not taught, or left out",
    )
    seed: int = Field(default=17, description="of initialisation and row order")
    log_every: Count = Field(default=10, description="steps between metrics")
    save_every: Count = Field(default=100, description="steps between checkpoints")
    keep_last: Count = Field(
        default=1, description="last checkpoints that are kept; that of the best evaluation stays beside them"
    )
    stop_grace: Count = Field(
        default=600,
        description="seconds that a training which is told to stop has for its step and its checkpoint; what "
        "lensmith launch writes asks Slurm and Kubernetes for as many",
    )
    collective_timeout: Count = Field(
        default=1800,
        description="seconds that processes wait for the slowest one, also for its share of an evaluation",
    )
    evaluate: TrainEvaluate = Field(
        default_factory=TrainEvaluate, description="asking the model validation rows while it trains"
    )
    wandb: Literal["offline", "online", "disabled"] = Field(default="offline", description="tracker mode")
    wandb_project: str = Field(default="lensmith", description="tracker project")

    @property
    def recomputed(self) -> int:
        """Every how many blocks one is recomputed; 0 where none is."""
        return int(self.gradient_checkpointing)

    @model_validator(mode="after")
    def _can_be_trained(self) -> Train:
        refuse([*self._method_problems(), *self._tower_problems(), *self._objective_problems()])
        return self

    def _method_problems(self) -> Iterator[str]:
        adapted, trained = self.towers.in_mode("adapt"), self.towers.in_mode("train")
        if self.adapts and not adapted:
            yield f"method {self.method} adapts no tower: set at least one to adapt"
        if self.adapts and "language" in trained:
            what = "cannot train the language model whole beside an adapter"
            why = "a head that is tied to it and routed experts would not be merged as trained"
            yield f"method {self.method} {what} ({why}): set it to adapt, or method to full"
        if self.method == "full" and not trained:
            yield "method full trains no tower: set at least one to train"
        if self.method == "full" and adapted:
            yield "method full cannot adapt a tower: set it to train or freeze"
        if self.method != "qlora" and self.quantization != Quantization():
            yield f"quantization is for method qlora, not {self.method}: leave it out"
        if 0 < self.pack_length < self.max_length:
            yield f"pack_length is below max_length {self.max_length}: a row may not fit; raise it"

    def _tower_problems(self) -> Iterator[str]:
        adapted, frozen = self.towers.in_mode("adapt"), self.towers.in_mode("freeze")
        if unused := [tower for tower in frozen if self.tower_learning_rates.of(tower)]:
            yield f"tower_learning_rates: {', '.join(unused)} is frozen: leave out its rate"
        ranked = [tower for tower in TOWERS if self.lora.towers.of(tower) != TowerLora()]
        if unused := [tower for tower in ranked if tower not in adapted]:
            yield f"lora.towers: {', '.join(unused)} is not adapted: leave out its rank and alpha"
        if self.lora.experts is not None and self.towers.language != "adapt":
            mend = "set towers.language to adapt, or leave out lora.experts"
            yield f"lora.experts: they are the language model's, which is not adapted: {mend}"

    def _objective_problems(self) -> Iterator[str]:
        if self.objective == "answers":
            if self.beta is not None:
                yield "beta is objective dpo's: leave it out, or set objective to dpo"
            return
        if not self.adapts:
            mend = "set method to lora or qlora"
            yield f"objective dpo compares with the base, which method full changes: {mend}"
        if self.pack_length:
            yield "objective dpo scores rows in pairs, which packs take apart: leave out pack_length"

    @property
    def whole_beside(self) -> list[Tower]:
        """The towers of which an adapter holds all weights."""
        return self.towers.in_mode("train") if self.adapts else []

    @property
    def adapts(self) -> bool:
        """Whether what is trained is an adapter."""
        return self.method != "full"

    @property
    def dpo_beta(self) -> float:
        """beta, or the default."""
        return self.beta or DPO_BETA

    def learning_rate_of(self, tower: Tower) -> float:
        """The peak learning rate of `tower`."""
        return self.tower_learning_rates.of(tower) or self.learning_rate
