"""Merge: a base and what was trained on it, alone or with further adapters, in; a model artifact out.

The definition: the base's weight in float32 plus scale * B @ A in float32, for DoRA with each row set to its
trained length, rounded once to the base's dtype; what stands there for several adapters says
`finetune.combination`. Where the base was trained on in 4 bits its weight is what these are worth. Rows of
new tokens are the trained ones, rounded once. Works on the safetensors files, some rows at a time; keys,
dtypes, shapes and shards stay the base's. A merge that was killed goes on with the file that it was at.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from finetune.combination import check_count, combination_of, roles
from finetune.further import check_once
from finetune.merged_adapters import BODY
from finetune.merging.companions import copy_companions
from finetune.merging.low_rank import Product, multiply_alike
from finetune.merging.tokenizer_files import extend_files
from lensmith.artifact import Artifact, verify
from lensmith.base import checkpoint_path, template_digest, verify_base
from lensmith.errors import InputError, LensmithError, Problem
from lensmith.files import digest_from_disk
from lensmith.home import Home
from lensmith.new_tokens import learned_tokens
from lensmith.provenance import stage_key
from lensmith.recipe import Recipe


def merge_key(recipe: Recipe, base: Artifact, run: Artifact, others: Sequence[Artifact] = ()) -> str:
    """The key of the model that `merge` makes."""
    budget, combination = recipe.pixel_budget, combination_of(recipe)
    asked = {
        "pixels": budget and asdict(budget),
        "licence": recipe.licence,
        "combination": combination and combination.model_dump(mode="json"),
    }
    inputs = {"base": base.id, "run": run.id} | {role: each.id for role, each in roles(others).items()}
    return stage_key("merge", "finetune.merge", ("torch", "transformers"), asked, inputs)


def merge(
    recipe: Recipe, home: Home, base: Artifact, run: Artifact, others: Sequence[Artifact] = ()
) -> Artifact:
    """The model artifact of `run` on `base`: a checkpoint directory that any tool of its family opens.

    others: what the recipe's `merge` section names, by `further_adapters`. Raises InputError for an adapter
    of another base, one that cannot be merged whole, is broken or changes nothing, and for one that is there
    twice; IntegrityError where base, run or others are not what was pinned or a shard is damaged.
    """
    check_pair(base, run)
    combination = combination_of(recipe)
    check_count(combination, others)
    key = merge_key(recipe, base, run, others)
    if found := home.find("model", key):
        return found
    started = time.monotonic()
    verify_base(base)
    for each in (run, *others):
        verify(each)
    check_once([run, *others])
    with home.create("model", key, {"base": base, "run": run} | roles(others)) as draft:
        # Imported when there is work. Torch is, by the crew, when there is something to copy meanwhile.
        from finetune.merging.weights import discard, write_combined, write_merged

        root = checkpoint_path(base)
        try:
            family, work = recipe.model_family, home.work_path(key)
            if combination is None:
                merged = write_merged(root, family, run, draft.path, work)
            else:
                paths = [each.path for each in (run, *others)]
                merged = write_combined(root, family, paths, combination, draft.path, work)
            digests = _digests(draft.path, merged.products)
            if digests is None:
                discard(draft.path, work)
                merged = write_merged(root, family, run, draft.path, work, by_numpy=False)
                digests = _digests(draft.path, merged.products)
                assert digests is not None
        except LensmithError:
            # To be done again it would fail again.
            shutil.rmtree(home.work_path(key), ignore_errors=True)
            raise
        draft.digests.update(digests)
        budget = recipe.pixel_budget
        copy_companions(root, draft.path, budget)
        extend_files(draft.path, learned_tokens(run.body))
        draft.body.update(
            method=run.body["method"],
            family=recipe.family,
            dtype=merged.dtype,
            template=template_digest(draft.path),
            licence=recipe.licence,
            pixels=budget and asdict(budget),
            tensors=merged.tensors,
            tensors_changed=merged.changed,
        )
        if run.body["method"] != "full":
            from finetune.merging.outside import tensors_digest

            draft.body[BODY] = [tensors_digest(each.path) for each in (run, *others)]
        if combination is not None:
            draft.body.update(combination=combination.model_dump(mode="json"))
        draft.record.update(seconds=round(time.monotonic() - started, 3))
    return draft.artifact


def _digests(folder: Path, products: frozenset[Product]) -> dict[Path, str] | None:
    """The digest of every shard in `folder`; None where numpy does not multiply these `products` as torch
    does, and what was written is to be written again."""
    shards = sorted(folder.glob("*.safetensors"))
    # Written past the cache, they are read so: as many at once as there are cores.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = pool.map(digest_from_disk, shards)
        # Meanwhile torch is imported.
        if products and not multiply_alike(products):
            return None
        return dict(zip(shards, found, strict=True))


def check_pair(base: Artifact, run: Artifact) -> None:
    """Refuse (InputError) anything but a run and the very base it was trained on."""
    if run.kind != "run":
        raise InputError(f"{run.short} is not a run", [Problem("only what training wrote can be merged")])
    if base.kind != "base":
        mend = "merge into the base that the run names"
        raise InputError(
            f"{base.short} is not a base", [Problem("a merged model would be merged twice", mend=mend)]
        )
    trained_on = run.manifest.inputs.get("base")
    if trained_on != base.id:
        raise InputError(
            f"{run.short} was trained on another base",
            [Problem(f"on base-{str(trained_on)[:12]}, not {base.short}", mend="give the base it names")],
        )
