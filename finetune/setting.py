"""What a training may change to be faster or take less memory and stay the same one; from fastest to slowest.

No torch at import. Nothing here is applied: `lensmith plan` and the error for a full memory propose it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from finetune.launcher import Launcher, reads_whole_weights
from lensmith.train_settings import Train

# Why each change is slower, in the order in which they are taken up.
REASONS = {
    "train.batch_size": "more and smaller passes for the same optimizer step: the least loss of speed",
    "train.pack_length": "more and smaller packs for the same optimizer step: the least loss of speed",
    "deepspeed_config.zero_stage": "stage 3 gathers the weights of each block when they are used: half as "
    "much traffic again as stage 2 (Rajbhandari et al. 2020, arXiv:1910.02054, section 7)",
    "train.gradient_checkpointing": "blocks are computed again in the backward pass: about a third more "
    "computing for all of them (Chen et al. 2016, arXiv:1604.06174), less for every second or fourth",
    "deepspeed_config.offload_optimizer_device": "the optimizer's state lies in host memory: each step waits "
    "for the bus and the CPU",
    "deepspeed_config.offload_param_device": "weights come from host memory in each pass",
}


# Tokens of a pass below which a GPU takes longer to read a weight than to multiply by it: 989 TFLOP/s by 3.35
# TB/s (NVIDIA's data sheet of the H100), of two operations a token by two bytes of bfloat16.
_READ = 300

# Every how many blocks one is computed again, fastest first; 0 for none.
_RECOMPUTED = (0, 4, 2, 1)


@dataclass(frozen=True)
class RowLengths:
    """By what padded rows and packs compare. mean: tokens of a row; alike: all are as long, so no pads."""

    mean: float
    alike: bool


# Where all settings are of one kind their lengths say nothing.
_ANY = RowLengths(1, alike=True)


@dataclass(frozen=True)
class Setting:
    """What decides how much memory a training takes and not what it learns.

    pack_length: 0 where rows are padded; else batch_size and gradient_accumulation only count a step's rows.
    lengths: of the training's rows.
    """

    pack_length: int
    batch_size: int
    gradient_accumulation: int
    recomputed: int
    zero_stage: int
    offload_optimizer: bool
    offload_parameters: bool
    lengths: RowLengths = _ANY

    @property
    def tokens(self) -> float:
        """Of a pass, pads left out: what a pack has room for, what padded rows come to in the mean."""
        return self.pack_length or self.batch_size * self.lengths.mean

    @property
    def speed(self) -> tuple[int, int, int, float, int, tuple[bool, float, bool]]:
        """Sorts settings from fastest to slowest."""
        return (
            self.offload_parameters,
            self.offload_optimizer,
            # Of a few rows all blocks may be computed twice while a pass of fewer waits for its weights.
            self.tokens < _READ,
            # The share of the blocks.
            1 / self.recomputed if self.recomputed else 0,
            self.zero_stage,
            # A pad is computed like a token, in every layer: packs have none. Of as many tokens packs come
            # first here too, which are as equal over processes as they can be.
            (not self.pack_length and not self.lengths.alike, -self.tokens, not self.pack_length),
        )

    @property
    def _checkpointing(self) -> bool | int:
        """As the recipe says it."""
        return self.recomputed if self.recomputed > 1 else bool(self.recomputed)

    def values(self) -> dict[str, str]:
        """By the key in recipe or launcher config, as YAML."""
        values = {
            "train.pack_length": str(self.pack_length),
            "train.batch_size": str(self.batch_size),
            "train.gradient_accumulation": str(self.gradient_accumulation),
            "train.gradient_checkpointing": str(self._checkpointing).lower(),
        }
        if self.zero_stage:
            values["deepspeed_config.zero_stage"] = str(self.zero_stage)
            for key, away in (
                ("offload_optimizer_device", self.offload_optimizer),
                ("offload_param_device", self.offload_parameters),
            ):
                values[f"deepspeed_config.{key}"] = "cpu" if away else "none"
        return values

    def train(self, train: Train) -> Train:
        """`train` with this setting."""
        return train.model_copy(
            update={
                "pack_length": self.pack_length,
                "batch_size": self.batch_size,
                "gradient_accumulation": self.gradient_accumulation,
                "gradient_checkpointing": self._checkpointing,
            }
        )

    def launcher(self, launcher: Launcher) -> Launcher:
        """`launcher` with this setting."""
        return dataclasses.replace(
            launcher,
            zero_stage=self.zero_stage,
            offload_optimizer=self.offload_optimizer,
            offload_parameters=self.offload_parameters,
        )


def setting_of(train: Train, launcher: Launcher, lengths: RowLengths = _ANY) -> Setting:
    """The setting that recipe and launcher state, for rows of these lengths."""
    return Setting(
        train.pack_length,
        train.batch_size,
        train.gradient_accumulation,
        train.recomputed,
        launcher.zero_stage,
        launcher.offload_optimizer,
        launcher.offload_parameters,
        lengths,
    )


def settings(
    train: Train, launcher: Launcher, lengths: RowLengths = _ANY, *, packs: bool = False
) -> list[Setting]:
    """All settings of the same training, fastest first: as many rows an optimizer step, one launcher kind.

    packs: whether rows of these `lengths` that are padded may be packed, and packs be longer. Under DeepSpeed
    ZeRO stages 2 and 3 and offloading are among them; without it nothing is to be divided. Stage 3 is not
    where it would be refused.
    """
    rows = train.batch_size * train.gradient_accumulation
    passes = [(0, size, rows // size) for size in range(rows, 0, -1) if rows % size == 0]
    longest: set[int] = set()
    if train.pack_length:
        # A pack holds the longest row at least.
        halves = [train.pack_length >> times for times in range(train.pack_length.bit_length())]
        passes, longest = [], {train.pack_length, *(max(each, train.max_length) for each in halves)}
    if packs:
        longest |= _doubled(train.pack_length or train.max_length, rows * lengths.mean)
    passes += [(each, train.batch_size, train.gradient_accumulation) for each in longest]
    places = [(0, False, False)]
    if launcher.zero_stage:
        places = [(2, False, False), (3, False, False), (2, True, False), (3, True, False), (3, True, True)]
        if reads_whole_weights(train) or train.evaluate.every:
            places = [each for each in places if each[0] == 2]
    found = {
        Setting(*each, again, *place, lengths) for each in passes for again in _RECOMPUTED for place in places
    }
    return sorted(found | {setting_of(train, launcher, lengths)}, key=lambda each: each.speed)


def _doubled(length: int, tokens: float) -> set[int]:
    """`length`, twice it and so on: up to the first that all of a process's `tokens` of a step fit into."""
    found = {length}
    while length < tokens:
        length *= 2
        found.add(length)
    return found


def changes(now: Setting, then: Setting) -> dict[str, str]:
    """The keys in which two settings differ, and their values in the second one."""
    before = now.values()
    return {key: value for key, value in then.values().items() if before[key] != value}


def costs(now: Setting, then: Setting) -> dict[str, str]:
    """By each key in which `then` is slower than `now`, why it is."""
    size = "train.pack_length" if then.pack_length else "train.batch_size"
    keys = (
        "deepspeed_config.offload_param_device",
        "deepspeed_config.offload_optimizer_device",
        size,
        "train.gradient_checkpointing",
        "deepspeed_config.zero_stage",
        size,
    )
    before, after = now.speed, then.speed
    # Tuples of one element each: what they compare by differs from key to key.
    slower = [after[place : place + 1] > before[place : place + 1] for place in range(len(after))]
    return {key: REASONS[key] for key, told in zip(keys, slower, strict=True) if told}


def savings(train: Train, launcher: Launcher) -> dict[str, str]:
    """Each key that can still be changed to take less memory, alone, and its value in the mildest change."""
    now = setting_of(train, launcher)
    found: dict[str, str] = {}
    for each in settings(train, launcher):
        different = changes(now, each)
        # Rows at a time and passes a step are one change.
        keys = [key for key in different if key in REASONS]
        if each.speed > now.speed and len(keys) == 1:
            found.setdefault(keys[0], different[keys[0]])
    return {key: found[key] for key in REASONS if key in found}
