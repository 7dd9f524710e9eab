"""The serve proof over whole traces, on artifacts without weights: what passes, fails and is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lensmith import families
from lensmith.artifact import Artifact
from lensmith.attestation import attest, attestations
from lensmith.dataset import HELD_OUT_FILE
from lensmith.errors import IntegrityError
from lensmith.exam import proof_rows
from lensmith.files import digest_json
from lensmith.home import Home
from lensmith.row_file import Row, write_rows
from lensmith.sample import Message, Sample, Text
from lensmith.trace import GUIDED_FILE, TRACE_FILE, TraceRow, TraceSettings, write_trace
from serving.parity import prove_serving
from tests.serving.exam import CPU_BUILD
from tests.serving.small import small_base, small_model, small_recipe, small_run

ROWS = 70


def held_out_rows(count: int = ROWS) -> list[Row]:
    messages = (Message("user", (Text("?"),)), Message("assistant", (Text("!"),)))
    return [Row(Sample(f"row-{i}", f"group-{i % 20}", messages), ()) for i in range(count)]


def answer(row: Row, **changes: Any) -> TraceRow:
    content = {
        "row": row.sample.id,
        "group": row.sample.group,
        "image_digests": [],
        "prompt_ids": [1, 2, 3],
        "image_tokens": 0,
        "answer_ids": [5, 6],
        "answer_text": "56",
        "answer_logprobs": [-0.1, -0.2],
        "margins": [2.0, 0.01],
        "finish": "stop",
    }
    return TraceRow.model_validate(content | changes)


@dataclass
class Room:
    """A home with everything a proof reads, and a way to write traces into it."""

    home: Home
    base: Artifact
    run: Artifact
    model: Artifact
    held_out: Artifact
    profile: Artifact

    def trace(
        self, subject: Artifact, rows: list[TraceRow], kept: list[TraceRow] | None = None, **changes: Any
    ) -> Artifact:
        served = changes.get("engine", "vllm") == "vllm"
        settings = TraceSettings.model_validate(
            {
                "subject": subject.id,
                "held_out": self.held_out.id,
                "engine": "vllm",
                "engine_version": "0.32.0",
                "dtype": "float32",
                "max_new_tokens": 8,
                "rows": len(rows),
                "serving": "merged" if served else "none",
                "template": self.base.body["template"],
            }
            | changes
        )
        inputs = {"held_out": self.held_out} | ({"profile": self.profile} if served else {})
        written = [each.model_dump() for each in (*rows, *(kept or []))]
        key = digest_json([settings.model_dump(), written])
        with self.home.create("trace", key, inputs) as draft:
            write_trace(draft.path, rows)
            if kept is not None:
                write_trace(draft.path, kept, GUIDED_FILE)
            draft.body.update(settings.model_dump())
        return draft.artifact

    def reference(self, rows: list[TraceRow] | None = None, **changes: Any) -> Artifact:
        asked = [answer(row) for row in proof_rows(held_out_rows(), 64)] if rows is None else rows
        settings = {"engine": "transformers", "engine_version": "5.20.2"} | changes
        return self.trace(self.run, asked, **settings)

    def served(self, change: Callable[[Row], dict[str, Any]] = lambda row: {}, **changes: Any) -> Artifact:
        rows = [answer(row, **change(row)) for row in held_out_rows()]
        return self.trace(self.model, rows, **changes)

    def base_trace(self, answer_ids: list[int]) -> Artifact:
        rows = [answer(row, answer_ids=answer_ids) for row in held_out_rows()]
        return self.trace(self.base, rows, serving="base")


@pytest.fixture
def room(tmp_path: Path, home: Home) -> Room:
    recipe = small_recipe(tmp_path)
    base = small_base(home, recipe)
    run = small_run(home, base, ["language"])
    model = small_model(home, base, run)
    with home.create("held_out", "h" * 64, {}) as draft:
        write_rows(draft.path / HELD_OUT_FILE, held_out_rows())
        draft.body.update(rows=ROWS, groups=20)
    held_out = draft.artifact
    with home.create("profile", "p" * 64, {"subject": model, "base": base}) as draft:
        (draft.path / "profile.yaml").write_text("")
        draft.body.update(family="qwen3_vl", engine=CPU_BUILD.model_dump())
    return Room(home, base, run, model, held_out, draft.artifact)


def findings(room: Room, served: Artifact, reference: Artifact, baseline: Artifact | None = None) -> str:
    proof = prove_serving(room.home, served, reference, baseline)
    assert proof.passed == (not proof.statement["findings"])
    return "\n".join(proof.statement["findings"])


def test_what_an_engine_does_with_images_is_named(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_image(row: Row) -> dict[str, Any]:
        return {"image_tokens": 1, "answer_ids": [5, 7]} if row.sample.id == "row-0" else {}

    rows = [answer(row) for row in proof_rows(held_out_rows(), 64)]
    reference = room.reference(
        [each.model_copy(update={"image_tokens": int(each.row == "row-0")}) for each in rows]
    )
    assert "other weights" in findings(room, room.served(with_image), reference)
    known = replace(families.get("qwen3_vl"), vllm_images={"cpu": "it reads them one by one"})
    monkeypatch.setitem(families.FAMILIES, "qwen3_vl", known)
    text = findings(room, room.served(with_image), reference)
    assert "answer differs on 1 of 64 rows (row-0)" in text
    assert "it reads them one by one" in text


def test_equal_traces_pass_and_say_what_was_compared(room: Room) -> None:
    served, reference, baseline = room.served(), room.reference(), room.base_trace([5, 7])
    proof = prove_serving(room.home, served, reference, baseline)
    assert proof.passed
    assert proof.subject == room.model.id
    assert proof.evidence == {
        "served_trace": served.id,
        "reference_trace": reference.id,
        "base_trace": baseline.id,
        "held_out": room.held_out.id,
        "profile": room.profile.id,
    }
    assert proof.statement["rows"] == proof.statement["rows_equal"] == 64
    assert proof.statement["rows_live"] == ROWS
    assert proof.statement["engine_version"] == "0.32.0"


def test_proving_again_changes_nothing(room: Room) -> None:
    served, reference = room.served(), room.reference()
    first = prove_serving(room.home, served, reference)
    assert prove_serving(room.home, served, reference).digest == first.digest
    assert len(attestations(room.home, room.model.id, "serve-proof")) == 1


def test_a_proof_without_a_key_is_nobodys_earlier_one(room: Room) -> None:
    foreign = attest(room.home, "serve-proof", room.model.id, True, {}, {"findings": []})
    assert prove_serving(room.home, room.served(), room.reference()).digest != foreign.digest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt_ids": [1, 2, 4]}, "another chat template"),
        ({"prompt_ids": [1, 9, 9, 2, 3], "image_tokens": 2}, "the pixel budget of serving"),
        ({"answer_ids": [5, 7]}, "other weights"),
        ({"margins": [2.0, -0.5]}, "greedy decoding differs"),
        ({"answer_logprobs": [-0.1, -0.3]}, "log-probability differs"),
        ({"image_digests": ["c" * 64]}, "another picture"),
    ],
)
def test_one_row_that_differs_fails_and_is_named(room: Room, change: dict[str, Any], words: str) -> None:
    name = proof_rows(held_out_rows(), 64)[40].sample.id
    served = room.served(lambda row: change if row.sample.id == name else {})
    text = findings(room, served, room.reference())
    assert words in text
    assert f"1 of 64 rows ({name})" in text


def test_rows_beyond_the_proof_do_not_matter(room: Room) -> None:
    proven = {row.sample.id for row in proof_rows(held_out_rows(), 64)}
    served = room.served(lambda row: {} if row.sample.id in proven else {"answer_ids": [7, 7]})
    assert findings(room, served, room.reference()) == ""


def test_bfloat16_allows_what_float32_does_not(room: Room) -> None:
    # The lead at the second token is 0.01 nats in the reference, at the first 2.0.
    second = room.served(lambda row: {"answer_ids": [5, 7]}, dtype="bfloat16")
    first = room.served(lambda row: {"answer_ids": [7, 6]}, dtype="bfloat16")
    reference = room.reference(dtype="bfloat16")
    proof = prove_serving(room.home, second, reference)
    assert proof.passed
    assert proof.statement["rows_allowed"] == 64
    assert "answer differs on 64 of 64 rows" in findings(room, first, reference)


def test_an_adapter_that_is_not_applied_is_found_and_called_that(room: Room) -> None:
    served = room.served(lambda row: {"answer_ids": [5, 7]})
    text = findings(room, served, room.reference(), room.base_trace([5, 7]))
    assert "the base's own answer: the adapter is not applied" in text
    assert "every answer equals the base's" in text


def test_a_tuned_model_that_answers_as_the_base_is_not_shown_to_be_live(room: Room) -> None:
    text = findings(room, room.served(), room.reference(), room.base_trace([5, 6]))
    assert text.startswith("every answer equals the base's")


def with_guided(room: Room, change: dict[str, Any], **changes: Any) -> tuple[Artifact, Artifact]:
    """A served trace and its reference, both guided; `change` is laid over one served guided row."""
    chosen = proof_rows(held_out_rows(), 64)
    expected = [answer(row, answer_ids=[6, 6]) for row in chosen]
    given = [*expected[:40], expected[40].model_copy(update=change), *expected[41:]]
    reference = room.trace(
        room.run, [answer(row) for row in chosen], expected, engine="transformers", guided="g" * 64
    )
    free = [answer(row) for row in held_out_rows()]
    return room.trace(room.model, free, given, **({"guided": "g" * 64} | changes)), reference


def test_guided_answers_are_compared_beside_the_free_ones(room: Room) -> None:
    served, reference = with_guided(room, {})
    proof = prove_serving(room.home, served, reference)
    assert proof.passed
    guided = proof.statement["guided"]
    assert (guided["rows"], guided["rows_equal"], guided["rows_unlike_free"]) == (64, 64, 64)
    assert proof.statement["rows_equal"] == 64


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"answer_ids": [6, 7]}, "guided: answer differs on 1 of 64 rows"),
        ({"answer_logprobs": [-0.1, -0.3]}, "guided: log-probability differs"),
        ({"prompt_ids": [1, 2, 4]}, "guided: prompt differs"),
    ],
)
def test_a_guided_answer_that_differs_fails_though_all_free_ones_are_equal(
    room: Room, change: dict[str, Any], words: str
) -> None:
    served, reference = with_guided(room, change)
    proof = prove_serving(room.home, served, reference)
    assert not proof.passed
    assert words in "\n".join(proof.statement["findings"])
    assert proof.statement["guided"]["rows_equal"] == 63
    assert proof.statement["rows_equal"] == 64


def test_another_guide_than_the_reference_s_fails(room: Room) -> None:
    served, reference = with_guided(room, {}, guided="e" * 64)
    assert "another schema or rule" in findings(room, served, reference)
    assert "another schema or rule" in findings(room, room.served(), reference), "none at all"


def test_the_base_s_answers_may_come_from_the_reference_s_engine(room: Room) -> None:
    """Where production is what a release has to beat, the base is not served: it is asked in transformers."""
    asked = proof_rows(held_out_rows(), 64)
    for ids, live in (([5, 7], 64), ([5, 6], 0)):
        base = room.trace(
            room.base, [answer(row, answer_ids=ids) for row in asked], engine="transformers", serving="none"
        )
        proof = prove_serving(room.home, room.served(), room.reference(), base)
        assert (proof.statement["rows_live"], proof.passed) == (live, live > 0)


def test_noise_does_not_make_an_adapter_live(room: Room) -> None:
    # The base's lead at the second token is 0.01 nats: within what bfloat16 alone can turn.
    served = room.served(dtype="bfloat16")
    near = room.base_trace([5, 7])
    assert "every answer equals the base's" in findings(room, served, room.reference(dtype="bfloat16"), near)


def test_another_model_s_answers_are_not_the_base_s(room: Room) -> None:
    other = room.trace(room.model, [answer(row) for row in held_out_rows()], max_new_tokens=9)
    with pytest.raises(IntegrityError, match="whose answers are the base's"):
        prove_serving(room.home, room.served(), room.reference(), other)


def test_too_few_rows_are_undecidable(room: Room) -> None:
    few = [answer(row) for row in proof_rows(held_out_rows(), 63)]
    assert "undecidable: 63 rows compared, at least 64 of 70" in findings(
        room, room.served(), room.reference(few)
    )


def test_rows_that_are_not_the_proof_s_own_do_not_count(room: Room) -> None:
    chosen = proof_rows(held_out_rows(), 64)
    left = next(row for row in held_out_rows() if row.sample.id not in {r.sample.id for r in chosen})
    swapped = [answer(row) for row in [*chosen[:63], left]]
    text = findings(room, room.served(), room.reference(swapped))
    assert f"the reference trace lacks 1 of the rows to prove: {chosen[63].sample.id}" in text
    assert "undecidable" in text


def test_another_template_file_fails(room: Room) -> None:
    assert "chat template's file" in findings(room, room.served(template="t" * 64), room.reference())


def test_traces_that_do_not_belong_together_are_refused(room: Room) -> None:
    served, reference = room.served(), room.reference()
    stranger = small_run(room.home, room.base, ["language"], r=8)
    for wrong, words in (
        (room.reference(held_out="0" * 64), "held_out"),
        (room.reference(dtype="bfloat16"), "dtype"),
        (room.reference(max_new_tokens=9), "max_new_tokens"),
        (room.served(), "both traces are by vllm"),
        (room.trace(stranger, [], engine="transformers"), "was not made from"),
    ):
        with pytest.raises(IntegrityError, match=words):
            prove_serving(room.home, served, wrong)
    other = room.trace(room.base, [], held_out="0" * 64)
    with pytest.raises(IntegrityError, match="another held-out set"):
        prove_serving(room.home, served, reference, other)
    with pytest.raises(IntegrityError, match="no bounds are recorded for float16"):
        prove_serving(room.home, room.served(dtype="float16"), room.reference(dtype="float16"))
    assert attestations(room.home, room.model.id) == []


def test_an_edited_trace_is_refused(room: Room) -> None:
    served, reference = room.served(lambda row: {"answer_ids": [5, 7]}), room.reference()
    path = served.path / TRACE_FILE
    path.write_text(path.read_text().replace("[5,7]", "[5,6]"))
    with pytest.raises(IntegrityError, match="not what its manifest says"):
        prove_serving(room.home, served, reference)


@pytest.mark.parametrize(
    ("key", "words"),
    [("quantization", "weights and activations are rounded to FP8"), ("kv_cache_dtype", "the KV cache are")],
)
def test_nothing_is_proven_of_what_is_rounded_further(room: Room, key: str, words: str) -> None:
    """Answers that agree on these rows say nothing of others: no bound was measured for FP8."""
    cuda = {"memory_utilization": 0.9, "tensor_parallel": 1}
    for name, settings, passes in (("plain", {}, True), ("fp8", {key: "fp8"}, False)):
        with room.home.create("profile", digest_json([name, key]), {"subject": room.model}) as draft:
            (draft.path / "profile.yaml").write_text("")
            draft.body.update(room.profile.body | {"cuda": cuda | settings})
        room.profile = draft.artifact
        proof = prove_serving(
            room.home, room.served(lambda row, name=name: {"answer_text": name}), room.reference()
        )
        assert proof.passed == passes
    assert words in "\n".join(proof.statement["findings"])
    assert "undecidable" in proof.statement["findings"][0]
