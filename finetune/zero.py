"""What DeepSpeed's ZeRO holds beside weights and optimizer state, and when: gradients and their buckets.

As DeepSpeed 0.19 does it (runtime/zero/stage_1_and_2.py, stage3.py, config.py). A pass's gradients are copied
into a bucket. When it is full, and at the end of the pass, a flat copy of what is in it is summed over the
processes, and each keeps its part. At the update the part is made flat, and is in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

from finetune.dry_run import Step

# DeepSpeed's defaults, in elements: of its reduce bucket, which is made whole however little is trained; of
# the weights that stage 3 keeps gathered, gathers ahead, and updates, at a time.
BUCKET = 500_000_000
LIVE = 1_000_000_000
AHEAD = 50_000_000
SUB_GROUP = 1_000_000_000
FLOAT32 = 4


@dataclass(frozen=True)
class Zero:
    """A process of a ZeRO stage.

    parameters, trained: of the whole model; largest: of a trained tensor. width: bytes of each, and of its
    gradient. processes: in all. offloads: the optimizer, which takes its gradients and the update along to
    host memory.
    """

    stage: int
    parameters: int
    trained: int
    largest: int
    width: int
    processes: int
    offloads: bool

    @property
    def gradients(self) -> int:
        """Bytes of those that this process keeps; stage 1 keeps all until they are summed."""
        if self.stage == 1:
            return self.trained * self.width
        return 0 if self.offloads else self.trained * self.width // self.processes

    @property
    def bucket(self) -> int:
        """Bytes of the bucket. Stage 3 keeps it, the others make it for each pass."""
        return BUCKET * self.width

    @property
    def summed(self) -> int:
        """Bytes of the copy of a full bucket."""
        return min(self.trained, BUCKET) * self.width

    @property
    def passed(self) -> int:
        """Bytes of the buffer through which stages 1 and 2 add to a gradient in host memory."""
        return self.largest * self.width if self.offloads and self.stage < 3 else 0

    @property
    def live(self) -> int:
        """Bytes of the weights that stage 3 gathers: those of modules to come lie in the tensor in which they
        came, too, until the last of them is used."""
        gathered = min(self.parameters, LIVE) + min(self.parameters, AHEAD)
        return gathered * self.width if self.stage == 3 else 0

    @property
    def updated(self) -> int:
        """Bytes of the copies of this process's gradients that the update takes: flat, and in float32."""
        if self.offloads:
            return 0
        mine = self.trained // self.processes
        mine = min(mine, SUB_GROUP) if self.stage == 3 else mine
        return mine * (self.width + (FLOAT32 if self.width < FLOAT32 else 0))

    def most(self, step: Step, passes: int, answers: int) -> int:
        """The most bytes at a time of an optimizer step of `passes`, the largest one `step`.

        answers: what asking the model between steps holds.
        """
        held, kept = step.held + self.live, self.gradients
        # Stage 3 keeps its part from step to step, the others' first pass begins without gradients.
        before = kept if self.stage == 3 or passes > 1 else 0
        going = step.together if self.stage == 1 and passes == 1 else held + before
        # A bucket that is full before the pass ends is summed beside the activations.
        summed = self.bucket + self.summed + (held + kept if self.trained > BUCKET else before)
        if self.stage == 1:
            # All of them are summed behind the last pass.
            summed = self.bucket + self.summed + kept
        between = self.bucket + kept if self.stage == 3 else 0
        return self.passed + max(
            going + self.bucket,
            summed,
            (self.bucket if self.stage == 3 else 0) + kept + self.updated,
            between + self.live + answers,
        )
