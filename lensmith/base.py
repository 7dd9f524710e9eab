"""The base checkpoint: a directory that is used where it lies, pinned by the digest of its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lensmith.artifact import Artifact, list_files
from lensmith.downloaded import pinned_revision
from lensmith.errors import InputError, IntegrityError, Problem
from lensmith.families import FAMILIES
from lensmith.families.family import Family, Foreign
from lensmith.files import digest_file
from lensmith.home import Home
from lensmith.provenance import stage_key
from lensmith.recipe import Recipe

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
NEEDED = ("config.json", "tokenizer_config.json")
TEMPLATES = ("chat_template.jinja", "chat_template.json")
# How to get what a plan needs.
SMALL = "download it; a plan needs no weights: hf download NAME --exclude '*.safetensors' --local-dir DIR"
# How the files begin, in capitals, that whoever hands a model on must hand on with it.
LEGAL = ("LICENSE", "LICENCE", "NOTICE", "USE_POLICY")


def base_key(recipe: Recipe) -> str:
    """The key of the base artifact: the place, revision and the size and time of every file there.

    Raises InputError where the base cannot be used (see `check_base`), or is of another commit.
    """
    root = recipe.base.path
    check_base(root, recipe.model_family)
    pinned_revision(root, recipe.base.revision)
    stats = {
        path.relative_to(root).as_posix(): [path.stat().st_size, path.stat().st_mtime_ns]
        for path in sorted(root.rglob("*"))
        if path.is_file() and ".cache" not in path.relative_to(root).parts
    }
    asked = {"place": str(root), "stats": stats, "base": recipe.base.model_dump(mode="json")}
    return stage_key("base", "lensmith.base", (), asked, {})


def pin_base(recipe: Recipe, home: Home) -> Artifact:
    """The artifact of the recipe's base: nothing is copied; the body lists every file's digest."""
    key = base_key(recipe)
    if found := home.find("base", key):
        return found
    root = recipe.base.path
    with home.create("base", key, {}) as draft:
        files = [entry for entry in list_files(root) if ".cache" not in entry.path.split("/")]
        draft.body.update(
            family=recipe.family,
            revision=pinned_revision(root, recipe.base.revision),
            licence=recipe.base.licence,
            template=template_digest(root),
            files=[entry.model_dump() for entry in files],
        )
        draft.record.update(place=str(root))
    return draft.artifact


def checkpoint_path(artifact: Artifact) -> Path:
    """The directory with the weights: a base's recorded place, a model's or run's own directory."""
    if artifact.kind == "base":
        return Path(artifact.record()["place"])
    if artifact.kind in ("model", "run"):
        return artifact.path
    raise InputError(f"{artifact.short} holds no weights")


def is_legal(name: str) -> bool:
    """Whether a checkpoint's file of this name says what may be done with it."""
    return name.upper().startswith(LEGAL)


def verify_base(base: Artifact) -> None:
    """Re-hash the files that a base artifact points at. Raises IntegrityError with each that differs."""
    root = checkpoint_path(base)
    problems: list[Problem] = []
    for entry in base.body["files"]:
        path = root / entry["path"]
        if not path.is_file():
            problems.append(Problem("is missing", str(path)))
        elif path.stat().st_size != entry["bytes"] or digest_file(path) != entry["sha256"]:
            problems.append(Problem("was changed after it was pinned", str(path)))
    if problems:
        raise IntegrityError(f"the base of {base.short} is not what was pinned", problems)


def has_weights(root: Path) -> bool:
    """Whether the checkpoint's weights lie in `root`, not only what describes them."""
    return any((root / name).is_file() for name in WEIGHTS)


def check_base(root: Path, family: Family, *, weights: bool = True) -> dict[str, Any]:
    """The checkpoint's config.json, after checking that it is whole and of this family.

    Without `weights` the files that describe them are enough.

    Raises InputError with every problem: no directory, missing files, another architecture, remote code.
    """
    if not root.is_dir():
        raise InputError(
            "the base model is missing",
            [
                Problem(
                    "no such directory", f"base.path = {root}", "download or make it" if weights else SMALL
                )
            ],
        )
    problems = [Problem("is missing", str(root / name)) for name in NEEDED if not (root / name).is_file()]
    if weights and not has_weights(root):
        problems.append(Problem("no safetensors weights", str(root), "fetch the whole checkpoint"))
    if not any((root / name).is_file() for name in TEMPLATES):
        mend = "fetch the whole checkpoint"
        if family.template:
            mend = "it is published without one: put the family's into chat_template.jinja (docs/families.md)"
        problems.append(Problem("no chat template", str(root), mend))
    links = [path for path in root.rglob("*") if path.is_symlink()]
    if links:
        mend = "a hub's cache is made of links: hf download NAME --revision COMMIT --local-dir DIR"
        problems.append(Problem(f"{len(links)} of its files are symbolic links", str(links[0]), mend))
    config: dict[str, Any] = {}
    if (root / "config.json").is_file():
        try:
            config = json.loads((root / "config.json").read_bytes())
            problems += _family_problems(config, root, family)
        except ValueError as error:
            problems.append(Problem(f"is not JSON: {error}", str(root / "config.json")))
    if problems:
        raise InputError(f"the base at {root} cannot be used", problems)
    return config


def _family_problems(config: dict[str, Any], root: Path, family: Family) -> list[Problem]:
    where = str(root / "config.json")
    if foreign := _foreign(config):
        what = f"is {foreign.architecture}, which only code from the checkpoint runs: none is ever run"
        return [Problem(what, where, f"use the native version: {foreign.native}")]
    problems: list[Problem] = []
    if config.get("model_type") != family.model_type:
        problems.append(
            Problem(
                f"is a {config.get('model_type')!r} checkpoint, the recipe says family {family.name!r}",
                where,
                "name the right family, or the right base",
            )
        )
    elif family.architecture not in (config.get("architectures") or []):
        problems.append(Problem(f"architectures has no {family.architecture}", where))
    if "auto_map" in config and not family.ships_code:
        problems.append(
            Problem("auto_map asks to run code from the checkpoint", where, "use the native version")
        )
    return problems


def _foreign(config: dict[str, Any]) -> Foreign | None:
    """What the checkpoint is where a family knows it as one that needs its own code."""
    stated = (config.get("model_type"), *(config.get("architectures") or []))
    every = [foreign for family in FAMILIES.values() for foreign in family.foreign]
    return next((each for each in every if (each.model_type, each.architecture) == stated), None)


def template_digest(root: Path) -> str:
    """SHA-256 of the checkpoint's chat template file."""
    return digest_file(_template_file(root))


def read_template(root: Path) -> str:
    """The checkpoint's chat template."""
    path = _template_file(root)
    text = path.read_text(encoding="utf-8")
    return text if path.suffix == ".jinja" else json.loads(text)["chat_template"]


def _template_file(root: Path) -> Path:
    """The first of `TEMPLATES` that is there. Raises InputError where none is."""
    for name in TEMPLATES:
        if (root / name).is_file():
            return root / name
    raise InputError(f"{root} has no chat template")
