"""What a stage's key is made of: the code that runs, the packages it runs on, what was asked."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from lensmith.files import digest_json

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("lensmith", "data_prep", "finetune", "serving")


def _source(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imports(module: str, path: Path) -> set[str]:
    """Every module of ours that `module`, whose source is `path`, imports; parents of packages included."""
    names = {module}
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *filter(None, [node.module])])
            names.add(source)
            names.update(f"{source}.{alias.name}" for alias in node.names)
    parts = [name.split(".") for name in names if name.split(".")[0] in PACKAGES]
    # Importing a.b.c runs a and a.b too.
    return {".".join(each[:depth]) for each in parts for depth in range(1, len(each) + 1)}


@functools.cache
def code_digest(module: str) -> str:
    """SHA-256 over the source of `module` and of every module of ours that it imports, however deep.

    The command line's own files are left out: how a stage is asked for does not change what it makes.
    """
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _source(name)
        if path is None or name in found or name.startswith("lensmith.cli"):
            continue
        found[name] = path
        waiting.extend(_imports(name, path))
    state = hashlib.sha256()
    for name in sorted(found):
        state.update(f"{name}\n".encode())
        state.update(hashlib.sha256(found[name].read_bytes()).digest())
    return state.hexdigest()


def package_versions(names: tuple[str, ...]) -> dict[str, str]:
    """The installed version of each distribution, "absent" where there is none."""
    versions: dict[str, str] = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions


def stage_key(
    stage: str, module: str, packages: tuple[str, ...], asked: Mapping[str, Any], inputs: Mapping[str, str]
) -> str:
    """The digest of what is asked of a stage.

    `module` is the stage's program, `asked` the part of the resolved recipe it reads (JSON values),
    `inputs` the id of each input artifact by role.
    """
    return digest_json(
        {
            "stage": stage,
            "code": code_digest(module),
            "packages": package_versions(packages),
            "asked": dict(asked),
            "inputs": dict(inputs),
        }
    )
