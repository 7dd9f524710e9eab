"""The serve proof: the engine's answers over HTTP equal those of the trained model in transformers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lensmith.artifact import Artifact, verify
from lensmith.attestation import Attestation, Predicate, attest, attestations
from lensmith.dataset import read_held_out
from lensmith.errors import IntegrityError, Problem
from lensmith.exam import proof_rows
from lensmith.home import Home
from lensmith.provenance import stage_key
from lensmith.trace import GUIDED_FILE, TRACE_FILE, TraceRow, TraceSettings, read_trace, trace_settings
from serving.comparison import Bounds, Compared, compare, is_live
from serving.profile import images_differ
from serving.profile_file import Cuda

# Fewer rows decide nothing; a smaller held-out set is asked whole.
LEAST_ROWS = 64
_NAMED_ROWS = 5
PREDICATE: Predicate = "serve-proof"

# Measured between transformers 5.20 and vLLM 0.32 on CPUs. float32: log-probabilities 6e-6 (Qwen3-VL) to 9e-5
# (DeepSeek-OCR-2) apart. bfloat16, merged weights against base plus adapter, a tiny Qwen3-VL, 1,007 tokens in
# 64 rows: 0.047 nats apart at most, parted at leads up to 0.031. Logits above 16 come in steps of 0.125.
BOUNDS: dict[str, Bounds] = {
    "float32": Bounds(0.0, 1e-3, "ids equal; log-probabilities seen 9e-5 apart at most"),
    "bfloat16": Bounds(0.125, 0.125, "parted at leads up to 0.031, log-probabilities 0.047 apart at most"),
}


def prove_serving(
    home: Home, served: Artifact, reference: Artifact, base: Artifact | None = None
) -> Attestation:
    """Compare a served trace with the reference on the proof rows and attest the verdict about its subject.

    float32: prompt ids, image-token counts and greedy answer ids equal on every row. Lower: see `Bounds`.
    Guided answers are compared the same way, beside the free ones. base: what the subject's base answers, in
    either engine: some served answer must be another, or nothing shows that what was trained is live. Without
    it that is left open (`rows_live` null). Fewer than min(64, all) rows are undecidable, and so are weights
    or a KV cache in FP8: both fail. A proof that passed on the same things before is returned as it is.
    Raises IntegrityError where the traces are not of one held-out set, one lineage, one dtype and one limit,
    or were changed.
    """
    ours, theirs = trace_settings(served), trace_settings(reference)
    evidence = {"served_trace": served.id, "reference_trace": reference.id, "held_out": ours.held_out}
    evidence["profile"] = served.manifest.inputs["profile"]
    if base is not None:
        evidence["base_trace"] = base.id
    key = stage_key(PREDICATE, "serving.parity", (), {}, evidence | {"subject": ours.subject})
    for earlier in attestations(home, ours.subject, PREDICATE):
        if earlier.passed and earlier.statement.get("key") == key:
            return earlier
    for trace in filter(None, (served, reference, base)):
        verify(trace)
    _check_comparable(home, ours, theirs, None if base is None else trace_settings(base))
    held_out = home.by_id(ours.held_out)
    expected = proof_rows(read_held_out(home, held_out, f"serve proof of {ours.subject[:12]}"), theirs.rows)
    pair = _Pair(
        [row.sample.id for row in expected],
        BOUNDS[ours.dtype],
        _of_images(home.by_id(evidence["profile"])),
    )
    free = _by_row(served)
    of_base = {} if base is None else _by_row(base)
    statement = pair.compare(free, _by_row(reference), of_base)
    findings: list[str] = statement["findings"]
    findings += _unmeasured(home.by_id(evidence["profile"]))
    total = int(held_out.body["rows"])
    needed = min(LEAST_ROWS, total)
    if statement["rows"] < needed:
        findings.append(
            f"undecidable: {statement['rows']} rows compared, at least {needed} of {total} are needed"
            f" (serve.proof_rows: {LEAST_ROWS})"
        )
    if ours.template != theirs.template:
        findings.append("the chat template's file is not the reference's (serve the one trained with)")
    live = None if base is None else pair.live(free, of_base)
    if live == 0 and ours.serving != "base":
        findings.append(
            "every answer equals the base's (the adapter is not applied, or training changed nothing)"
        )
    guided = None
    if ours.guided != theirs.guided:
        findings.append("guided answers were asked under another schema or rule than the reference's")
    elif ours.guided:
        answers = _by_row(served, GUIDED_FILE)
        guided = pair.compare(answers, _by_row(reference, GUIDED_FILE), {})
        findings += [f"guided: {each}" for each in guided.pop("findings")]
        guided["rows_unlike_free"] = sum(
            answers[row].answer_ids != free[row].answer_ids for row in answers.keys() & free.keys()
        )
    statement.update(
        key=key,
        engine=ours.engine,
        engine_version=ours.engine_version,
        serving=ours.serving,
        dtype=ours.dtype,
        reference=f"{theirs.engine} {theirs.engine_version}",
        rows_live=live,
        guided=guided,
        bounds={"margin": pair.bounds.margin, "logprob": pair.bounds.logprob, "source": pair.bounds.source},
    )
    return attest(home, PREDICATE, ours.subject, not findings, evidence, statement)


def _by_row(trace: Artifact, file: str = TRACE_FILE) -> dict[str, TraceRow]:
    return {row.row: row for row in read_trace(trace, file)}


@dataclass(frozen=True)
class _Pair:
    """What two traces are held against each other by: the rows to prove, the bounds, and what the engine is
    known to compute otherwise where a prompt has images."""

    expected: list[str]
    bounds: Bounds
    of_images: str

    def compare(
        self, served: dict[str, TraceRow], reference: dict[str, TraceRow], base: dict[str, TraceRow]
    ) -> dict[str, Any]:
        """The figures, and a finding for each kind of difference."""
        findings: list[str] = []
        for name, trace in (("served", served), ("reference", reference)):
            if missing := [row for row in self.expected if row not in trace]:
                rows = f"lacks {len(missing)} of the rows to prove: {_named(missing)}"
                findings.append(f"the {name} trace {rows}")
        rows = [row for row in self.expected if row in served and row in reference]
        outcomes = [
            compare(served[row], reference[row], base.get(row), self.bounds, self.of_images) for row in rows
        ]
        return {
            "rows": len(rows),
            "rows_equal": sum(not each.differences and not each.allowed for each in outcomes),
            "rows_allowed": sum(each.allowed and not each.differences for each in outcomes),
            "largest_logprob_difference": max((each.noise for each in outcomes), default=0.0),
            "findings": findings + _findings(outcomes),
        }

    def live(self, served: dict[str, TraceRow], base: dict[str, TraceRow]) -> int:
        """How many rows are answered otherwise than by the base."""
        both = served.keys() & base.keys()
        return sum(is_live(served[row], base[row], self.bounds) for row in both)


def _of_images(profile: Artifact) -> str:
    """What the profile's engine is known to compute otherwise where a prompt has images."""
    return images_differ(profile.body["family"], profile.body["engine"]["device"])


def _unmeasured(profile: Artifact) -> list[str]:
    """Why nothing is proven where the engine rounds further than the dtype whose bounds are known."""
    cuda = profile.body.get("cuda")
    return [
        f"undecidable: {what} are rounded to FP8, for which no bound was measured (set serve.quantization:"
        " none and serve.kv_cache_dtype: auto to prove it)"
        for what in ([] if cuda is None else Cuda.model_validate(cuda).rounded)
    ]


def _findings(outcomes: list[Compared]) -> list[str]:
    """One sentence for each kind of difference and cause: how many rows, which, and the first in detail."""
    kinds: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for outcome in outcomes:
        for each in outcome.differences:
            kinds.setdefault((each.what, each.cause), []).append((each.row, each.detail))
    return [
        f"{what} differs on {len(rows)} of {len(outcomes)} rows ({_named([row for row, _ in rows])});"
        f" in {rows[0][0]} {rows[0][1]}: {cause}"
        for (what, cause), rows in kinds.items()
    ]


def _named(rows: list[str]) -> str:
    more = f" and {len(rows) - _NAMED_ROWS} more" if len(rows) > _NAMED_ROWS else ""
    return ", ".join(rows[:_NAMED_ROWS]) + more


def _check_comparable(
    home: Home, served: TraceSettings, reference: TraceSettings, base: TraceSettings | None
) -> None:
    pairs = {
        "held_out": (served.held_out, reference.held_out),
        "dtype": (served.dtype, reference.dtype),
        "max_new_tokens": (served.max_new_tokens, reference.max_new_tokens),
    }
    problems = [
        Problem(f"{ours!r} served, {theirs!r} in the reference", name)
        for name, (ours, theirs) in pairs.items()
        if ours != theirs
    ]
    if base is not None and base.held_out != served.held_out:
        problems.append(Problem("the base was asked another held-out set", "held_out"))
    if served.engine == reference.engine:
        problems.append(Problem(f"both traces are by {served.engine}: nothing is proven", "engine"))
    if served.dtype not in BOUNDS:
        problems.append(Problem(f"no bounds are recorded for {served.dtype}", "dtype"))
    subject = home.by_id(served.subject)
    lineage = home.lineage(subject)
    if base is not None and base.subject not in {each.id for each in lineage if each.kind == "base"}:
        problems.append(
            Problem(
                f"{subject.short} was not made from {base.subject[:12]}, whose answers are the base's", "base"
            )
        )
    if reference.subject not in {each.id for each in lineage}:
        problems.append(
            Problem(f"{subject.short} was not made from {reference.subject[:12]}, the reference's", "subject")
        )
    if problems:
        raise IntegrityError("the traces cannot be compared", problems)
