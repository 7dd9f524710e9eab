"""The recipe's section `train`: which towers, by what method, and how they are trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from lensmith.families.family import TOWERS, Tower
from lensmith.rendering import ThinkingChoice
from lensmith.section import Count, Positive, ResolvedPath, Section, Share, finite

TowerMode = Literal["train", "adapt", "freeze"]


class Towers(Section):
    """What happens to each tower: "train" all weights, "adapt" with LoRA, or "freeze"."""

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


class Lora(Section):
    """The adapter."""

    rank: Annotated[int, Field(ge=1, le=512)] = Field(default=16, description="rank of every adapted linear")
    alpha: Positive = Field(default=32.0, description="the delta is scaled by alpha / rank")
    dropout: Share = Field(default=0.0, description="dropout on the adapter's input")


class Train(Section):
    """The fine-tune."""

    method: Literal["lora", "full"] = Field(description="LoRA adapter or all weights of the trained towers")
    towers: Towers = Field(description="what happens to each tower")
    lora: Lora = Field(default_factory=Lora, description="the adapter, for method lora")
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
    schedule: Literal["linear", "cosine", "constant"] = Field(
        default="cosine", description="after the warm-up"
    )
    warmup: Share = Field(default=0.03, description="share of the steps that warm up")
    weight_decay: Annotated[float, Field(ge=0), AfterValidator(finite)] = Field(
        default=0.0, description="AdamW's"
    )
    max_grad_norm: Positive = Field(default=1.0, description="gradients are clipped to this norm")
    gradient_checkpointing: bool = Field(default=False, description="recompute activations to save memory")
    max_length: Count = Field(default=4096, description="tokens; a longer row is an error, never cut")
    pack_length: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="most tokens of a forward pass: the rows of an optimizer step, as many as batch_size, "
        "gradient_accumulation and processes say, are packed, each seeing itself alone, and shared out "
        "evenly; the same run, without padding. 0: batch_size rows at a time, padded",
    )
    thinking: ThinkingChoice = Field(
        default="keep", description="thoughts in the labels: taught with the answer, or left out"
    )
    seed: int = Field(default=17, description="of initialisation and row order")
    log_every: Count = Field(default=10, description="steps between metrics")
    save_every: Count = Field(default=100, description="steps between checkpoints")
    wandb: Literal["offline", "online", "disabled"] = Field(default="offline", description="tracker mode")
    wandb_project: str = Field(default="lensmith", description="tracker project")

    @model_validator(mode="after")
    def _method_fits_towers(self) -> Train:
        adapted, trained = self.towers.in_mode("adapt"), self.towers.in_mode("train")
        if self.method == "lora" and not adapted:
            raise ValueError("method lora adapts no tower: set at least one to adapt")
        if self.method == "lora" and trained:
            raise ValueError("method lora cannot train a tower whole: set it to adapt or freeze")
        if self.method == "full" and not trained:
            raise ValueError("method full trains no tower: set at least one to train")
        if self.method == "full" and adapted:
            raise ValueError("method full cannot adapt a tower: set it to train or freeze")
        return self

    @model_validator(mode="after")
    def _longest_row_fits_a_pack(self) -> Train:
        if 0 < self.pack_length < self.max_length:
            raise ValueError(
                f"pack_length is below max_length {self.max_length}: a row may not fit; raise it"
            )
        return self
