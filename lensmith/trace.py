"""What a model was asked and answered, token by token: the one form that proofs and metrics read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from lensmith.artifact import Artifact
from lensmith.errors import IntegrityError

TRACE_FILE = "trace.jsonl"
# Guided answers to the rows that proofs ask, where `TraceSettings.guided` says that there are any.
GUIDED_FILE = "guided.jsonl"
# What stands for the log-probability of a token that cannot come, as in vLLM's replies: JSON has no infinity.
LEAST_LOGPROB = -9999.0


class TraceRow(BaseModel):
    """One question and its answer.

    prompt_ids: token ids of the whole prompt, each image expanded to its image tokens.
    image_tokens: how many of them are image tokens.
    image_digests: `images.pixel_digest` of each image, in order.
    answer_ids: generated ids, the end-of-turn id included where the model gave one.
    answer_logprobs: natural-log probability of each answer id under the model, without any penalty; in a
    guided answer among the tokens that could come.
    margins: log-probability of each answer id minus that of the best other token. Below zero another token
    was more probable: the answer was not decoded greedily.
    finish: "stop" at an end token, "length" at the limit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    row: str
    group: str
    image_digests: list[str]
    prompt_ids: list[int]
    image_tokens: int
    answer_ids: list[int]
    answer_text: str
    answer_logprobs: list[float]
    margins: list[float]
    finish: str


class TraceSettings(BaseModel):
    """How a trace was made; the body of a trace artifact.

    subject: id of the artifact that answered (a model, base or run). engine: "transformers" or "vllm".
    dtype: of weights and activations. max_new_tokens: the limit. held_out: id of the exam that was asked, or
    of the dataset whose validation rows were. rows: how many were asked. serving: "merged", "adapter", "base"
    or "none" (transformers).
    template: SHA-256 of the chat template used. guided: digest of the `Guide` of the guided answers, or "".
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    subject: str
    held_out: str
    engine: str
    engine_version: str
    dtype: str
    max_new_tokens: int
    rows: int
    serving: str
    template: str
    guided: str = ""


def write_trace(folder: Path, rows: Iterable[TraceRow], file: str = TRACE_FILE) -> None:
    """Write the rows into an artifact's draft folder; file: GUIDED_FILE for guided answers."""
    (folder / file).write_text("".join(f"{row.model_dump_json()}\n" for row in rows))


def read_trace(artifact: Artifact, file: str = TRACE_FILE) -> Iterator[TraceRow]:
    """The rows of a trace artifact in the order they were asked; file: GUIDED_FILE for guided answers.

    Raises IntegrityError at the first line that is no row.
    """
    path = artifact.path / file
    with path.open() as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = TraceRow.model_validate_json(line)
            except ValidationError as error:
                raise IntegrityError(f"{path}:{number} is not a row of a trace: {error}") from error
            yield row


def trace_settings(artifact: Artifact) -> TraceSettings:
    """The settings a trace artifact was made with."""
    return TraceSettings.model_validate(artifact.body)
