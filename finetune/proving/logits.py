"""Logits of the trained model in memory against those of the merged model from disk, on held-out rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel, ProcessorMixin

from finetune.model import DTYPES, in_dtype, load_model, load_processor
from finetune.prompts import encode_conversation
from finetune.proving.part import Part
from lensmith.rendering import Rendering
from lensmith.row_file import Row
from lensmith.tokens import PixelBudget

# In which dtype the noise of a dtype shows.
_WIDER = {torch.float32: torch.float64, torch.bfloat16: torch.float32, torch.float16: torch.float32}
# Last positions compared: they depend on all before them, and a row's logits are large (150,000 a position).
KEPT_POSITIONS = 64
# Both models compute the same function with rounding errors of their own, each about as large as the noise
# that is measured: their difference is about sqrt(2) times it, and the largest of many positions varies.
# bfloat16 weights are rounded once more in merging (2**-9), as activations are all along.
NOISE_FACTOR = 4.0


def logits_part(
    trained: PreTrainedModel,
    base: Path,
    model: Path,
    pixels: PixelBudget | None,
    rendering: Rendering,
    dtype: str,
    rows: Sequence[Row],
    noise: float | None = None,
    new_tokens: Iterable[str] = (),
) -> Part:
    """Compare `trained` (in `dtype`) with the merged model loaded from `model`.

    The bound is `NOISE_FACTOR` times the noise: the largest difference between `trained` and itself
    computed in the next wider dtype. Leaves `trained` in that wider dtype. `noise` is given for a model in
    4 bits, which cannot be computed in a wider one. `new_tokens` extend the base's tokenizer. Also
    fails where the two checkpoints' processors make different inputs of a row.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = DTYPES[dtype]
    inputs = _inputs(load_processor(base, pixels, new_tokens), rendering, rows)
    merged_inputs = _inputs(load_processor(model, None), rendering, rows)
    differing = [
        row.sample.id for row, a, b in zip(rows, inputs, merged_inputs, strict=True) if not _equal(a, b)
    ]
    if differing:
        return Part({"rows": len(rows)}, [f"the merged processor reads row {differing[0]} differently"])
    nn.Module.to(trained, device=device)
    in_memory = _logits(trained, inputs)
    if noise is None:
        if rendering.family.experts is not None:
            # torch's grouped product of experts knows no float64.
            trained.set_experts_implementation("eager")
        nn.Module.to(trained, dtype=_WIDER[kind])
        noise = _largest(in_memory, _logits(trained, inputs))
    nn.Module.to(trained, device="cpu")
    merged = load_model(model, kind).eval()
    nn.Module.to(merged, device=device)
    from_disk = _logits(merged, merged_inputs)
    difference, bound = _largest(in_memory, from_disk), NOISE_FACTOR * noise
    facts = {
        "rows": len(rows),
        "positions": sum(len(each) for each in in_memory),
        "dtype": dtype,
        "device": device.type,
        "max_abs_difference": difference,
        "noise": noise,
        "bound": bound,
        "bound_is": f"{NOISE_FACTOR:g} times the noise: the same model in memory, {dtype} against "
        f"{str(_WIDER[kind]).removeprefix('torch.')}",
        "largest_logit": max(float(each.abs().max()) for each in in_memory),
    }
    # Written so that NaN fails.
    if not difference <= bound:
        return Part(
            facts, [f"logits differ by {difference:.3g}, rounding explains {bound:.3g} (noise {noise:.3g})"]
        )
    return Part(facts)


def _inputs(
    processor: ProcessorMixin, rendering: Rendering, rows: Sequence[Row]
) -> list[dict[str, torch.Tensor]]:
    return [encode_conversation(processor, rendering, row.sample, row.images, answered=True) for row in rows]


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _logits(model: nn.Module, inputs: Sequence[dict[str, torch.Tensor]]) -> list[torch.Tensor]:
    """float64 [up to KEPT_POSITIONS, vocabulary] of each row, on the CPU."""
    first = next(model.parameters())
    device, dtype = first.device, first.dtype
    with torch.inference_mode():
        return [
            model(
                **{name: tensor.to(device) for name, tensor in in_dtype(each, dtype).items()},
                logits_to_keep=KEPT_POSITIONS,
            )
            .logits[0]
            .double()
            .cpu()
            for each in inputs
        ]


def _largest(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    """The largest absolute difference; NaN where any value is NaN."""
    return float(torch.stack([(a - b).abs().max() for a, b in zip(one, other, strict=True)]).max())
