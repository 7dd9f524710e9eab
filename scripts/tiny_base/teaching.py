"""Teach the tiny base to read printed forms: single rows first, then whole forms."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import Qwen3VLForConditionalGeneration, Qwen3VLProcessor

from finetune.patches import patches_as_products
from tiny_base.lessons import Exercise, Lessons, collate

# Two threads whatever the machine has: sums in another order give other weights.
THREADS = 2
REPORT_EVERY = 20
_WARMUP_STEPS = 30
_LEAST_RATE = 0.05
_CLIP = 1.0


@dataclass(frozen=True)
class Course:
    """How long to teach, in steps, and with how many pictures a step.

    Rows come first: on whole forms the loss stays at chance until the digits are known, and on rows they are
    learnt in a hundred steps.
    """

    row_steps: int = 160
    rows_a_step: int = 64
    form_steps: int = 260
    forms_a_step: int = 32
    learning_rate: float = 2e-3


@dataclass(frozen=True)
class Taught:
    """What came of it: the answer loss every REPORT_EVERY steps, the last batch's exact share."""

    losses: list[float]
    forms_right: float


def teach(
    model: Qwen3VLForConditionalGeneration,
    processor: Qwen3VLProcessor,
    seed: int,
    course: Course,
    say: Callable[[str], None],
) -> Taught:
    """Teach the model in place, in float32, and leave it ready for use; `say` gets lines of progress."""
    torch.set_num_threads(THREADS)
    started = time.monotonic()
    lessons = Lessons(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=course.learning_rate, betas=(0.9, 0.98))
    steps = course.row_steps + course.form_steps
    losses: list[float] = []
    forms_right = 0.0
    model.train()
    with patches_as_products(model):
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = course.learning_rate * rate(step, steps)
            if step < course.row_steps:
                exercises = [lessons.strip() for _ in range(course.rows_a_step)]
            else:
                exercises = [lessons.form() for _ in range(course.forms_a_step)]
            loss, right = _step(model, processor, exercises, optimizer)
            if step % REPORT_EVERY == REPORT_EVERY - 1 or step == steps - 1:
                losses.append(round(loss, 6))
                say(f"step {step + 1} of {steps}: loss {loss:.4f}, {right:.0%} of the pictures read exactly")
            forms_right = right
    model.eval()
    say(f"taught in {time.monotonic() - started:.0f} s")
    return Taught(losses, round(forms_right, 4))


def rate(step: int, steps: int) -> float:
    """The share of the learning rate at a step: warm up, hold for the first half, fall to _LEAST_RATE."""
    warm = min(1.0, (step + 1) / _WARMUP_STEPS)
    fallen = max(0.0, (step - steps / 2) / (steps / 2))
    return warm * (1 - (1 - _LEAST_RATE) * fallen)


def _step(
    model: Qwen3VLForConditionalGeneration,
    processor: Qwen3VLProcessor,
    exercises: list[Exercise],
    optimizer: torch.optim.Optimizer,
) -> tuple[float, float]:
    """One optimizer step: the answer loss, and the share of pictures with every answer token ranked first."""
    batch = collate(exercises, processor)
    output = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        mm_token_type_ids=batch.mm_token_type_ids,
        labels=batch.labels,
        pixel_values=batch.pixel_values,
        image_grid_thw=batch.image_grid_thw,
    )
    output.loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
    optimizer.step()
    optimizer.zero_grad()
    labels = batch.labels[:, 1:]
    best = output.logits[:, :-1].detach().argmax(-1)
    right = ((best == labels) | (labels < 0)).all(dim=1).float().mean()
    return output.loss.item(), right.item()
