"""A small world of artifacts around a release, made directly and without torch.

`World(home)` holds a base, a dataset with its held-out set, and makes runs, models, profiles, traces,
proofs, reports and releases in it: what evaluation, release, registry and gates read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from PIL import Image, ImageDraw

from finetune.evaluation.evaluate import evaluate
from lensmith.artifact import Artifact, FileEntry, Kind, list_files
from lensmith.attestation import Attestation, Predicate, attest
from lensmith.dataset import HELD_OUT_FILE, asked_role
from lensmith.files import digest_json
from lensmith.home import Home
from lensmith.images import encode_png, pixel_digest
from lensmith.recipe import Recipe
from lensmith.row_file import Row, write_rows
from lensmith.sample import Image as SampleImage
from lensmith.sample import Message, Sample, Text
from lensmith.trace import TraceRow, TraceSettings, write_trace
from serving.bundle import make_release
from tests.conftest import recipe_content

QUESTION = "Read the form."
# The part of a run's `asked` that the recipe's `train` section gives.
ASKED = {
    "dtype": "bfloat16",
    "epochs": 2.0,
    "learning_rate": 2e-4,
    "lora": {"alpha": 32.0, "dropout": 0.0, "rank": 16},
    "max_length": 4096,
    "max_steps": 0,
    "method": "lora",
    "schedule": "cosine",
    "seed": 17,
    "towers": {"connector": "adapt", "language": "adapt", "vision": "adapt"},
    "warmup": 0.03,
    "weight_decay": 0.0,
}
LICENCE_TEXT = "The licence of the base.\n"


def plain_recipe(**evaluate_settings: Any) -> Recipe:
    """A valid recipe whose paths need not exist."""
    content = recipe_content(Path("/nowhere/Tiny-VL"), Path("/nowhere/forms"))
    content["evaluate"] = {"resamples": 400, **evaluate_settings}
    return Recipe.model_validate(content)


def label(number: int) -> str:
    """The answer that form `number` should get."""
    fields = {"account": f"{number * 7919 % 1_000_000:06d}", "amount": f"{number}.50"}
    return json.dumps(fields)


def picture(number: int) -> Image.Image:
    """A form that shows its label, different for each number."""
    image = Image.new("RGB", (160, 64), "white")
    ImageDraw.Draw(image).text((6, 24), f"form {number}", fill="black")
    return image


def form_rows(count: int, per_group: int) -> list[Row]:
    """`count` labelled forms, `per_group` to a customer."""
    return [_form(number, number // per_group) for number in range(count)]


@cache
def _form(number: int, customer: int) -> Row:
    image = picture(number)
    shown = SampleImage(f"images/{number}.png", pixel_digest(image), image.size)
    messages = Message("user", (shown, Text(QUESTION))), Message("assistant", (Text(label(number)),))
    sample = Sample(f"form-{number:03d}", f"customer-{customer:02d}", messages)
    return Row(sample, (encode_png(image),))


Answers = Callable[[int], str]


def wrong_every(step: int) -> Answers:
    """Answers that are right but for every `step`-th row, where the account's last digit is off."""

    def answer(number: int) -> str:
        if number % step:
            return label(number)
        return label(number).replace('", "amount', '0", "amount', 1)

    return answer


def all_wrong(number: int) -> str:
    """Answers whose every account is wrong, and every amount right."""
    return wrong_every(1)(number)


class World:
    """Everything a release is made from; each maker returns a complete artifact of the home."""

    def __init__(self, home: Home, rows: int = 48, per_group: int = 2, recipe: Recipe | None = None) -> None:
        self.home = home
        self.recipe = recipe or plain_recipe()
        self.rows = form_rows(rows, per_group)
        self.base = self.make_base([])
        self.held_out = self.make_held_out("held-out", self.rows)
        self.dataset = self.artifact(
            "dataset",
            "dataset",
            {},
            {"data/train.arrow": b"rows"},
            held_out=self.held_out.id,
            rows={"train": 120, "validation": 20, "held_out": rows},
            groups={"train": 60, "validation": 10, "held_out": rows // per_group},
        )
        self.intake = self.make_intake("intake", self.dataset)

    def make_intake(
        self, name: str, dataset: Artifact, files: Mapping[str, bytes] = MappingProxyType({})
    ) -> Artifact:
        """What was handed over for `dataset`."""
        return self.artifact(
            "intake",
            name,
            {"dataset": dataset, "held_out": self.held_out},
            {"refused.jsonl": b"", **files},
            refused={"rows": 3, "by_reason": {"missing-image": 2, "empty-answer": 1}},
            sources=[{"file": "labels.jsonl", "sha256": "5" * 64, "rows": 143 + len(self.rows)}],
        )

    def artifact(
        self, kind: Kind, name: str, inputs: Mapping[str, Artifact], files: Mapping[str, bytes], **body: Any
    ) -> Artifact:
        """An artifact of `kind` under a key drawn from `name`."""
        with self.home.create(kind, digest_json([kind, name]), inputs) as draft:
            for path, data in files.items():
                (draft.path / path).parent.mkdir(parents=True, exist_ok=True)
                (draft.path / path).write_bytes(data)
            draft.body.update(body)
        return draft.artifact

    def make_base(self, files: Sequence[FileEntry], place: Path = Path("/nowhere/Tiny-VL")) -> Artifact:
        """A pinned base with `files` at `place`."""
        with self.home.create("base", digest_json([str(place), len(files)]), {}) as draft:
            draft.body.update(
                family="qwen3_vl",
                revision="abc123",
                licence="",
                template="t" * 64,
                files=[entry.model_dump() for entry in files],
            )
            draft.record.update(place=str(place))
        return draft.artifact

    def pin_base(self, checkpoint: Path) -> None:
        """Make the base one whose files lie at `checkpoint`; what is made from now on is made from it."""
        self.base = self.make_base(list_files(checkpoint), checkpoint)

    def make_held_out(self, name: str, rows: Sequence[Row]) -> Artifact:
        """A sealed held-out set of `rows`."""
        with self.home.create("held_out", digest_json(["held_out", name]), {}) as draft:
            write_rows(draft.path / HELD_OUT_FILE, rows)
            draft.body.update(rows=len(rows))
        return draft.artifact

    def run(self, name: str) -> Artifact:
        """A fine-tune."""
        return self.artifact(
            "run",
            f"run {name}",
            {"base": self.base, "dataset": self.dataset},
            {"adapter_config.json": b"{}", "adapter_model.safetensors": name.encode()},
            asked={"family": "qwen3_vl", "pixels": None, "train": ASKED, "global_batch": 16},
            method="lora",
            towers={"vision": "adapt", "connector": "adapt", "language": "adapt"},
            trained_parameters={"vision": 1000, "connector": 400, "language": 2800},
            seed=17,
            steps=300,
            global_batch=16,
            final_loss=0.0123,
        )

    def model(self, name: str) -> Artifact:
        """A merged checkpoint."""
        return self.artifact(
            "model",
            f"model {name}",
            {"base": self.base, "run": self.run(name)},
            {
                "config.json": b"{}",
                "model.safetensors": b"\x10\0\0\0\0\0\0\0{} " + name.encode(),
                "LICENSE": LICENCE_TEXT.encode(),
            },
            dtype="float32",
            licence="Apache-2.0",
        )

    def profile(self, subject: Artifact) -> Artifact:
        """How `subject` is served."""
        return self.artifact(
            "profile",
            f"profile {subject.id}",
            {"subject": subject, "base": self.base},
            {"profile.yaml": b"engine: vllm\n"},
            served_name="bank-forms",
            port=8000,
        )

    def trace(
        self,
        subject: Artifact,
        answer: Answers,
        *,
        held_out: Artifact | None = None,
        rows: Sequence[Row] | None = None,
        name: str = "",
    ) -> Artifact:
        """What `subject` answers as served to `rows` (all of them where not given)."""
        asked = held_out or self.held_out
        profile = self.profile(subject)
        inputs = {"profile": profile, asked_role(asked): asked}
        with self.home.create("trace", digest_json(["trace", subject.id, asked.id, name]), inputs) as draft:
            lines = [
                trace_row(row, answer(number))
                for number, row in enumerate(self.rows if rows is None else rows)
            ]
            write_trace(draft.path, lines)
            settings = TraceSettings(
                subject=subject.id,
                held_out=asked.id,
                engine="vllm",
                engine_version="0.32.0",
                dtype="float32",
                max_new_tokens=64,
                rows=len(lines),
                serving="merged",
                template="t" * 64,
            )
            draft.body.update(settings.model_dump())
        return draft.artifact

    def proof(self, predicate: Predicate, subject: Artifact, *, passed: bool = True) -> Attestation:
        """A proof about `subject`; a serve proof is about its profile, too."""
        findings = [] if passed else ["row form-003: answers differ at token 4"]
        statement = {"key": "k" * 64, "findings": findings, "rows": 64, "logits": {"largest": 1e-06}}
        evidence = {"base": self.base.id}
        if predicate == "serve-proof":
            evidence["profile"] = self.profile(subject).id
        return attest(self.home, predicate, subject.id, passed, evidence, statement)

    def report(
        self, model: Artifact, answer: Answers, baseline: Artifact, baseline_answer: Answers
    ) -> Artifact:
        """The report on `model`, compared with `baseline`, both served on the held-out set."""
        return evaluate(
            self.recipe,
            self.home,
            self.trace(model, answer),
            self.held_out,
            self.trace(baseline, baseline_answer),
        )

    def release(
        self,
        name: str,
        answer: Answers = label,
        *,
        baseline: Artifact | None = None,
        baseline_answer: Answers = all_wrong,
        report: Artifact | None = None,
    ) -> Artifact:
        """A release with both proofs passed, compared with `baseline` (the base where not given)."""
        model = self.model(name)
        judged = report or self.report(model, answer, baseline or self.base, baseline_answer)
        return make_release(
            self.recipe,
            self.home,
            model=model,
            profile=self.profile(model),
            report=judged,
            dataset=self.dataset,
            held_out=self.held_out,
            intake=self.intake,
            merge_proof=self.proof("merge-proof", model),
            serve_proof=self.proof("serve-proof", model),
        )


def trace_row(row: Row, answer: str) -> TraceRow:
    """The line of a trace that answers `row`; token ids are the answer's code points."""
    ids = [ord(each) for each in answer]
    return TraceRow(
        row=row.sample.id,
        group=row.sample.group,
        image_digests=[image.digest for image in row.sample.images],
        prompt_ids=[1, 2, 3],
        image_tokens=1,
        answer_ids=ids,
        answer_text=answer,
        answer_logprobs=[0.0] * len(ids),
        margins=[1.0] * len(ids),
        finish="stop",
    )
