"""The stages of a recipe in order: each finds its artifact or makes it from the ones before.

A `Pipeline` remembers what it has found, so that a verb names only what it wants: `pipeline.model`
prepares, trains and merges where that is not done yet.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lensmith.artifact import MANIFEST, Artifact
from lensmith.attestation import Attestation
from lensmith.cli.output import note
from lensmith.errors import GateRefused, InputError, Problem
from lensmith.guide import recipe_guide
from lensmith.home import Home
from lensmith.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from data_prep.lengths import MakeCounter, RowCounter

Made = TypeVar("Made", Artifact, tuple[Artifact, Artifact, Artifact])


def counter_of(recipe: Recipe) -> MakeCounter:
    """What counts rows as training does; the tokenizer is loaded when it is asked for."""

    def make() -> RowCounter:
        from finetune.encoder import row_encoder

        return row_encoder(recipe, recipe.base.path)

    return make


class Pipeline:
    """One recipe in one home. The first look at a stage does its work; later ones find it."""

    def __init__(self, recipe_path: Path, settings: Sequence[str], home: Home) -> None:
        self.recipe_path = recipe_path
        self.settings = tuple(settings)
        self.home = home
        self.recipe: Recipe = load_recipe(recipe_path, settings)
        # What cannot be guided should not be told after hours of training.
        recipe_guide(self.recipe)

    @functools.cached_property
    def base(self) -> Artifact:
        """The pinned base checkpoint."""
        from lensmith.base import pin_base

        return self._stage("base", lambda: pin_base(self.recipe, self.home))

    @functools.cached_property
    def _prepared(self) -> tuple[Artifact, Artifact, Artifact]:
        from data_prep.prepare import prepare

        def work() -> tuple[Artifact, Artifact, Artifact]:
            prepared = prepare(self.recipe, self.home, counter_of(self.recipe))
            return prepared.dataset, prepared.held_out, prepared.intake

        return self._stage("prepare", work)

    @property
    def dataset(self) -> Artifact:
        """Train and validation rows."""
        return self._prepared[0]

    @property
    def held_out(self) -> Artifact:
        """The sealed held-out rows."""
        return self._prepared[1]

    @property
    def intake(self) -> Artifact:
        """What was handed over, what was refused, and the report on it."""
        return self._prepared[2]

    @functools.cached_property
    def exam(self) -> Artifact:
        """The held-out set, where models may be judged by it. Raises GateRefused where it was retired."""
        from lensmith.retirement import check_in_force

        check_in_force(self.home, self.held_out)
        return self.held_out

    @functools.cached_property
    def run(self) -> Artifact:
        """The fine-tune: adapter or full weights."""
        from finetune.launch import train
        from serving.profile import check_engine

        check_engine(self.recipe)
        # All are looked at before the clock of training starts: they are stages of their own, and what cannot
        # be merged should not be told after hours of it.
        base, _, dataset = self.base, self.others, self.dataset
        return self._stage(
            "train", lambda: train(self.recipe, self.recipe_path, self.settings, self.home, base, dataset)
        )

    @functools.cached_property
    def others(self) -> list[Artifact]:
        """The further adapters that are merged with the run. Raises InputError where one knows the exam."""
        from finetune.further import further_adapters
        from lensmith.overlap import check_unlearned

        others = further_adapters(self.recipe, self.home, self.base)
        if others:
            check_unlearned(self.home, others, self.held_out)
        return others

    @functools.cached_property
    def model(self) -> Artifact:
        """The merged checkpoint."""
        from finetune.merge import merge

        base, run, others = self.base, self.run, self.others
        return self._stage("merge", lambda: merge(self.recipe, self.home, base, run, others))

    @functools.cached_property
    def merge_proof(self) -> Attestation:
        """That the merged checkpoint is base plus adapter. Raises GateRefused where it is not."""
        from finetune.merge_proof import prove_merge

        model = self.model
        return self._proof(
            "merge proof",
            lambda: prove_merge(
                self.recipe, self.home, self.base, self.run, model, self.held_out, self.others
            ),
        )

    @functools.cached_property
    def served(self) -> Artifact:
        """What the engine serves: the merged model, or the run whose adapter it applies."""
        if self.recipe.serve.mode == "adapter":
            return self.run
        self.require(self.merge_proof)
        return self.model

    @functools.cached_property
    def profile(self) -> Artifact:
        """How vLLM serves it on this machine."""
        from lensmith.base import checkpoint_path
        from serving.profile import derive_profile
        from serving.request_room import check_room

        # Before the clock of training starts, as the exam.
        check_room(self.recipe, checkpoint_path(self.base))
        served = self.served
        return self._stage("profile", lambda: self._derive(derive_profile, served))

    @functools.cached_property
    def trace(self) -> Artifact:
        """What the engine answers on the held-out set."""
        from serving.predict import served_trace

        # The exam first: one that is over should not be told after hours of training.
        held_out, profile = self.exam, self.profile
        return self._stage("trace", lambda: served_trace(self.recipe, self.home, profile, held_out))

    @functools.cached_property
    def reference(self) -> Artifact:
        """What base and adapter answer in transformers, on the rows of the serve proof."""
        from finetune.generate import reference_trace

        base, run, held_out, others = self.base, self.run, self.held_out, self.others
        rows = self.recipe.serve.proof_rows
        return self._stage(
            "reference", lambda: reference_trace(self.recipe, self.home, base, run, held_out, rows, others)
        )

    @functools.cached_property
    def _production(self) -> Artifact | None:
        """The release in production under this recipe's name."""
        from serving.registry import Registry

        with Registry.open(self.home) as registry:
            current = registry.find_current(self.recipe.release.name, "production")
        return self.home.by_id(current.release) if current else None

    @functools.cached_property
    def baseline_profile(self) -> Artifact:
        """The profile of what a release has to beat: production's own, or the base's at first.

        Where production already holds this very model, that of what it was compared with then.
        """
        production = self._production
        if production is not None and production.body["subject"] != self.served.id:
            return self.home.by_id(production.manifest.inputs["profile"])
        if production is not None:
            return self.home.by_id(production.manifest.inputs["baseline_profile"])
        from serving.profile import derive_profile

        return self._stage("profile", lambda: self._derive(derive_profile, self.base), "of the base")

    @property
    def baseline_name(self) -> str:
        """What people call the baseline."""
        served = self.home.by_id(self.baseline_profile.manifest.inputs["subject"])
        return "base" if served.kind == "base" else "production"

    @functools.cached_property
    def baseline_trace(self) -> Artifact:
        """What the baseline answers on the same held-out set, served as its profile says."""
        from serving.predict import served_trace

        held_out, profile = self.exam, self.baseline_profile
        known = {trace.id for trace in self.home.all("trace")}
        trace = self._stage(
            "trace", lambda: served_trace(self.recipe, self.home, profile, held_out), "of the baseline"
        )
        if trace.id not in known:
            self._say_if_unfair(profile, held_out)
        return trace

    def _say_if_unfair(self, profile: Artifact, held_out: Artifact) -> None:
        """Tell that a rival learned rows of the exam. The gate errs to its side: people should know."""
        from lensmith.overlap import learned_rows

        subject = self.home.by_id(profile.manifest.inputs["subject"])
        if learned := learned_rows(self.home, subject, held_out):
            note(
                f"  the model in production was trained on {learned:,} of {held_out.body['rows']:,} rows of"
                " this exam, which favours it: keep data.split as it was, or set data.previous"
            )

    @functools.cached_property
    def base_trace(self) -> Artifact:
        """What the base answers, to show that what was trained is live: served, where the base is what a
        release has to beat, else in transformers on the rows of the serve proof.
        """
        if self.baseline_profile.manifest.inputs["subject"] == self.base.id:
            return self.baseline_trace
        from finetune.generate import reference_trace

        base, held_out, rows = self.base, self.held_out, self.recipe.serve.proof_rows
        return self._stage(
            "reference",
            lambda: reference_trace(self.recipe, self.home, base, None, held_out, rows),
            "of the base",
        )

    @functools.cached_property
    def serve_proof(self) -> Attestation:
        """That the engine answers what was trained. Raises GateRefused where it does not."""
        from serving.parity import prove_serving

        trace, reference, of_base = self.trace, self.reference, self.base_trace
        return self._proof("serve proof", lambda: prove_serving(self.home, trace, reference, of_base))

    @property
    def proofs(self) -> list[Attestation]:
        """The proofs that this recipe's way of serving asks for."""
        return (
            [self.merge_proof, self.serve_proof] if self.recipe.serve.mode == "merged" else [self.serve_proof]
        )

    @functools.cached_property
    def report(self) -> Artifact:
        """How the served model does on the held-out set, against the baseline."""
        from finetune.evaluation.evaluate import evaluate

        trace, baseline, held_out = self.trace, self.baseline_trace, self.exam
        return self._stage("report", lambda: evaluate(self.recipe, self.home, trace, held_out, baseline))

    @functools.cached_property
    def validation_report(self) -> Artifact:
        """How the served model does on the validation rows: whose mistakes labellers may see.

        Raises InputError where there are no such rows.
        """
        from finetune.evaluation.evaluate import evaluate
        from serving.predict import served_trace

        dataset = self.dataset
        if not dataset.body["rows"]["validation"]:
            problem = Problem("none was set aside", "data.split.validation", "give it a share of the groups")
            raise InputError(f"{dataset.short} has no validation rows", [problem])
        profile, where = self.profile, "on validation rows"
        trace = self._stage("trace", lambda: served_trace(self.recipe, self.home, profile, dataset), where)
        return self._stage("report", lambda: evaluate(self.recipe, self.home, trace, dataset, None), where)

    @functools.cached_property
    def release(self) -> Artifact:
        """The bundle that can be promoted. Raises GateRefused where a proof did not pass."""
        from serving.bundle import make_release

        held_out = self.exam
        # An adapter that is served beside its base was never merged: there is nothing to prove of it.
        merge_proof = self.merge_proof if self.recipe.serve.mode == "merged" else None
        profile, serve_proof, report = self.profile, self.serve_proof, self.report
        return self._stage(
            "release",
            lambda: make_release(
                self.recipe,
                self.home,
                model=self.served,
                profile=profile,
                report=report,
                dataset=self.dataset,
                held_out=held_out,
                intake=self.intake,
                merge_proof=merge_proof,
                serve_proof=serve_proof,
            ),
        )

    def require(self, proof: Attestation) -> None:
        """Raise GateRefused where `proof` did not pass, with what it found."""
        if not proof.passed:
            findings = [Problem(str(finding)) for finding in proof.statement["findings"]]
            raise GateRefused(f"the {proof.predicate} of {proof.subject[:12]} failed", findings)

    def _derive(self, derive: Callable[..., Artifact], subject: Artifact) -> Artifact:
        from serving.hardware import read_hardware

        return derive(self.recipe, self.home, subject, self.base, read_hardware())

    def _stage(self, name: str, work: Callable[[], Made], of_what: str = "") -> Made:
        """Do `work` and say what came of it and how long it took."""
        label = f"{name} {of_what}".strip()
        note(f"  {label} ...")
        started = time.time()
        made = work()
        every = made if isinstance(made, tuple) else (made,)
        # Where only the last of several was missing, there was work to do all the same.
        fresh = any((each.path / MANIFEST).stat().st_mtime >= started for each in every)
        state = f"made in {time.time() - started:.1f} s" if fresh else "already there"
        note(f"  {label:<22} {every[0].short:<22} {state}")
        return made

    def _proof(self, name: str, prove: Callable[[], Attestation]) -> Attestation:
        note(f"  {name} ...")
        started = time.time()
        proof = prove()
        verdict = "passed" if proof.passed else "FAILED"
        note(f"  {name:<22} {verdict:<22} in {time.time() - started:.1f} s")
        return proof
