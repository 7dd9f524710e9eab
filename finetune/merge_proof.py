"""The merge proof: the merged model is base plus what was trained, said by code that did not merge it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from finetune.combination import check_count, combination_of, roles
from finetune.proving.form import not_computed, why_sampled
from lensmith.artifact import Artifact, verify
from lensmith.attestation import Attestation, attest, attestations
from lensmith.base import checkpoint_path, verify_base
from lensmith.dataset import read_held_out
from lensmith.errors import InputError, IntegrityError, Problem
from lensmith.exam import proof_rows
from lensmith.home import Home
from lensmith.large_imports import no_collection
from lensmith.new_tokens import learned_tokens
from lensmith.provenance import stage_key
from lensmith.recipe import Recipe
from lensmith.signals import signals_held

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from finetune.proving.part import Part

PREDICATE = "merge-proof"
REASON = "merge proof"
ROWS = 8


def prove_merge(
    recipe: Recipe,
    home: Home,
    base: Artifact,
    run: Artifact,
    model: Artifact,
    held_out: Artifact,
    others: Sequence[Artifact] = (),
) -> Attestation:
    """Attest whether `model` is `run` merged into `base`; the statement holds every figure and finding.

    `others`: the further adapters of the recipe's `merge` section; then `model` is their combination.

    Five parts and more: the adapter's tensors are each used once; every tensor on disk equals its definition
    bit by bit; the files beside the weights equal the base's but for the pixel budget; every weight does so
    as transformers loads it, whatever its name on disk; logits in memory and from disk agree on held-out rows
    within a measured bound. Another where there are new tokens: the model's own tokenizer reads and writes
    each as the id that was trained. Another for a base that was trained on in 4 bits: so do the logits of the
    model that holds it so. Of a model that cannot be held, or is larger than `form.WHOLE_BYTES`, what needs
    the whole of it is not computed, which the statement says, and a sample of what was merged is looked at;
    every other byte is. A proof that passed on the same things before is returned as it is. Raises
    IntegrityError where base, run or model are not what their manifests say.
    """
    merged = {"base": base, "run": run} | roles(others)
    evidence = {role: each.id for role, each in merged.items()} | {"held_out": held_out.id}
    budget, combination = recipe.pixel_budget, combination_of(recipe)
    check_count(combination, others)
    stated_combination = combination and combination.model_dump(mode="json")
    asked = {
        "rows": ROWS,
        "pixels": budget and asdict(budget),
        "family": recipe.family,
        "thinking": recipe.train.thinking,
        "combination": stated_combination,
    }
    why = why_sampled(checkpoint_path(base))
    asked["form"] = "sampled" if why else "whole"
    inputs = evidence | {"model": model.id}
    key = stage_key(PREDICATE, "finetune.merge_proof", ("torch", "transformers", "peft"), asked, inputs)
    for earlier in attestations(home, model.id, PREDICATE):
        if earlier.passed and earlier.statement.get("key") == key:
            return earlier
    verify_base(base)
    for each in (run, *others, model):
        verify(each)
    stated = {role: model.manifest.inputs.get(role) for role in merged}
    findings = [
        f"the model was made from {role} {str(stated[role])[:12]}, not {evidence[role][:12]}"
        for role in stated
        if stated[role] != evidence[role]
    ]
    findings += [
        f"{each.short} is of another base than {base.short}"
        for each in (run, *others)
        if each.manifest.inputs.get("base") != base.id
    ]
    if model.body.get("combination") != stated_combination:
        findings.append("the model states another combination than the recipe")
    parts = {}
    if not findings and why:
        parts = _sampled_parts(recipe, base, run, model, others, why, findings)
    elif not findings:
        parts = _parts(recipe, home, base, run, model, held_out, others, findings)
    return attest(
        home,
        PREDICATE,
        model.id,
        passed=not findings,
        evidence=evidence,
        statement={"key": key, "findings": findings, **parts},
    )


def _sampled_parts(
    recipe: Recipe,
    base: Artifact,
    run: Artifact,
    model: Artifact,
    others: Sequence[Artifact],
    why: str,
    findings: list[str],
) -> dict[str, object]:
    """As `_parts`, without holding the model."""
    with signals_held(), no_collection():
        from finetune.merging.tied import tied_head
        from finetune.proving.companions import companions_part
        from finetune.proving.definition import combined_definition, full_definition, lora_definition
        from finetune.proving.large import sampled_part
        from finetune.proving.new_tokens import new_tokens_part
        from finetune.proving.regions import read_regions
        from finetune.quantized import read_quantized

    root, family = checkpoint_path(base), recipe.model_family
    new_tokens = learned_tokens(run.body)
    facts: dict[str, object] = {"form": {"sampled": why}}
    try:
        stored, merged = read_regions(root), read_regions(model.path)
        if (combination := combination_of(recipe)) is not None:
            adapters = [each.path for each in (run, *others)]
            definition = combined_definition(root, adapters, family, stored, combination)
            facts["combination"] = combination.model_dump(mode="json")
            for role, each in zip(("adapter", *roles(others)), definition.adapters, strict=True):
                facts[role] = each.facts
        elif run.body["method"] == "full":
            definition = full_definition(run.path, stored, tied_head(root))
        else:
            definition = lora_definition(root, run.path, family, stored, read_quantized(run.path))
            facts["adapter"] = definition.adapter.facts
        parts = {
            "weights": lambda: sampled_part(stored, merged, definition, family, model.id),
            "files": lambda: companions_part(root, model, recipe.pixel_budget, new_tokens),
        }
        if new_tokens:
            parts["new_tokens"] = lambda: new_tokens_part(root, model.path, new_tokens)
        for name, make in parts.items():
            part = make()
            facts[name] = part.facts
            findings += [f"{name}: {finding}" for finding in part.findings]
        facts |= {name: not_computed(root) for name in ("loaded", "logits")}
    except IntegrityError as error:
        findings.append(str(error))
    return facts


def _parts(
    recipe: Recipe,
    home: Home,
    base: Artifact,
    run: Artifact,
    model: Artifact,
    held_out: Artifact,
    others: Sequence[Artifact],
    findings: list[str],
) -> dict[str, object]:
    """Each part's facts by name; what is wrong is added to `findings`."""
    # Imported when there is something to prove: a proof that is already there needs no torch.
    with signals_held(), no_collection():
        import torch
        from transformers.utils import logging

        from finetune.adapted import load_in_four_bits, load_trained
        from finetune.layout import read_places
        from finetune.merging.tied import tied_head
        from finetune.model import DTYPES, load_model
        from finetune.proving import weights
        from finetune.proving.combination import read_combined, with_combined
        from finetune.proving.companions import companions_part
        from finetune.proving.experts import expert_deltas
        from finetune.proving.logits import logits_part
        from finetune.proving.new_tokens import new_tokens_part
        from finetune.quantized import read_quantized

    logging.disable_progress_bar()
    root = checkpoint_path(base)
    dtype = model.body["dtype"]
    new_tokens = learned_tokens(run.body)
    rows = proof_rows(read_held_out(home, held_out, REASON), ROWS)
    if not rows:
        raise InputError("the held-out set has no rows", [Problem("nothing to ask", held_out.short)])
    facts: dict[str, object] = {}
    made_of = {"run": run} | roles(others)
    try:
        stored, merged = weights.stored(root), weights.stored(model.path)
        quantized = read_quantized(run.path)
        if quantized is not None:
            # In the coarser of the two: what one of them rounded to it is not to be had again.
            dtype = max(dtype, quantized.dtype, key=lambda each: torch.finfo(DTYPES[each]).eps)
        combination = combination_of(recipe)
        # Of several adapters the base comes as it is: what they make of it is set below, last.
        trained = load_trained(root, run.path if combination is None else None, DTYPES[dtype])
        held = load_in_four_bits(root, run.path, DTYPES[dtype]) if quantized else None
        places, shapes = read_places(root, recipe.model_family)
        definition: weights.Definition = {}
        elsewhere: set[str] = set()
        if combination is not None:
            combined = read_combined(root, [each.path for each in (run, *others)], combination)
            facts["combination"] = combination.model_dump(mode="json")
            for role, alone in zip(("run", *roles(others)), combined.adapters, strict=True):
                adapter = weights.adapter_part(alone, made_of[role].path)
                facts["adapter" if role == "run" else role] = adapter.facts
                findings += [f"{role}: {finding}" for finding in adapter.findings]
            definition = combined.definition
            disk = weights.on_disk(definition, combined.experts, places, shapes)
        elif run.body["method"] != "full":
            adapter = weights.adapter_part(trained, run.path)
            facts["adapter"] = adapter.facts
            findings += adapter.findings
            experts = expert_deltas(trained)
            definition = weights.lora_definition(trained, experts, held)
            heads = {name for name in shapes if name == tied_head(root)}
            definition |= weights.row_definition(trained, heads)
            definition |= weights.whole_definition(trained, run.path)
            disk = weights.on_disk(definition, experts, places, shapes)
            for name in heads - stored.place.keys():
                disk.pop(name, None)
        else:
            disk = weights.full_definition(run.path, stored)
            elsewhere = places.keys() - disk.keys()
        odd = {
            part.name
            for name in disk.keys() & places.keys() & stored.place.keys()
            if not stored.is_of(name, dtype)
            for part in places[name]
        }

        def ask(asked: PreTrainedModel, noise: float | None = None) -> Part:
            pixels, rendering = recipe.pixel_budget, recipe.rendering
            return logits_part(asked, root, model.path, pixels, rendering, dtype, rows, noise, new_tokens)

        made: dict[str, Part] = {}
        parts = [
            ("weights", lambda: weights.weights_part(stored, merged, disk, elsewhere)),
            ("files", lambda: companions_part(root, model, recipe.pixel_budget, new_tokens)),
            (
                "loaded",
                lambda: weights.loaded_part(trained, load_model(model.path, DTYPES[dtype]), definition, odd),
            ),
            ("logits", lambda: ask(trained if combination is None else with_combined(trained, definition))),
        ]
        if new_tokens:
            parts.insert(2, ("new_tokens", lambda: new_tokens_part(root, model.path, new_tokens)))
        if held is not None:
            parts.append(("logits_4_bits", lambda: ask(held, made["logits"].facts.get("noise"))))
        for name, make in parts:
            made[name] = part = make()
            facts[name] = part.facts
            findings += [f"{name}: {finding}" for finding in part.findings]
    except IntegrityError as error:
        findings.append(str(error))
    return facts
