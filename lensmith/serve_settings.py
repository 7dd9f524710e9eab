"""The recipe's `serve` section: how vLLM serves the result."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lensmith.section import Count, Positive, Section


class Serve(Section):
    """How vLLM serves the result."""

    mode: Literal["merged", "adapter"] = Field(
        default="merged", description="serve merged weights, or the adapter"
    )
    tower_connector_lora: bool = Field(
        default=False,
        description="mode adapter: vLLM's option to apply the vision and connector part too (experimental)",
    )
    dtype: Literal["float32", "bfloat16"] = Field(default="bfloat16", description="the engine's dtype")
    max_model_len: Count = Field(default=4096, description="prompt and answer together, in tokens")
    max_new_tokens: Count = Field(default=256, description="longest answer, in tokens")
    max_images: Count = Field(
        default=1, description="images accepted per request; a row with more is refused"
    )
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.9, description="share of GPU memory"
    )
    kv_cache_gib: Positive = Field(default=1.0, description="KV cache on a CPU engine, in GiB")
    tensor_parallel: Count = Field(default=1, description="GPUs that share one copy of the model")
    host: str = Field(default="127.0.0.1", description="address the server listens on")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(
        default=8000, description="port the server listens on"
    )
    proof_rows: Annotated[int, Field(ge=1)] = Field(
        default=64, description="held-out rows of the serve proof"
    )
    concurrency: Count = Field(default=8, description="requests in flight while evaluating")
