"""The recipe's `serve` section: how vLLM serves the result."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from lensmith.lora_ranks import LORA_RANKS
from lensmith.section import Count, Positive, Section, refuse


class Live(Section):
    """Room beside the base for several releases' adapters, loaded and unloaded while the engine runs."""

    max_adapters: Count = Field(description="adapters that can be loaded at a time")
    max_rank: Annotated[int, Field(ge=1, le=LORA_RANKS[-1])] = Field(
        description="largest rank among them, of this adapter and of those to come"
    )
    at_once: Count | None = Field(
        default=None,
        description="adapters whose requests are computed together, each in GPU memory; all where absent",
    )

    @model_validator(mode="after")
    def _no_more_at_once_than_there_are(self) -> Live:
        if self.at_once is not None and self.at_once > self.max_adapters:
            refuse([f"at_once is above max_adapters ({self.max_adapters}): lower it, or leave it out"])
        return self


def _switch(value: object) -> object:
    if value == "auto" or isinstance(value, bool):
        return value
    raise ValueError(f"auto, true or false is expected, not {value!r}")


Switch = Annotated[Literal["auto"] | bool, BeforeValidator(_switch)]


class Serve(Section):
    """How vLLM serves the result."""

    mode: Literal["merged", "adapter"] = Field(
        default="merged", description="serve merged weights, or the adapter"
    )
    tower_connector_lora: bool = Field(
        default=False,
        description="mode adapter: vLLM's option to apply the vision and connector part too (experimental)",
    )
    live: Live | None = Field(
        default=None, description="mode adapter: share the engine with adapters of other releases; absent: no"
    )
    dtype: Literal["float32", "bfloat16"] = Field(default="bfloat16", description="the engine's dtype")
    max_model_len: Count = Field(default=4096, description="prompt and answer together, in tokens")
    max_new_tokens: Count = Field(default=256, description="longest answer, in tokens")
    max_images: Count = Field(
        default=1, description="images accepted per request; a row with more is refused"
    )
    max_videos: Count = Field(
        default=1,
        description="videos accepted per request where the recipe has data.video; a row with more is refused",
    )
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.9, description="share of GPU memory"
    )
    kv_cache_gib: Positive = Field(default=1.0, description="KV cache on a CPU engine, in GiB")
    tensor_parallel: Count = Field(default=1, description="GPUs that share one copy of the model")
    data_parallel: Count = Field(
        default=1,
        description="copies of the model behind one address, each on tensor_parallel GPUs of its own",
    )
    encoder_parallel: Literal["auto", "weights", "data"] = Field(
        default="auto",
        description="the vision tower on tensor_parallel GPUs: cut like the rest (weights), or whole on "
        "each, which takes a share of the images (data); auto: data where vLLM can",
    )
    expert_parallel: Switch = Field(
        default="auto",
        description="whole experts on each GPU instead of a slice of every expert; auto: as vLLM's "
        "recipe for the family",
    )
    quantization: Literal["none", "fp8"] = Field(
        default="none",
        description="fp8: vLLM rounds the weights of linear layers to 8 bits as it loads them, and "
        "activations as they come; no serve proof can pass, as no bound for it is measured",
    )
    kv_cache_dtype: Literal["auto", "fp8"] = Field(
        default="auto", description="auto: that of dtype; fp8: half the memory, and no serve proof can pass"
    )
    tools: bool = Field(
        default=False, description="take tool calls out of answers, where a request offers tools"
    )
    thinking: bool = Field(
        default=False,
        description="take thoughts out of answers; only for models that always think: without the end of a "
        "thought the whole answer counts as one",
    )
    host: str = Field(default="127.0.0.1", description="address the server listens on")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(
        default=8000, description="port the server listens on"
    )
    guided_json: bool = Field(
        default=False,
        description="offer answers that are kept to data.answer_schema, where a request asks for that; proven"
        " beside free answers",
    )
    proof_rows: Annotated[int, Field(ge=1)] = Field(
        default=64, description="held-out rows of the serve proof"
    )
    concurrency: Count = Field(default=8, description="requests in flight while evaluating")

    @model_validator(mode="after")
    def _live_is_of_adapters(self) -> Serve:
        if self.live is not None and self.mode != "adapter":
            refuse(
                ["live has room for adapters, merged weights take none: set mode to adapter, or leave it out"]
            )
        return self

    @property
    def gpus(self) -> int:
        """GPUs that an engine built for them takes."""
        return self.tensor_parallel * self.data_parallel
