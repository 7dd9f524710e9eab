"""Rows as the model is taught them: token ids, which of them carry loss, and image tensors.

A row is its prompt, rendered by the checkpoint's own chat template with the generation prompt, followed by
the answer and the token that ends the turn. Only these last carry loss, and of them no masked thought.
"""

from __future__ import annotations

import io
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from finetune.encoded import IGNORED, PER_TOKEN, Encoded
from finetune.lengths import RowTokens, too_long
from finetune.prompts import processed, render_text
from finetune.videos import video_grid
from lensmith.counting import Counts, count_tokens, sum_by_row
from lensmith.errors import InputError, IntegrityError, Problem
from lensmith.rendering import Rendering
from lensmith.row_file import Row
from lensmith.sample import Sample
from lensmith.tokens import Grid
from lensmith.video_tokens import apart

# Rows that are tokenized together.
_BATCH = 1024
# Longest lead-in that a known template writes between generation prompt and answer ("\n<think></think>\n").
_LEAD_IN = 20


@dataclass(frozen=True)
class Rendered:
    """A row's texts. prompt_ids: one placeholder an image. answer_ids: the end-of-turn id included.

    masked: how many of answer_ids, from the first on, are a thought that carries no loss.
    """

    prompt_text: str
    prompt_ids: list[int]
    answer_ids: list[int]
    masked: int = 0

    @property
    def taught_ids(self) -> list[int]:
        """What carries loss."""
        return self.answer_ids[self.masked :]


class RowEncoder:
    """Turns rows into tokens and tensors with one checkpoint's processor.

    `end_ids` are the ids that end an answer for the checkpoint (its generation config's eos_token_id).
    pairs: rows are encoded with their rejected answers, and cost what they do with the longer one.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        rendering: Rendering,
        end_ids: Iterable[int],
        max_length: int,
        *,
        pairs: bool = False,
    ) -> None:
        self.processor = processor
        self.rendering = rendering
        self.tokenizer = processor.tokenizer
        self.end_ids = frozenset(end_ids)
        self.max_length = max_length
        self.pairs = pairs

    @property
    def pad_id(self) -> int:
        """What fills the shorter rows of a batch; attention and loss leave it out."""
        pad = self.tokenizer.pad_token_id
        return pad if pad is not None else self.tokenizer.eos_token_id

    def render(self, sample: Sample) -> Rendered:
        """The row's texts as token ids, images still one placeholder each.

        Raises InputError where the template gives the answered conversation another beginning than the
        prompt that the served model will be asked: what is learned would not be what is used.
        """
        prompt_text = render_text(self.processor, self.rendering, sample, answered=False)
        whole_text = render_text(self.processor, self.rendering, sample, answered=True)
        ((prompt_ids, answer_ids),) = self._parted([sample], [prompt_text], [whole_text])
        return Rendered(prompt_text, prompt_ids, answer_ids, self._masked(sample, answer_ids))

    def _masked(self, sample: Sample, answer_ids: list[int]) -> int:
        """How many of an answer's first tokens are its masked thought, the tag that ends it included."""
        tag = self.rendering.masked_end(sample.messages[-1])
        if not tag:
            return 0
        return bisect_left(
            range(len(answer_ids) + 1),
            True,
            key=lambda end: tag in str(self.tokenizer.decode(answer_ids[:end])),
        )

    def _parted(
        self, samples: Sequence[Sample], prompts: Sequence[str], wholes: Sequence[str]
    ) -> list[tuple[list[int], list[int]]]:
        """The ids of each prompt and of its answer, the texts tokenized together."""
        if self.rendering.family.answers == "apart":
            # The served model's first token follows the prompt's last: the two never share one.
            answers = [whole.removeprefix(prompt) for prompt, whole in zip(prompts, wholes, strict=True)]
            pairs = zip(self._ids(prompts), self._ids(answers), strict=True)
            return [(prompt, self._ended(answer)) for prompt, answer in pairs]
        triples = zip(samples, self._ids(prompts), self._ids(wholes), strict=True)
        return [(prompt, self._answer_ids(sample, prompt, whole)) for sample, prompt, whole in triples]

    def _answer_ids(self, sample: Sample, prompt_ids: list[int], whole_ids: list[int]) -> list[int]:
        answer_ids = whole_ids[len(prompt_ids) :]
        if whole_ids[: len(prompt_ids)] != prompt_ids or not answer_ids:
            raise InputError(
                f"row {sample.id} cannot be taught",
                [
                    Problem(
                        "the chat template does not continue the prompt with the answer",
                        f"row {sample.id}",
                        "answers must not begin with a space or line break; "
                        "where the prompt opens a thought, each row needs one",
                    )
                ],
            )
        return self._ended(answer_ids)

    def answer(self, sample: Sample) -> str:
        """What the row teaches: the answer as its family writes it, from the thought on where that is taught.

        Without the tag that opens the thought: in some templates the generation prompt holds it.
        """
        tags = self.rendering.family.speech.thinking
        return self.rendering.learned(sample.messages[-1]).removeprefix(tags[0] if tags else "")

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]

    def _ended(self, answer_ids: list[int]) -> list[int]:
        """The answer up to its last end-of-turn id. A template that writes none gets the tokenizer's."""
        ends = [place for place, token in enumerate(answer_ids) if token in self.end_ids]
        if ends:
            return answer_ids[: ends[-1] + 1]
        return [*answer_ids, self.tokenizer.eos_token_id]

    def tokens_of(self, rows: Sequence[Row], grid: Grid) -> list[RowTokens]:
        """What rows cost, without decoding their images' pixels; every row is in memory."""
        sizes = [[Image.open(io.BytesIO(data)).size for data in row.images] for row in rows]
        counts = self.count([row.sample for row in rows], sizes, grid).tolist()
        return [
            RowTokens(row.sample.id, text, image, answer)
            for row, (text, image, answer) in zip(rows, counts, strict=True)
        ]

    def count(
        self, samples: Sequence[Sample], sizes: Sequence[Sequence[tuple[int, int]]], grid: Grid
    ) -> Counts:
        """What samples cost in tokens: int64 [samples, 3], of text, images and answer.

        sizes: (width, height) in pixels of each sample's pictures. No processor runs: texts are tokenized
        together and images counted from their sizes. Raises InputError as `render` does.
        """
        counts = np.zeros((len(samples), 3), np.int64)
        shown = [apart(sample, each) for sample, each in zip(samples, sizes, strict=True)]
        edges = np.array([size for stills, _ in shown for size in stills], np.int64).reshape(-1, 2)
        owners = [at for at, (stills, _) in enumerate(shown) for _ in stills]
        counts[:, 1] = sum_by_row(count_tokens(grid, edges[:, 0], edges[:, 1]), owners, len(samples))
        for at, (_, videos) in enumerate(shown):
            counts[at, 1] += sum(self._video_tokens(frames) for _, frames in videos)
        for start in range(0, len(samples), _BATCH):
            batch = samples[start : start + _BATCH]
            prompts, wholes = (
                [render_text(self.processor, self.rendering, each, answered=done) for each in batch]
                for done in (False, True)
            )
            parted = self._parted(batch, prompts, wholes)
            asked = [prompt for prompt, _ in parted]
            counts[start : start + len(batch), 0] = self._text_tokens(batch, prompts, asked)
            counts[start : start + len(batch), 2] = [len(answer) for _, answer in parted]
        if self.pairs and (paired := [at for at, each in enumerate(samples) if each.rejected]):
            others = self.count(
                [samples[at].with_rejected() for at in paired], [sizes[at] for at in paired], grid
            )
            counts[paired, 2] = np.maximum(counts[paired, 2], others[:, 2])
        return counts

    def _text_tokens(
        self, samples: Sequence[Sample], prompts: Sequence[str], asked: Sequence[Sequence[int]]
    ) -> list[int]:
        """What prompts cost beside their pictures; `asked` are their ids with one place for each of them."""
        family = self.rendering.family
        text, video = family.image_text, family.video
        written = list(prompts)
        if text.written != "{}":
            counted = zip(prompts, samples, strict=True)
            written = [text.fill(prompt, len(sample.stills)) for prompt, sample in counted]
        for at, sample in enumerate(samples):
            if video and sample.videos:
                seconds = [each.seconds for each in sample.videos]
                written[at] = video.fill(written[at], seconds, type(self.processor).__name__)
        again = [at for at, prompt in enumerate(prompts) if written[at] != prompt]
        lengths = [len(ids) for ids in asked]
        for at, ids in zip(again, self._ids([written[at] for at in again]) if again else [], strict=True):
            lengths[at] = len(ids)
        return [length - self._pictures(sample) for length, sample in zip(lengths, samples, strict=True)]

    def _pictures(self, sample: Sample) -> int:
        """How many pictures the model is given of a row: its images, and groups of frames."""
        video = self.rendering.family.video
        groups = sum(video.groups(len(each.frames)) for each in sample.videos) if video else 0
        return len(sample.stills) + groups

    def _video_tokens(self, frames: Sequence[tuple[int, int]]) -> int:
        """What a video costs whose frames have these sizes, which are all one."""
        return video_grid(self.processor, self.rendering.family).tokens(len(frames), *frames[0])

    def encode(self, row: Row) -> Encoded:
        """The row's tensors. Raises InputError for a row of more than `max_length` tokens: none is cut.

        Where `pairs` are taught, those of its rejected answer are `rejected`: its images are processed once.
        """
        rendered = self.render(row.sample)
        family = self.rendering.family
        given = processed(self.processor, family, rendered.prompt_text, row.sample, row.images)
        pictures = self._pictures(row.sample)
        encoded = self._answered(row.sample, rendered, given, pictures)
        if not self.pairs or not row.sample.rejected:
            return encoded
        other = row.sample.with_rejected()
        return replace(encoded, rejected=self._answered(other, self.render(other), given, pictures))

    def _answered(
        self, sample: Sample, rendered: Rendered, given: Mapping[str, Any], pictures: int
    ) -> Encoded:
        """`given`, what the processor makes of the prompt, with the answer behind it."""
        prompt = {name: given[name][0] for name in PER_TOKEN if name in given}
        answer = torch.tensor(rendered.answer_ids)
        # Answer tokens are attended to (mask 1) and are text (type 0).
        appended = {"input_ids": answer, "attention_mask": torch.ones_like(answer)}
        tokens = {
            name: torch.cat([values, appended.get(name, torch.zeros_like(answer)).to(values.dtype)])
            for name, values in prompt.items()
        }
        length = len(tokens["input_ids"])
        if length > self.max_length:
            raise too_long([(sample.id, length)], self.max_length)
        taught = torch.tensor(rendered.taught_ids)
        labels = torch.cat([torch.full((length - len(taught),), IGNORED), taught])
        images = {name: values for name, values in given.items() if name not in PER_TOKEN}
        encoded = Encoded(sample.id, tokens, labels, images, pictures=pictures)
        check_answer_only(encoded, rendered, self.answer(sample), self.tokenizer)
        return encoded


def check_answer_only(
    encoded: Encoded, rendered: Rendered, answer: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Raise IntegrityError unless loss lies on exactly the row's end: answer and end-of-turn token.

    `answer` is what `RowEncoder.answer` says, tool calls and a thought that is taught included: a checkpoint
    whose template leaves them out, or writes them another way, would teach something else.
    """
    ids, labels = encoded.tokens["input_ids"], encoded.labels
    carrying = labels != IGNORED
    wanted = torch.zeros_like(carrying)
    wanted[len(ids) - len(rendered.taught_ids) :] = True
    types = encoded.tokens.get("mm_token_type_ids", torch.zeros_like(ids))
    taught = str(tokenizer.decode(rendered.taught_ids[:-1]))
    # A template may trim the answer, or lead it in with a line break or an empty thought.
    if (
        not torch.equal(carrying, wanted)
        or labels[carrying].tolist() != rendered.taught_ids
        or not torch.equal(labels[carrying], ids[carrying])
        or bool(types[carrying].any())
        or not taught.endswith(answer.strip())
        or len(taught) > len(answer) + _LEAD_IN
    ):
        shown = str(tokenizer.decode(labels[carrying]))[:200]
        raise IntegrityError(
            "a row would teach something other than its answer",
            [Problem(f"loss on {shown!r}, the answer is {answer[:200]!r}", f"row {encoded.row}")],
        )
