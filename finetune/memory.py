"""How much memory a training takes on one device, estimated from shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from finetune.launcher import Launcher
from lensmith.families.family import TOWERS, Family, Tower
from lensmith.train_settings import Train

# DeepSpeed's defaults (docs, "ZeRO optimizations"): elements of its reduce bucket, and of the weights that
# stage 3 keeps gathered at a time.
_BUCKET = 500_000_000
_LIVE = 1_000_000_000
_FLOAT32 = 4


@dataclass(frozen=True)
class Memory:
    """Bytes on one device. Not in it: the CUDA context (about 0.5 GiB), fragmentation, and the copies that
    autocast makes of an adapter's inputs."""

    weights: int
    gradients: int
    optimizer: int
    buffers: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.buffers + self.activations


def state_memory(train: Train, launcher: Launcher, parameters: int, trained: int) -> Memory:
    """Weights, gradients, optimizer state and ZeRO's buffers for AdamW; activations 0.

    A trained parameter in bfloat16 costs 2 bytes of weight, 2 of gradient and 12 of optimizer state (float32
    master copy and two moments), in float32 4 + 4 + 8. Of N processes each keeps 1/N of the optimizer state
    from ZeRO stage 1, of the gradients from stage 2, of the weights from stage 3 (Rajbhandari et al. 2020,
    "ZeRO", arXiv:1910.02054, sections 3.1 and 5). What is offloaded takes none. Without DeepSpeed PEFT keeps
    the adapter, and we keep fully trained weights, in float32.
    """
    stage, processes = launcher.zero_stage, launcher.processes
    half = 2 if train.dtype == "bfloat16" else _FLOAT32
    trained_bytes = _FLOAT32 if stage == 0 else half
    # Without DeepSpeed the whole model is loaded in float32 where any of it is fully trained.
    frozen_bytes = _FLOAT32 if train.method == "full" and stage == 0 else half
    weights = (parameters - trained) * frozen_bytes + trained * trained_bytes
    master = 0 if trained_bytes == _FLOAT32 else _FLOAT32
    bucket = min(trained, _BUCKET) * trained_bytes
    live = min(parameters, _LIVE) * half
    return Memory(
        weights=0 if launcher.offload_parameters else weights // (processes if stage == 3 else 1),
        gradients=trained * trained_bytes // (processes if stage >= 2 else 1),
        optimizer=0
        if launcher.offload_optimizer
        else trained * (2 * _FLOAT32 + master) // (processes if stage >= 1 else 1),
        buffers={0: 0, 1: bucket, 2: bucket, 3: bucket + live}[stage],
        activations=0,
    )


def activation_memory(
    model: nn.Module, family: Family, train: Train, tokens: Mapping[Tower, int], trained: Mapping[Tower, int]
) -> int:
    """Bytes of activations kept for the backward pass of one forward pass, at its peak.

    `model` may lie on the meta device; `tokens` is what a forward pass feeds to each tower's linears;
    `trained` the trainable parameters by tower. Each linear keeps its input and its output. For a gated
    block whose attention matrix is not stored this is within a few percent of the count by parts of
    Korthikanti et al. 2022 (arXiv:2205.05198, section 4). A tower keeps nothing where neither it nor one
    before it is trained. DoRA keeps two more outputs of each linear, and takes what `_norm_memory` says for a
    moment. With gradient checkpointing only each block's input is kept, and one block is
    recomputed at a time.
    """
    bytes_each = 2 if train.dtype == "bfloat16" else _FLOAT32
    kept = 0
    largest_block = 0
    flowing = False
    dora = train.towers.in_mode("adapt") if train.method == "lora" and train.lora.variant == "dora" else []
    norm = 0
    for tower in TOWERS:
        flowing = flowing or trained[tower] > 0
        if not flowing:
            continue
        blocks = _blocks(model, family, tower)
        # DoRA: the base's and the adapter's result, which its factor multiplies.
        outputs = 3 if tower in dora else 1
        whole = [sum(each.in_features + outputs * each.out_features for each in block) for block in blocks]
        per_token = (
            sum(block[0].in_features for block in blocks) if train.gradient_checkpointing else sum(whole)
        )
        kept += per_token * tokens[tower] * bytes_each
        if train.gradient_checkpointing:
            largest_block = max(largest_block, max(whole, default=0) * tokens[tower] * bytes_each)
        if tower in dora:
            norm = max(norm, *(_norm_memory(each) for block in blocks for each in block))
    return kept + largest_block + norm


def _norm_memory(linear: nn.Linear) -> int:
    """Bytes for a moment while DoRA takes the length of the rows of W + s B A, in float32.

    PEFT 0.21 (tuners/lora/dora.py) multiplies A and B by an identity [in, in] and holds B A, its scaled copy,
    W and their sum [out, in].
    """
    return (linear.in_features**2 + 4 * linear.in_features * linear.out_features) * _FLOAT32


def _blocks(model: nn.Module, family: Family, tower: Tower) -> list[list[nn.Linear]]:
    """The tower's linears by numbered block; not the output head, which sees answers alone, in pieces."""
    blocks: dict[str, list[nn.Linear]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and "." in name and family.tower_of(name) == tower:
            parts = name.split(".")
            numbers = [place for place, part in enumerate(parts) if part.isdigit()]
            block = ".".join(parts[: numbers[-1] + 1]) if numbers else ".".join(parts[:-1])
            blocks.setdefault(block, []).append(module)
    return list(blocks.values())
