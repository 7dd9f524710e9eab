"""How a model is shared out over GPUs: what the recipe leaves open is settled, what cannot work is named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lensmith.errors import Problem
from lensmith.families.experts import value_at
from lensmith.families.family import Family
from lensmith.gpus import BFLOAT16_FROM, FP8_FROM
from lensmith.serve_settings import Serve
from lensmith.units import GIB
from serving.hardware import Gpu
from serving.profile_file import Cuda

# The language model's heads, under these names in every family's config; vLLM shares the first out evenly and
# keeps copies of the second where there are more GPUs (0.32, config/model.py and models/qwen3.py).
_HEADS, _KV_HEADS = "text_config.num_attention_heads", "text_config.num_key_value_heads"


def cuda_settings(serve: Serve, family: Family, gpus: tuple[Gpu, ...]) -> Cuda:
    """The settings of a GPU engine, nothing left open. The recipe's own limits on `serve` hold already."""
    offers, taken = family.vllm_offers, gpus[: serve.gpus]
    encoder, experts = serve.encoder_parallel, serve.expert_parallel
    if encoder == "auto":
        encoder = "data" if offers.encoder_data and serve.tensor_parallel > 1 else "weights"
    if experts == "auto":
        experts = offers.experts == "on" and serve.gpus > 1
    return Cuda(
        gpu=", ".join(dict.fromkeys(gpu.name for gpu in taken)),
        memory_utilization=serve.gpu_memory_utilization,
        tensor_parallel=serve.tensor_parallel,
        data_parallel=serve.data_parallel,
        encoder_parallel=encoder,
        expert_parallel=experts,
        quantization=serve.quantization,
        kv_cache_dtype=serve.kv_cache_dtype,
    )


def gpu_problems(
    serve: Serve, family: Family, config: Mapping[str, Any], gpus: tuple[Gpu, ...], weights: int
) -> list[Problem]:
    """Every reason why these GPUs cannot hold or compute the model as `serve` says.

    config: the checkpoint's config.json. weights: their bytes once loaded, of one copy.
    """
    problems = [*_count_problems(serve, gpus), *_head_problems(serve, family, config)]
    taken = gpus[: serve.gpus]
    for gpu in dict.fromkeys(taken):
        problems += _generation_problems(serve, gpu)
    return problems + _memory_problems(serve, family, taken, weights)


def _count_problems(serve: Serve, gpus: tuple[Gpu, ...]) -> Iterator[Problem]:
    if len(gpus) < serve.gpus:
        what = f"{serve.gpus} GPUs are asked for, this machine has {len(gpus)}"
        where = "serve.tensor_parallel" if serve.data_parallel == 1 else "tensor_parallel x data_parallel"
        yield Problem(what, where, "lower it, or mend the driver: lensmith doctor")


def _generation_problems(serve: Serve, gpu: Gpu) -> Iterator[Problem]:
    if gpu.capability == (0, 0):
        # The driver does not say: vLLM refuses by itself what it cannot do at all.
        return
    if serve.dtype == "bfloat16" and gpu.capability < BFLOAT16_FROM:
        yield Problem(f"{gpu.name} does not compute in bfloat16", "serve.dtype", "float32, or a newer GPU")
    for key, value in (("quantization", serve.quantization), ("kv_cache_dtype", serve.kv_cache_dtype)):
        if value == "fp8" and gpu.capability < FP8_FROM:
            what = f"{gpu.name} does not compute in FP8: vLLM would only store it so, and lose the digits"
            yield Problem(what, f"serve.{key}", "leave it out, or take Ada, Hopper or Blackwell GPUs")


def _head_problems(serve: Serve, family: Family, config: Mapping[str, Any]) -> Iterator[Problem]:
    """Attention heads that cannot be shared out; what a config leaves to its class is not judged."""
    share = serve.tensor_parallel
    if (heads := _stated(config, _HEADS)) and heads % share:
        what = f"{heads} attention heads cannot be shared out over {share} GPUs"
        yield Problem(what, "serve.tensor_parallel", f"a divisor of {heads}")
    if (heads := _stated(config, _KV_HEADS)) and heads % share and share % heads:
        what = f"{heads} key-value heads can be neither shared out over {share} GPUs nor copied to them"
        yield Problem(what, "serve.tensor_parallel", f"a divisor or a multiple of {heads}")
    offers = family.vllm_offers
    cut = serve.encoder_parallel == "weights" or not offers.encoder_data
    if cut and offers.vision_heads and (heads := _stated(config, offers.vision_heads)) and heads % share:
        what = f"{heads} heads of the vision tower cannot be shared out over {share} GPUs"
        mend = "serve.encoder_parallel: data" if offers.encoder_data else f"a divisor of {heads}"
        yield Problem(what, "serve.tensor_parallel", mend)


def _stated(config: Mapping[str, Any], path: str) -> int:
    try:
        return int(value_at(config, path))
    except (KeyError, TypeError):
        return 0


def _memory_problems(serve: Serve, family: Family, taken: tuple[Gpu, ...], weights: int) -> list[Problem]:
    # Memory 0: the driver states none.
    least = min((gpu.memory for gpu in taken), default=0)
    # At least: with whole experts on each GPU, the copies of the model share those.
    spread = cuda_settings(serve, family, taken).expert_parallel
    needed = weights // (serve.gpus if spread else serve.tensor_parallel)
    share = int(least * serve.gpu_memory_utilization)
    if not least or needed <= share:
        return []
    what = f"the weights take {needed / GIB:.1f} GiB on each GPU, {share / GIB:.1f} GiB may be used"
    return [Problem(what, "serve.tensor_parallel", "use more GPUs, or raise gpu_memory_utilization")]
