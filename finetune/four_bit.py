"""A language model in 4 bits (QLoRA: Dettmers et al. 2023, arXiv:2305.14314), through bitsandbytes.

Imported for method qlora alone: bitsandbytes takes seconds.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from accelerate import PartialState
from bitsandbytes.functional import QuantState, dequantize_4bit, quantize_4bit
from bitsandbytes.nn.modules import Linear4bit, Params4bit
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from finetune.model import DTYPES, load_model
from finetune.quantized import (
    Quantized,
    other_values,
    quantized_linears,
    read_quantized,
    write_quantized,
)
from lensmith.errors import IntegrityError, Problem
from lensmith.families.family import Family
from lensmith.recipe import Recipe
from lensmith.train_settings import Quantization

_SHOWN = 5


def quantize(weight: torch.Tensor, quantization: Quantization) -> tuple[torch.Tensor, QuantState]:
    """`weight` [out, in] on the CPU in 4 bits: two a byte, and the scales of their blocks.

    In one thread: the scales of the blocks are quantised around their mean, which more threads sum in another
    order, and their last bit reaches every weight.
    """
    with in_one_thread():
        return quantize_4bit(weight, compress_statistics=quantization.double, quant_type=quantization.type)


@contextmanager
def in_one_thread() -> Iterator[None]:
    """While it is open, torch computes with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def dequantized(quantized: Quantized, module: str, stored: torch.Tensor) -> torch.Tensor:
    """The values [out, in] that the training computed with in the place of `stored`, the base's own.

    Raises IntegrityError where they are not what the run keeps.
    """
    values = dequantize_4bit(*quantize(stored.to(DTYPES[quantized.dtype]), quantized.quantization))
    quantized.check(module, _digest(values))
    return values


def quantize_linears(
    model: nn.Module,
    names: Iterable[str],
    quantization: Quantization,
    dtype: torch.dtype,
    compute: torch.dtype,
) -> dict[str, str]:
    """Hold the linears `names` of `model`, on the CPU, in 4 bits; by name the digest of each dequantised.

    dtype: of the weights that are quantised, and of their values. compute: in which they are multiplied.
    """
    digests: dict[str, str] = {}
    for name in names:
        linear = model.get_submodule(name)
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"{name} is a {type(linear).__name__}, not a linear layer")
        small = Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=linear.bias is not None,
            compute_dtype=compute,
            compress_statistics=quantization.double,
            quant_type=quantization.type,
            device=torch.device("meta"),
        )
        held, scales = quantize(linear.weight.data.to(dtype), quantization)
        digests[name] = _digest(dequantize_4bit(held, scales))
        # Its arguments are those of __new__, which a type checker does not look at.
        make_weight = cast(Callable[..., Params4bit], Params4bit)
        small.weight = make_weight(
            held,
            quant_state=scales,
            compress_statistics=quantization.double,
            quant_type=quantization.type,
            bnb_quantized=True,
        )
        small.bias = linear.bias
        # On CPUs with bfloat16 instructions it would repack its weights at the first pass without gradients,
        # round what it computes to bfloat16, and be lost to training.
        small.support_avx512bf16_for_cpu = False
        model.set_submodule(name, small)
    return digests


def hold_in_four_bits(model: PreTrainedModel, recipe: Recipe, work: Path) -> None:
    """Hold the language model of a training in 4 bits; what it is worth is kept in `work`.

    Raises IntegrityError where it is not what the training began with, or what the first process has.
    """
    state, settings = PartialState(), recipe.train
    names = quantized_linears(recipe.model_family, model.config.to_dict())
    dtype = DTYPES[settings.dtype]
    digests = quantize_linears(model, names, settings.quantization, dtype, dtype)
    found = Quantized(quantization=settings.quantization, dtype=settings.dtype, linears=digests)
    if state.is_main_process and read_quantized(work) is None:
        write_quantized(work, found)
    state.wait_for_everyone()
    if (kept := read_quantized(work)) != found:
        known = kept.linears if kept else {}
        raise other_values([name for name in names if known.get(name) != digests[name]])


def load_quantized(base: Path, quantized: Quantized, dtype: torch.dtype) -> PreTrainedModel:
    """The base in `dtype` with its linears in 4 bits, as a training had it; they multiply in `dtype`.

    Raises IntegrityError where their values are not those that the run keeps.
    """
    before = DTYPES[quantized.dtype]
    model = _load_unrounded(base, dtype, before)
    found = quantize_linears(model, quantized.linears, quantized.quantization, before, dtype)
    if wrong := [name for name, digest in quantized.linears.items() if found[name] != digest]:
        raise other_values(wrong)
    return _rounded(model, dtype)


def load_dequantized(base: Path, quantized: Quantized, dtype: torch.dtype) -> PreTrainedModel:
    """The base in `dtype`, its linears with the values that a training had in 4 bits.

    Raises IntegrityError where these are not what the run keeps.
    """
    model = _load_unrounded(base, dtype, DTYPES[quantized.dtype])
    for name in quantized.linears:
        weight = model.get_submodule(name).get_parameter("weight")
        weight.data = dequantized(quantized, name, weight.data).to(weight.dtype)
    return _rounded(model, dtype)


def _load_unrounded(base: Path, *dtypes: torch.dtype) -> PreTrainedModel:
    # Quantised is what is on disk, rounded to the training's dtype and no other.
    return load_model(base, functools.reduce(torch.promote_types, dtypes))


def _rounded(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Weights in `dtype`; buffers, and weights in 4 bits, keep theirs."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    return model


def check_in_four_bits(model: nn.Module | None, family: Family) -> int:
    """How many linears of a trained model are held in 4 bits.

    Raises IntegrityError where they are not exactly those that method qlora holds so.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(base, PreTrainedModel):
        raise TypeError(f"{type(base).__name__} is not a model of transformers")
    found = {
        name.removesuffix(".base_layer")
        for name, module in base.named_modules()
        if isinstance(module, Linear4bit) and module.weight.dtype == torch.uint8
    }
    asked = quantized_linears(family, base.config.to_dict())
    if found != set(asked):
        wrong = sorted(found ^ set(asked))
        raise IntegrityError(
            f"{len(found)} linears are held in 4 bits, {len(asked)} should be",
            [
                Problem(
                    "is held in 4 bits and should not be, or the other way round", ", ".join(wrong[:_SHOWN])
                )
            ],
        )
    return len(found)


@contextmanager
def known_in_four_bits(model: PreTrainedModel) -> Iterator[None]:
    """While it is open, PEFT adapts 4-bit linears as such.

    It looks for the mark that transformers leaves on a model which it has quantised itself. TRL must not see
    it: it would round the adapter to bfloat16 in a float32 training too.
    """
    model.is_loaded_in_4bit = True  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        del model.is_loaded_in_4bit


def _digest(values: torch.Tensor) -> str:
    return hashlib.sha256(values.contiguous().reshape(-1).view(torch.uint8).numpy().data).hexdigest()
