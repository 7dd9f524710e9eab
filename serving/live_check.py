"""Whether live adapters answer as they did when they were proven: a few rows of each, all in turns."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lensmith import families
from lensmith.dataset import read_held_out
from lensmith.home import Home
from lensmith.rendering import Rendering
from lensmith.row_file import Row
from lensmith.trace import TraceRow, read_trace, trace_settings
from serving.comparison import compare
from serving.engine import Engine
from serving.fleet import Member
from serving.parity import BOUNDS
from serving.predict import Question, ask_all, image_tokens
from serving.profile import Places, images_differ
from serving.question import taught_thinking

# Of an adapter that is to be live, and of each that is already.
NEW_ROWS = 8
OLD_ROWS = 2
_CONCURRENCY = 8


@dataclass(frozen=True)
class _Asked:
    """A row of a member's proof. stored: what the engine answered then; base: what the base is known to have
    answered."""

    member: Member
    row: Row
    stored: TraceRow
    base: TraceRow | None


def check_live(
    home: Home, engine: Engine, places: Places, new: Sequence[Member], old: Sequence[Member], key: str
) -> list[str]:
    """What is wrong with the answers of the adapters in `engine`, in sentences; empty where nothing is.

    Rows of all of them take turns, so that a mix-up of slots shows. An answer has to equal the one in the
    trace of the serve proof, by the bounds of that proof, and to differ from the base's wherever it did.
    new: `NEW_ROWS` rows each; old: `OLD_ROWS`. key: the engine's API key, or "". Raises InputError where the
    engine stops or refuses a row.

    The base's answers are those of its trace: asked beside adapters, a CPU engine answers for the base with
    an adapter (vllm#48421).
    """
    chosen = [_choose(home, each, NEW_ROWS) for each in new] + [_choose(home, each, OLD_ROWS) for each in old]
    asked = list(_in_turns(chosen))
    questions = [_question(one) for one in asked]
    answers = ask_all(engine, questions, image_tokens((*new, *old)[0].profile, places), _CONCURRENCY, key)
    return [finding for one, answer in zip(asked, answers, strict=True) for finding in _findings(one, answer)]


def _question(one: _Asked) -> Question:
    member = one.member
    rendering = Rendering(families.get(member.profile.family), taught_thinking(member.run))
    return Question(one.row, rendering, member.name, member.profile.max_new_tokens)


def _findings(one: _Asked, answer: TraceRow) -> list[str]:
    profile = one.member.profile
    of_images = images_differ(profile.family, profile.engine.device)
    compared = compare(answer, one.stored, one.base, BOUNDS[profile.dtype], of_images)
    where = f"{one.member.name}, row {one.row.sample.id}"
    found = [
        f"{where}: {each.what} is not the proof's: {each.detail} ({each.cause})"
        for each in compared.differences
    ]
    # Within bounds, and all the same what an engine without the adapter would say.
    if (
        not found
        and one.base is not None
        and answer.answer_ids == one.base.answer_ids != one.stored.answer_ids
    ):
        found.append(f"{where}: the answer is the base's, in the proof it was another")
    return found


def _choose(home: Home, member: Member, count: int) -> list[_Asked]:
    """`count` rows of the member's proof: those first that the base is known to answer otherwise."""
    stored = {each.row: each for each in read_trace(member.trace)}
    base = _base_answers(home, member)
    unlike = {row for row, each in stored.items() if row in base and base[row].answer_ids != each.answer_ids}
    names = sorted(stored, key=lambda row: row not in unlike)[:count]
    held_out = home.by_id(trace_settings(member.trace).held_out)
    found: dict[str, Row] = {}
    for row in read_held_out(home, held_out, f"live check of {member.name}"):
        if row.sample.id in names:
            found[row.sample.id] = row
            if len(found) == len(names):
                break
    return [_Asked(member, found[name], stored[name], base.get(name)) for name in names]


def _base_answers(home: Home, member: Member) -> dict[str, TraceRow]:
    """What the base answered to the member's exam in vLLM, by row; empty where that was never asked."""
    ours = trace_settings(member.trace)
    for trace in reversed(home.all("trace")):
        theirs = trace_settings(trace)
        same = (theirs.held_out, theirs.engine, theirs.dtype) == (ours.held_out, ours.engine, ours.dtype)
        if same and theirs.subject == member.profile.base:
            return {each.row: each for each in read_trace(trace)}
    return {}


def _in_turns(chosen: Sequence[Sequence[_Asked]]) -> Iterator[_Asked]:
    for turn in itertools.zip_longest(*chosen):
        yield from filter(None, turn)
