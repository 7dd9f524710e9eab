"""How much memory a training takes on one device: its state from counts, its passes from a dry run."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from finetune.dry_run import Step
from finetune.launcher import Launcher
from lensmith.train_settings import Train

# DeepSpeed's defaults (docs, "ZeRO optimizations"), in elements: of its reduce bucket, which is made whole
# however little is trained; of the weights that stage 3 keeps gathered, and updates, at a time.
_BUCKET = 500_000_000
_LIVE = 1_000_000_000
_SUB_GROUP = 1_000_000_000
_FLOAT32 = 4

# What a plan cannot know, kept free on a GPU. CUDA's context and its kernels: 1.3 GB, as transformers'
# documentation measures it ("Model training anatomy"). Fragmentation: an assumption, that of
# 20 bytes which are allocated one lies where nothing fits.
CONTEXT = 1_300_000_000
FRAGMENTATION = 0.05


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, each at its most.

    buffers: of ZeRO, or of several processes' gradients. activations: what a pass holds beside its logits.
    answers: what evaluation during training holds while the model writes them, 0 without it. features: what
    frozen towers hold while they see the images, once, before the first step; 0 where they are in every step,
    among its activations. at_once: the
    most of gradients, activations, logits and answers at a time, which need not be their sum: without
    accumulation activations fall as gradients grow, and the model is asked between steps.
    """

    weights: int
    gradients: int
    optimizer: int
    buffers: int
    activations: int
    logits: int
    answers: int
    features: int
    at_once: int

    @property
    def total(self) -> int:
        """The most at a time."""
        # No optimizer is made yet when features are.
        return self.weights + max(self.features, self.optimizer + self.buffers + self.at_once)

    @property
    def reserve(self) -> int:
        """Bytes to keep free for what is not planned."""
        return CONTEXT + int(self.total * FRAGMENTATION)


@dataclass(frozen=True)
class Gathered:
    """What FSDP2 holds whole at a time, in parameters, and how many of these are trained: all outside of
    blocks, which is gathered until the pass is over; and the largest block."""

    outside: int
    block: int
    outside_trained: int
    block_trained: int

    def nbytes(self, half: int) -> int:
        """Bytes, weights being gathered in `half` bytes each: the block that runs, the next one, and what the
        latter comes in; of trained ones their gradients, and a float32 copy that is summed over processes."""
        weights = self.outside + 3 * self.block
        return weights * half + (self.outside_trained + self.block_trained) * (half + _FLOAT32)


NOTHING = Gathered(0, 0, 0, 0)


def state_memory(
    train: Train,
    launcher: Launcher,
    parameters: int,
    trained: int,
    in_4_bits: int = 0,
    gathered: Gathered = NOTHING,
) -> Memory:
    """Weights, gradients, optimizer state and buffers for AdamW; nothing of a pass yet.

    A trained parameter in bfloat16 costs 2 bytes of weight, 2 of gradient and 12 of optimizer state (float32
    master copy and two moments), in float32 4 + 4 + 8. Of N processes each keeps 1/N of the optimizer state
    from ZeRO stage 1, of the gradients from stage 2, of the weights from stage 3 (Rajbhandari et al. 2020,
    "ZeRO", arXiv:1910.02054, sections 3.1 and 5). What is offloaded takes none. Without DeepSpeed PEFT keeps
    the adapter, and we keep fully trained weights, in float32, and several processes reduce copies of all
    gradients (torch's DistributedDataParallel); FSDP2 divides all of these, and gathers weights in
    `train.dtype`. `in_4_bits` of the parameters take half a byte and the scale of their block: 4 bytes for 64
    of them, quantised again 1 byte and 4 for 256 such blocks.
    """
    # FSDP2 divides as stage 3 does.
    stage, processes = 3 if launcher.fsdp else launcher.zero_stage, launcher.processes
    whole = launcher.zero_stage == 0
    half = 2 if train.dtype == "bfloat16" else _FLOAT32
    trained_bytes = _FLOAT32 if whole else half
    # Without DeepSpeed the whole model is loaded in float32 where any of it is fully trained.
    frozen_bytes = _FLOAT32 if train.method == "full" and whole else half
    scale = (1 + 4 / 256) if train.quantization.double else 4
    weights = (parameters - trained - in_4_bits) * frozen_bytes + trained * trained_bytes
    weights += math.ceil(in_4_bits * (0.5 + scale / 64))
    optimizer = trained * (2 * _FLOAT32 + _master(train, launcher))
    bucket = _BUCKET * trained_bytes
    live = min(parameters, _LIVE) * half
    copies = trained * trained_bytes if processes > 1 else 0
    return Memory(
        weights=0 if launcher.offload_parameters else weights // (processes if stage == 3 else 1),
        gradients=trained * trained_bytes // (processes if stage >= 2 else 1),
        optimizer=0 if launcher.offload_optimizer else optimizer // (processes if stage >= 1 else 1),
        buffers=gathered.nbytes(half)
        if launcher.fsdp
        else {0: copies, 1: bucket, 2: bucket, 3: bucket + live}[stage],
        activations=0,
        logits=0,
        answers=0,
        features=0,
        at_once=0,
    )


def training_memory(
    train: Train,
    launcher: Launcher,
    parameters: int,
    trained: int,
    step: Step,
    logits: int,
    passes: int,
    in_4_bits: int = 0,
    answers: int = 0,
    gathered: Gathered = NOTHING,
    features: int = 0,
) -> Memory:
    """`state_memory` with what the largest pass holds.

    step: of that pass. logits: bytes of those that exist at a time. passes: of an optimizer step. answers:
    what asking the model between steps holds. gathered: by FSDP2. features: what making those that are kept
    holds.
    """
    state = state_memory(train, launcher, parameters, trained, in_4_bits, gathered)
    if launcher.zero_stage or launcher.fsdp:
        # ZeRO takes gradients out of the pass into buffers of its own, FSDP2 a block's as soon as it is done.
        held = step.held + state.gradients
    elif passes > 1:
        held = step.held + step.gradients
    else:
        held = step.together
    mine = trained // (launcher.processes if launcher.zero_stage else 1)
    # At the update a master copy asks for its gradients in float32.
    copied = 0 if launcher.offload_optimizer else min(mine, _SUB_GROUP) * _master(train, launcher)
    return dataclasses.replace(
        state,
        activations=max(0, step.held - logits),
        logits=logits,
        answers=answers,
        features=features,
        # Between steps gradients are gone, but for ZeRO's own.
        at_once=max(
            held, state.gradients + copied, answers + (state.gradients if launcher.zero_stage else 0)
        ),
    )


def _master(train: Train, launcher: Launcher) -> int:
    """Bytes of a trained parameter's float32 copy: where weights are trained in bfloat16, by DeepSpeed."""
    return _FLOAT32 if launcher.zero_stage and train.dtype == "bfloat16" else 0
