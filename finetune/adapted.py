"""What was trained, loaded from disk for asking: the base with its adapter unmerged, or the whole weights."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import PreTrainedModel

from finetune.model import load_model
from finetune.peft_names import named_in_full
from lensmith.errors import IntegrityError, Problem

ADAPTER = "adapter_model.safetensors"
_SHOWN = 10


def load_trained(base: Path, run: Path | None, dtype: torch.dtype) -> PreTrainedModel:
    """The model of a run in `dtype`, in evaluation mode: base and unmerged adapter, or method full's weights.

    An adapter's layers stand inside the base's own modules, its matrices in float32. `run` None gives the
    base as it is. Raises IntegrityError where a weight or adapter tensor is missing, left over or arrives
    with another value: PEFT only warns.
    """
    if run is None:
        return load_model(base, dtype).eval()
    if not (run / ADAPTER).is_file():
        return load_model(run, dtype).eval()
    model = load_model(base, dtype)
    with named_in_full(model):
        wrapped = PeftModel.from_pretrained(model, run)
    _check_loaded(wrapped, run)
    model = wrapped.get_base_model()
    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"{type(model).__name__} is not a model of transformers")
    return model.eval()


def stored_adapter(run: Path) -> dict[str, torch.Tensor]:
    """The tensors of a run's adapter by their names in its file."""
    return load_file(run / ADAPTER)


def _check_loaded(model: PeftModel, run: Path) -> None:
    stored = stored_adapter(run)
    held = get_peft_model_state_dict(model, save_embedding_layers=False)
    problems = [Problem("was not loaded", name) for name in sorted(stored.keys() - held.keys())]
    problems += [Problem("is not in the file", name) for name in sorted(held.keys() - stored.keys())]
    problems += [
        Problem("was loaded with other values", name)
        for name in sorted(stored.keys() & held.keys())
        if not torch.equal(stored[name].float(), held[name].float().cpu())
    ]
    if problems:
        raise IntegrityError(f"the adapter in {run} was not loaded whole", problems[:_SHOWN])
