"""How much memory a training takes on one device: its state from counts, its passes from a dry run."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from finetune.dry_run import Step
from finetune.launcher import Launcher
from finetune.zero import FLOAT32, Zero
from lensmith.train_settings import Train

# What a plan cannot know, kept free on a GPU. CUDA's context and its kernels: 1.3 GB, as transformers'
# documentation measures it ("Model training anatomy"). Fragmentation: an assumption, that of
# 20 bytes which are allocated one lies where nothing fits.
CONTEXT = 1_300_000_000
FRAGMENTATION = 0.05


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, each at its most.

    buffers: of ZeRO and FSDP2, or of several processes' gradients. activations: what a pass holds beside its
    logits. answers: what evaluation during training holds while the model writes them, 0 without it.
    features: what frozen towers hold while they see the images, once, before the first step; 0 where they are
    in every step, among its activations. at_once: the most of gradients, buffers, activations, logits and
    answers at a time, which need not be their sum: without accumulation activations fall as gradients grow,
    weights are updated after the pass, and the model is asked between steps.
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
        return self.weights + max(self.features, self.optimizer + self.at_once)

    @property
    def reserve(self) -> int:
        """Bytes to keep free for what is not planned."""
        return CONTEXT + int(self.total * FRAGMENTATION)

    @property
    def needed(self) -> int:
        """Bytes that a GPU must have."""
        return self.total + self.reserve


@dataclass(frozen=True)
class Gathered:
    """What FSDP2 holds whole at a time, in parameters, and how many of these are trained: all outside of
    blocks, which is gathered until the pass is over; and the largest block."""

    outside: int
    block: int
    outside_trained: int
    block_trained: int

    def going(self, half: int) -> int:
        """Bytes beside a pass's activations, weights being gathered in `half` bytes each.

        Of weights all outside, the block that runs, the next one, and what the latter comes in; of trained
        ones the gradients, and of the block's a float32 copy that is summed over processes.
        """
        gradients = (self.outside_trained + self.block_trained) * half
        return self.asking(half) + gradients + self.block_trained * FLOAT32

    def asking(self, half: int) -> int:
        """Bytes of weights alone, as in a pass that learns nothing."""
        return (self.outside + 3 * self.block) * half

    def ending(self, half: int) -> int:
        """Bytes behind a pass, where all that is outside of blocks is summed: gradients and their copy."""
        return self.outside_trained * (half + FLOAT32)

    def nbytes(self, half: int) -> int:
        """The most of both."""
        return max(self.going(half), self.ending(half))


NOTHING = Gathered(0, 0, 0, 0)


def state_memory(
    train: Train,
    launcher: Launcher,
    parameters: int,
    trained: int,
    in_4_bits: int = 0,
    gathered: Gathered = NOTHING,
    largest: int = 0,
) -> Memory:
    """Weights, gradients, optimizer state and buffers for AdamW; nothing of a pass yet.

    A trained parameter in bfloat16 costs 2 bytes of weight, 2 of gradient and 12 of optimizer state (float32
    master copy and two moments), in float32 4 + 4 + 8; under DeepSpeed 12 here too, which copies what is in
    float32 already (0.19: stage_1_and_2.py `single_partition_of_fp32_groups`, stage3.py
    `_create_fp32_partitions`). Of N processes each keeps 1/N of the optimizer state from ZeRO stage 1, of the
    gradients from stage 2, of the weights from stage 3 (Rajbhandari et al. 2020, "ZeRO", arXiv:1910.02054,
    sections 3.1 and 5). What is offloaded takes none; the optimizer takes its gradients along. Without
    DeepSpeed PEFT keeps the adapter, and we keep fully trained weights, in float32, and several processes
    reduce copies of all gradients (torch's DistributedDataParallel); FSDP2 divides all of these, and gathers
    weights in `train.dtype`. `in_4_bits` of the parameters take half a byte and the scale of their block: 4
    bytes for 64 of them, quantised again 1 byte and 4 for 256 such blocks.
    """
    # FSDP2 divides as stage 3 does.
    stage, processes = 3 if launcher.fsdp else launcher.zero_stage, launcher.processes
    whole = launcher.zero_stage == 0
    half = 2 if train.dtype == "bfloat16" else FLOAT32
    trained_bytes = FLOAT32 if whole else half
    # Without DeepSpeed the whole model is loaded in float32 where any of it is fully trained.
    frozen_bytes = FLOAT32 if train.method == "full" and whole else half
    scale = (1 + 4 / 256) if train.quantization.double else 4
    weights = (parameters - trained - in_4_bits) * frozen_bytes + trained * trained_bytes
    weights += math.ceil(in_4_bits * (0.5 + scale / 64))
    optimizer = trained * (2 + (not whole)) * FLOAT32
    gradients = trained * trained_bytes // (processes if stage == 3 else 1)
    buffers = gathered.nbytes(half) if launcher.fsdp else gradients if processes > 1 else 0
    if launcher.zero_stage:
        zero = _zero(train, launcher, parameters, trained, largest)
        gradients, buffers = zero.gradients, zero.bucket + zero.summed + zero.live + zero.passed
    return Memory(
        weights=0 if launcher.offload_parameters else weights // (processes if stage == 3 else 1),
        gradients=gradients,
        optimizer=0 if launcher.offload_optimizer else optimizer // (processes if stage >= 1 else 1),
        buffers=buffers,
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
    largest: int = 0,
) -> Memory:
    """`state_memory` with what the largest pass holds.

    step: of that pass. logits: bytes of those that exist at a time. passes: of an optimizer step. answers:
    what asking the model between steps holds. gathered: by FSDP2. features: what making those that are kept
    holds. largest: parameters of the largest trained tensor.
    """
    state = state_memory(train, launcher, parameters, trained, in_4_bits, gathered, largest)
    if launcher.zero_stage:
        at_once = _zero(train, launcher, parameters, trained, largest).most(step, passes, answers)
    elif launcher.fsdp:
        # A block's gradients are summed as soon as it is done, and a part of them kept.
        share, half = state.gradients / step.gradients, 2 if train.dtype == "bfloat16" else FLOAT32
        held = step.held + state.gradients if passes > 1 else _shared(step, share)
        ended = state.gradients + gathered.ending(half)
        at_once = max(held + gathered.going(half), ended, gathered.asking(half) + answers)
    else:
        held = step.held + step.gradients if passes > 1 else step.together
        # Between steps gradients are gone, the copies of several processes are not.
        at_once = max(held, answers) + state.buffers
    return dataclasses.replace(
        state,
        activations=max(0, step.held - logits),
        logits=logits,
        answers=answers,
        features=features,
        at_once=at_once,
    )


def _shared(step: Step, share: float) -> int:
    """What the pass holds at most with a `share` of its gradients: as much of both, the rest of it alone."""
    return round((1 - share) * step.held + share * step.together)


def _zero(train: Train, launcher: Launcher, parameters: int, trained: int, largest: int) -> Zero:
    return Zero(
        stage=launcher.zero_stage,
        parameters=parameters,
        trained=trained,
        largest=largest,
        width=2 if train.dtype == "bfloat16" else FLOAT32,
        processes=launcher.processes,
        offloads=launcher.offload_optimizer,
    )
