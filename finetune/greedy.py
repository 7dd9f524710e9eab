"""Greedy answers of a model in transformers, token by token, as trace rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from tqdm import tqdm
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    ProcessorMixin,
    StoppingCriteriaList,
)
from transformers.utils import logging

from finetune.adapted import load_trained
from finetune.generate import REASON, Request
from finetune.in_step import InStep
from finetune.model import DTYPES, in_dtype, load_processor
from finetune.prompts import encode_conversation
from finetune.proving.combination import load_combined
from finetune.videos import as_asked
from lensmith import families
from lensmith.artifact import open_artifact
from lensmith.dataset import read_held_out
from lensmith.errors import InputError, IntegrityError, Problem
from lensmith.exam import proof_rows
from lensmith.families.family import Family
from lensmith.home import Home
from lensmith.rendering import Rendering
from lensmith.row_file import Row
from lensmith.trace import GUIDED_FILE, LEAST_LOGPROB, TRACE_FILE, TraceRow, write_trace

if TYPE_CHECKING:
    from finetune.grammar import Grammar

BATCH = 16


@dataclass(frozen=True)
class Prompt:
    """A row as the processor gives it: tensors of one row, first dimension 1 (or the images' patches)."""

    row: Row
    tensors: dict[str, torch.Tensor]

    @property
    def shape(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Prompts of equal shape go into one batch without padding."""
        return tuple((name, tuple(tensor.shape)) for name, tensor in sorted(self.tensors.items()))


def answer(request: Request) -> None:
    """Write the trace that `request` asks for into its `out`. Raises InputError where no row is there."""
    logging.disable_progress_bar()
    held_out = open_artifact(request.held_out, "held_out")
    rows = proof_rows(read_held_out(Home(request.home), held_out, REASON), request.rows)
    if not rows:
        raise InputError("the held-out set has no rows", [Problem("nothing to ask", str(request.held_out))])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = _asked(request, DTYPES[request.dtype])
    nn.Module.to(model, device=device)
    processor = load_processor(request.base, request.pixels, request.new_tokens)
    ends = end_ids(request.base, model)
    rendering = Rendering(families.get(request.family), request.thinking)
    kept_to: dict[str, Grammar | None] = {TRACE_FILE: None}
    if request.guide is not None:
        from finetune.grammar import Grammar

        vocabulary = model.config.get_text_config().vocab_size
        kept_to[GUIDED_FILE] = Grammar(request.guide, processor.tokenizer, vocabulary, ends)
    for file, grammar in kept_to.items():
        traced = greedy(model, processor, rendering, rows, ends, request.max_new_tokens, grammar=grammar)
        by_row = {each.row: each for each in tqdm(traced, "reference", len(rows), disable=None)}
        write_trace(request.out, [by_row[row.sample.id] for row in rows], file)


def _asked(request: Request, dtype: torch.dtype) -> PreTrainedModel:
    if request.combination is None or request.run is None:
        return load_trained(request.base, request.run, dtype)
    return load_combined(request.base, [request.run, *request.others], request.combination, dtype)


def end_ids(checkpoint: Path, model: PreTrainedModel) -> list[int]:
    """The ids that end an answer: the checkpoint's generation config, else its model config."""
    if (checkpoint / "generation_config.json").is_file():
        stated = GenerationConfig.from_pretrained(checkpoint).eos_token_id
    else:
        stated = model.generation_config.eos_token_id
    if stated is None:
        raise InputError(
            f"{checkpoint} states no end-of-turn token",
            [Problem("eos_token_id is missing", "generation_config.json", "fetch the whole checkpoint")],
        )
    return [stated] if isinstance(stated, int) else list(stated)


def greedy(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    rendering: Rendering,
    rows: Sequence[Row],
    ends: Sequence[int],
    max_new_tokens: int,
    batch: int = BATCH,
    grammar: Grammar | None = None,
    in_step: InStep | None = None,
) -> Iterator[TraceRow]:
    """Each row's greedy answer; rows come in the order of their prompts' shapes.

    Only prompts of equal shape share a batch, so nothing is padded. No setting of the checkpoint's
    generation config applies but its end tokens: probabilities are the model's own. grammar: keeps answers to
    it; their probabilities are among the tokens that it allows. in_step: for a model of which this process
    holds a part; then all processes must take all that comes.
    """
    # generate() fills what its own config leaves open from the model's, penalties included.
    model.generation_config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        use_cache=True,
        max_new_tokens=max_new_tokens,
        eos_token_id=None if in_step else list(ends),
        pad_token_id=ends[0],
    )
    config = model.config.to_dict()
    asked = _Asked(rendering.family, config, config[rendering.family.image_id])

    def prompt(row: Row) -> Prompt:
        return Prompt(row, encode_conversation(processor, rendering, row.sample, row.images, answered=False))

    # Patches of several rows would have to be numbered on.
    batches = _batches(map(prompt, rows), 1 if rendering.family.numbers else batch)
    for group in in_step.rounds(batches) if in_step else batches:
        if group is not None:
            yield from _answer_batch(model, processor, group, ends, asked, grammar, in_step)
        elif in_step is not None:
            filler = [prompt(in_step.filler)]
            _write(model, filler, ends, grammar, in_step, fills=True)


def _batches(prompts: Iterable[Prompt], batch: int) -> Iterator[list[Prompt]]:
    """At most `batch` prompts of one shape at a time."""
    waiting: dict[tuple[Any, ...], list[Prompt]] = {}
    for prompt in prompts:
        group = waiting.setdefault(prompt.shape, [])
        group.append(prompt)
        if len(group) == batch:
            yield waiting.pop(prompt.shape)
    yield from waiting.values()


@dataclass(frozen=True)
class _Asked:
    """What says which of a prompt's tokens are of pictures: `image_token` of images, and of frames as the
    model is given them (`finetune.videos`)."""

    family: Family
    config: dict[str, Any]
    image_token: int


class _Recorder(LogitsProcessor):
    """Notes, at each step, the best token's log-probability and its lead over the second (float32)."""

    def __init__(self) -> None:
        self.tokens: list[torch.Tensor] = []
        self.logprobs: list[torch.Tensor] = []
        self.margins: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        logprobs = torch.log_softmax(scores.float(), dim=-1).clamp(min=LEAST_LOGPROB)
        best = scores.argmax(dim=-1)
        top = logprobs.topk(2, dim=-1).values
        self.tokens.append(best)
        self.logprobs.append(logprobs.gather(1, best[:, None])[:, 0])
        self.margins.append(top[:, 0] - top[:, 1])
        return scores


def _write(
    model: PreTrainedModel,
    prompts: Sequence[Prompt],
    ends: Sequence[int],
    grammar: Grammar | None,
    in_step: InStep | None,
    *,
    fills: bool = False,
) -> tuple[list[list[int]], _Recorder]:
    """The tokens that `model` writes behind each of the prompts, and what it made of them."""
    device, dtype = (in_step.device, in_step.dtype) if in_step else (model.device, model.dtype)
    tensors = {
        name: torch.cat([prompt.tensors[name] for prompt in prompts]).to(device)
        for name in prompts[0].tensors
    }
    tensors = in_dtype(tensors, dtype)
    recorder = _Recorder()
    # The recorder sees what the grammar has left.
    processors = LogitsProcessorList([recorder] if grammar is None else [grammar.mask(), recorder])
    stops = StoppingCriteriaList([in_step.ending(ends, fills=fills)] if in_step else [])

    def generate() -> torch.Tensor:
        return model.generate(**tensors, logits_processor=processors, stopping_criteria=stops)  # pyright: ignore[reportCallIssue, reportReturnType]

    if in_step is None:
        with torch.inference_mode():
            written = generate()
    else:
        written = in_step.run(model, generate)
    return written[:, tensors["input_ids"].shape[1] :].tolist(), recorder


def _answer_batch(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    prompts: Sequence[Prompt],
    ends: Sequence[int],
    asked: _Asked,
    grammar: Grammar | None,
    in_step: InStep | None,
) -> Iterator[TraceRow]:
    answers, recorder = _write(model, prompts, ends, grammar, in_step)
    tokens, logprobs, margins = (
        torch.stack(each, dim=1).tolist() for each in (recorder.tokens, recorder.logprobs, recorder.margins)
    )
    for i, prompt in enumerate(prompts):
        stop = next((at for at, token in enumerate(answers[i]) if token in ends), None)
        count = len(answers[i]) if stop is None else stop + 1
        if answers[i][:count] != tokens[i][:count] or not torch.tensor(logprobs[i][:count]).isfinite().all():
            raise IntegrityError(
                "the model gave an answer that is not its most probable one",
                [Problem("NaN in the logits?", f"row {prompt.row.sample.id}")],
            )
        ids = prompt.tensors["input_ids"][0].tolist()
        yield TraceRow(
            row=prompt.row.sample.id,
            group=prompt.row.sample.group,
            image_digests=[image.digest for image in prompt.row.sample.images],
            prompt_ids=as_asked(ids, asked.family, prompt.row.sample, asked.config),
            image_tokens=ids.count(asked.image_token),
            answer_ids=answers[i][:count],
            answer_text=processor.tokenizer.decode(answers[i][:count], skip_special_tokens=True),
            answer_logprobs=logprobs[i][:count],
            margins=margins[i][:count],
            finish="length" if stop is None else "stop",
        )
