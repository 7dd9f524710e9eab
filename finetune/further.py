"""The further adapters that a recipe merges with its run: runs of this home, and others taken into it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from finetune.merged_adapters import check_not_merged
from finetune.stated import read_stated
from lensmith.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lensmith.artifact import Artifact
from lensmith.base import checkpoint_path
from lensmith.errors import InputError, Problem
from lensmith.files import digest_file
from lensmith.home import Home
from lensmith.merge_settings import Further
from lensmith.provenance import stage_key
from lensmith.recipe import Recipe

_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)


def check_named(recipe: Recipe, home: Home) -> None:
    """Refuse (InputError) names of the recipe's `merge` section that nothing stands behind. Needs no base."""
    problems: list[Problem] = []
    for where, each in _named(recipe):
        try:
            _run_of(each, home) if each.run else _files_of(each)
        except InputError as error:
            problems += _told(error, where)
    _refuse(problems)


def further_adapters(recipe: Recipe, home: Home, base: Artifact) -> list[Artifact]:
    """The runs and outside adapters that the recipe's `merge` section names, in its order; none without one.

    An outside one becomes an artifact of kind "adapter": re-keyed to the names that the class has today, its
    source's digests in the body, so that what is merged with it can be verified, and the licence and data
    that the card beside it states. Raises InputError with all that cannot be merged: another base, other
    modules or shapes, a broken or zero adapter, a setting of PEFT's that this version does not merge, one
    that is named twice.
    """
    found: list[Artifact] = []
    problems: list[Problem] = []
    for where, each in _named(recipe):
        try:
            found.append(_run(recipe, home, base, each) if each.run else _outside(recipe, home, base, each))
        except InputError as error:
            problems += _told(error, where)
    _refuse(problems)
    check_once(found)
    return found


def check_once(adapters: Sequence[Artifact]) -> None:
    """Refuse (InputError) adapters of which two have the same tensors."""
    if len(adapters) < 2:
        return
    from finetune.merging.outside import tensors_digest

    first: dict[str, Artifact] = {}
    problems: list[Problem] = []
    for each in adapters:
        known = first.setdefault(tensors_digest(each.path), each)
        if known is not each:
            what = f"{each.short} has the tensors of {known.short}"
            problems.append(Problem(what, mend="name it once, with the sum of its weights"))
    if problems:
        raise InputError("an adapter would be merged twice", problems)


def _named(recipe: Recipe) -> Iterator[tuple[str, Further]]:
    adapters = recipe.merge.adapters if recipe.merge else []
    return ((f"merge.adapters.{number} ({each.told})", each) for number, each in enumerate(adapters))


def _told(error: InputError, where: str) -> list[Problem]:
    """What is wrong with one adapter, after its place in the recipe."""
    return [Problem(error.summary, where), *error.problems]


def _refuse(problems: Sequence[Problem]) -> None:
    if problems:
        raise InputError("what merge.adapters names cannot be merged with this run", problems)


def _run_of(each: Further, home: Home) -> Artifact:
    found = home.resolve(each.run or "")
    if not found.body.get("method", "").endswith("lora"):
        raise InputError(f"{found.short} is no adapter", [Problem("method full changed every weight")])
    return found


def _run(recipe: Recipe, home: Home, base: Artifact, each: Further) -> Artifact:
    from finetune.merging.checkpoint import open_checkpoint
    from finetune.merging.combined import read_member

    run = _run_of(each, home)
    trained_on = str(run.manifest.inputs.get("base"))
    if trained_on != base.id:
        what = f"was trained on base-{trained_on[:12]}, the recipe's is {base.short}"
        raise InputError("another base", [Problem(what, mend="name runs of one base")])
    read_member(run.path, open_checkpoint(checkpoint_path(base)), recipe.model_family)
    return run


def _files_of(each: Further) -> Path:
    root = each.path or Path()
    missing = [name for name in _FILES if not (root / name).is_file()]
    if missing:
        raise InputError(
            "holds no adapter", [Problem("is missing", name, "name the folder of one") for name in missing]
        )
    return root


def _outside(recipe: Recipe, home: Home, base: Artifact, each: Further) -> Artifact:
    root = _files_of(each)
    source = {name: digest_file(root / name) for name in _FILES}
    stated = asdict(read_stated(root))
    asked = {"source": source, "family": recipe.family, **stated}
    key = stage_key("adapter", "finetune.further", ("torch", "safetensors"), asked, {"base": base.id})
    if found := home.find("adapter", key):
        return found
    from finetune.merging.checkpoint import open_checkpoint
    from finetune.merging.combined import read_member
    from finetune.merging.outside import rewrite_adapter, tensors_digest

    checkpoint = open_checkpoint(checkpoint_path(base))
    with home.create("adapter", key, {"base": base}) as draft:
        rewrite_adapter(root, draft.path, checkpoint, recipe.model_family)
        check_not_merged(checkpoint_path(base), root, tensors_digest(draft.path))
        try:
            member, _ = read_member(draft.path, checkpoint, recipe.model_family)
        except InputError as error:
            # People know the folder that they named.
            summary = error.summary.replace(str(draft.path), str(root))
            raise InputError(summary, error.problems) from error
        draft.body.update(
            family=recipe.family,
            source=source,
            **stated,
            tensors=len(member.adapter.file.entries),
            weights=len(member.adapter.shapes()),
        )
        draft.record.update(place=str(root))
    return draft.artifact
