"""What was trained, loaded from disk for asking: the base with its adapter unmerged, or the whole weights."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import PreTrainedModel

from finetune.model import load_model, load_skeleton
from finetune.peft_names import named_in_full
from finetune.quantized import QUANTIZED, read_quantized
from finetune.whole_towers import copies
from lensmith.adapter_files import ADAPTER_WEIGHTS
from lensmith.errors import IntegrityError, Problem

_PREFIX = "base_model.model."
_SHOWN = 10


def load_trained(base: Path, run: Path | None, dtype: torch.dtype) -> PreTrainedModel:
    """The model of a run in `dtype`, in evaluation mode: base and unmerged adapter, or method full's weights.

    An adapter's layers stand inside the base's own modules, its matrices in float32, what it holds whole in
    `dtype`. A base that was held in 4 bits has the values that these stood for. `run` None gives the base as
    it is. Raises IntegrityError where a weight or adapter tensor is missing, left over or arrives with
    another value: PEFT only warns.
    """
    if run is None:
        return load_model(base, dtype).eval()
    if not (run / ADAPTER_WEIGHTS).is_file():
        return load_model(run, dtype).eval()
    quantized = read_quantized(run)
    if quantized is None:
        return _with_adapter(load_model(base, dtype), run)
    # Imported only where it is used: bitsandbytes takes seconds.
    from finetune.four_bit import load_dequantized

    return _with_adapter(load_dequantized(base, quantized, dtype), run)


def load_in_four_bits(base: Path, run: Path, dtype: torch.dtype) -> PreTrainedModel:
    """As `load_trained`, but what a training held in 4 bits is held so here, and multiplies in `dtype`.

    Raises IntegrityError also where `run` was trained on the base as it is.
    """
    from finetune.four_bit import known_in_four_bits, load_quantized

    quantized = read_quantized(run)
    if quantized is None:
        raise IntegrityError(f"{run} was not trained in 4 bits", [Problem("is missing", QUANTIZED)])
    model = load_quantized(base, quantized, dtype)
    with known_in_four_bits(model):
        return _with_adapter(model, run)


def load_adapter_alone(base: Path, run: Path) -> PreTrainedModel:
    """The adapter of `run` on a model of the base's shape that has no weights (its own are on the CPU).

    Raises IntegrityError as `load_trained`.
    """
    return _with_adapter(load_skeleton(base), run, on_meta=True)


def _with_adapter(model: PreTrainedModel, run: Path, *, on_meta: bool = False) -> PreTrainedModel:
    with named_in_full(model):
        try:
            wrapped = PeftModel.from_pretrained(model, run, low_cpu_mem_usage=on_meta)
        except KeyError as error:
            # Of what is held whole PEFT asks for every tensor.
            problem = Problem("is not in the file", str(error.args[0]))
            raise IntegrityError(f"the adapter in {run} was not loaded whole", [problem]) from error
        if on_meta:
            # PEFT has moved the adapter to where the base's weights are: nowhere.
            held = {_held_name(name): each.float() for name, each in stored_adapter(run).items()}
            wrapped.load_state_dict(held, strict=False, assign=True)
    _check_loaded(wrapped, run)
    loaded = wrapped.get_base_model()
    if not isinstance(loaded, PreTrainedModel):
        raise TypeError(f"{type(loaded).__name__} is not a model of transformers")
    return loaded.eval()


def _held_name(name: str) -> str:
    """What a tensor of an adapter's file is called in the model. `_check_loaded` finds one that is not so."""
    if name.endswith(".lora_magnitude_vector"):
        return f"{name}.default.weight"
    return re.sub(r"\.(lora_[AB])\.weight$", r".\1.default.weight", name)


def stored_adapter(run: Path) -> dict[str, torch.Tensor]:
    """The tensors of a run's adapter by their names in its file."""
    return load_file(run / ADAPTER_WEIGHTS)


def _check_loaded(model: PeftModel, run: Path) -> None:
    stored = stored_adapter(run)
    held = get_peft_model_state_dict(model, save_embedding_layers=False)
    problems = [Problem("was not loaded", name) for name in sorted(stored.keys() - held.keys())]
    problems += [Problem("is not in the file", name) for name in sorted(held.keys() - stored.keys())]
    # What is held whole computes in the model's dtype, as it would merged: rounded once.
    whole = {f"{_PREFIX}{name}" for name in copies(model.get_base_model())}
    problems += [
        Problem("was loaded with other values", name)
        for name in sorted(stored.keys() & held.keys())
        if not torch.equal(
            (stored[name].to(held[name].dtype) if name in whole else stored[name]).float(),
            held[name].float().cpu(),
        )
    ]
    if problems:
        raise IntegrityError(f"the adapter in {run} was not loaded whole", problems[:_SHOWN])
